"""Chromium's EventSource: its parser, its reconnecting, and its Last-Event-ID."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import gevent
import pytest

from faye_wsgi import ConnectionClosed, EventSource

from ..support.apps import streams, wsgi_app
from ..support.apps.views import query
from ..support.browser import Page, page
from ..support.servers import Server
from ..support.servers import serve as run_server
from ..support.sse import notes
from ..support.waiting import wait_until

APP = "tests.browser.test_eventsource:application"
PAGE = """<!doctype html><meta charset=utf-8><title>events</title><body><script>
window.listen = (url, names = []) => {
  const got = window.got = [], states = window.states = [];
  const source = window.source = new EventSource(url);
  const note = event => got.push([event.type, event.data, event.lastEventId]);
  for (const name of ['message', ...names]) source.addEventListener(name, note);
  source.onopen = () => states.push('open');
  source.onerror = () => states.push(source.readyState === 2 ? 'failed' : 'reconnecting');
};
</script>"""


# The application


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    name, values = environ["PATH_INFO"], query(environ)
    if name == "/":
        return wsgi_app.page(start_response, "200 OK", PAGE, "text/html")
    if name == "/gone":
        return wsgi_app.page(start_response, "204 No Content", "")
    if name not in FEEDS:
        return wsgi_app.application(environ, start_response)
    es = EventSource(environ, retry=0.1)
    streams.note(values, es.last_event_id)
    FEEDS[name](es, values)
    return es.response(environ, start_response)


def short(es: EventSource, values: streams.Query) -> None:
    """Three events to a connection, from where the client was."""
    first = int(es.last_event_id or -1) + 1
    for number in range(first, first + 3):
        es.send(f"event {number}", id=number)
    es.close()


def endless(es: EventSource, values: streams.Query) -> None:
    number = int(es.last_event_id or -1)
    while not es.closed:
        number += 1
        try:
            es.send(str(number), id=number)
        except ConnectionClosed:
            break
        gevent.sleep(0.02)


def worded(es: EventSource, values: streams.Query) -> None:
    es.send("hello", id="grüße, 世界")
    es.close()


def fields(es: EventSource, values: streams.Query) -> None:
    es.send("zero", id=0)
    es.send("keeps the id")
    es.send("resets the id", id="")
    es.ping()
    es.send("named", event="news", id="grüße")
    es.send("nobody listens", event="other")
    es.send("the end")
    es.wait_closed(10)


FEEDS = {"/short": short, "/endless": endless, "/fields": fields, "/worded": worded}


# Tests


@pytest.fixture(scope="module", params=["gunicorn-gevent", "gunicorn-gthread"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(request.param, APP) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture(scope="module")
def window(server: Server) -> Iterator[Page]:
    with page() as opened:
        yield opened.open(server.url("/"))


@pytest.fixture
def listen(window: Page) -> Iterator[Callable[..., None]]:
    """`listen('/feed')` opens an EventSource in the page, which ends with the test."""
    yield lambda *arguments: window.run("listen(...arguments)", *arguments)
    window.run("source.close()")


Listen = Callable[..., None]


def got(window: Page) -> list[Any]:
    found: list[Any] = window.run("return window.got")
    return found


def test_every_text_survives(window: Page, listen: Listen) -> None:
    listen("/es/texts", ["named"])
    window.wait(lambda w: got(w) and got(w)[-1][1] == "the end", 10, "all events")
    expected = [
        ["message", text.replace("\r\n", "\n").replace("\r", "\n"), str(number)]
        for number, text in enumerate(streams.TEXTS)
    ]
    received = got(window)
    assert received[: len(expected)] == expected
    assert received[len(expected)] == ["named", "with all", "an id: 世界"]
    # The last id stays that of the stream until another is sent.
    assert received[len(expected) + 1] == ["message", "the end", "an id: 世界"]


def test_fields(window: Page, listen: Listen) -> None:
    listen("/fields", ["news"])
    window.wait(lambda w: got(w) and got(w)[-1][1] == "the end", 10, "all events")
    assert got(window) == [
        ["message", "zero", "0"],
        ["message", "keeps the id", "0"],
        ["message", "resets the id", ""],
        ["news", "named", "grüße"],
        ["message", "the end", "grüße"],
    ]
    assert window.run("return states") == ["open"]


def test_an_event_without_text(window: Page, listen: Listen) -> None:
    """It is one: an empty `data:` line is data (WHATWG 9.2.6)."""
    listen("/es/texts")
    window.wait(lambda w: len(got(w)) > 2, 10, "the first events")
    assert got(window)[1] == ["message", "", "1"]


def test_reconnecting(window: Page, listen: Listen, server: Server) -> None:
    """Each connection goes on where the last one ended; nothing is lost, nothing comes twice."""
    key = f"short-{server.kind}"
    listen(f"/short?key={key}")
    window.wait(lambda w: len(got(w)) >= 12, 10, "four connections' events")
    received = got(window)
    expected = [["message", f"event {n}", str(n)] for n in range(len(received))]
    assert received == expected
    assert notes(server, key)[:4] == ["", "2", "5", "8"]
    assert window.run("return states").count("open") >= 4


def test_an_id_that_is_not_ascii_comes_back(window: Page, listen: Listen, server: Server) -> None:
    key = f"worded-{server.kind}"
    listen(f"/worded?key={key}")
    wait_until(lambda: len(notes(server, key)) > 1, 10, "another connection")
    assert notes(server, key)[:2] == ["", "grüße, 世界"]


def test_the_page_closes(window: Page, listen: Listen, server: Server) -> None:
    key = f"closed-{server.kind}"
    listen(f"/es/listening?key={key}&ping=none")
    window.wait(lambda w: got(w), 10, "the first event")
    window.run("source.close()")
    wait_until(lambda: len(notes(server, key)) == 2, 3, "the close event")
    assert notes(server, key)[1][0] == "close"


def test_the_worker_is_replaced(window: Page, listen: Listen, server: Server) -> None:
    """The page goes on with the next worker, where it was."""
    listen(f"/endless?key=endless-{server.kind}")
    window.wait(lambda w: len(got(w)) > 5, 10, "events")
    (old,) = server.worker_pids()
    server.signal(signal.SIGHUP)
    wait_until(lambda: old not in server.worker_pids(), 10, "the end of the old worker")
    before = len(got(window))
    window.wait(lambda w: len(got(w)) > before + 10, 10, "events of the new worker")
    numbers = [int(data) for _, data, _ in got(window)]
    assert numbers == list(range(len(numbers)))


def test_204_ends_it(window: Page, listen: Listen) -> None:
    """How an application says that there will be no more (WHATWG 9.2.3)."""
    listen("/gone")
    window.wait(lambda w: w.run("return source.readyState") == 2, 10, "the end")
    assert json.loads(window.run("return JSON.stringify(states)")) == ["failed"]
