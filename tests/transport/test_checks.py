"""The option ``check``: the application is asked again whether a connection may go on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import gevent.event
import pytest
from flask import Flask

import faye_wsgi.flask
from faye_wsgi import EventSource, WebSocket
from faye_wsgi.flask import eventsource, release, websocket
from faye_wsgi.testing import connect, connect_events
from faye_wsgi.transport import checks

from ..support.peer import Peer
from ..support.servers import Server
from ..support.servers import serve as run_server
from ..support.sse import EventReader
from ..support.waiting import wait_until
from ..test_websocket import Exchange, exchange
from .harness import TIMEOUT, turn, until

__all__ = ["exchange"]

APP = "tests.transport.test_checks:app"
EVERY = 0.01


@pytest.fixture(autouse=True)
def told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_told_at", [-checks.TELL_AGAIN])


# The application of the real servers: ``/refuse`` is asked until the file is there.


def app(environ: dict[str, Any], start_response: Any) -> Any:
    sign = environ["QUERY_STRING"]

    def check(connection: Any) -> bool:
        return not os.path.exists(sign)

    if WebSocket.is_websocket(environ):
        ws = WebSocket(environ, check=check, check_every=EVERY)
        ws.on("close", lambda event: None)  # it lives on
        return ws.response(environ, start_response)
    if not EventSource.is_eventsource(environ):
        start_response("200 OK", [])
        return [b""]
    es = EventSource(environ, check=check, check_every=EVERY)
    es.on("close", lambda event: None)
    return es.response(environ, start_response)


def slow_app(environ: dict[str, Any], start_response: Any) -> Any:
    """Its check is still waiting when the connection ends, until the file is there."""
    sign = environ["QUERY_STRING"]

    def check(ws: WebSocket) -> bool:
        print("asking", file=sys.stderr, flush=True)
        while not os.path.exists(sign):
            gevent.sleep(0.005)
        print("answered", file=sys.stderr, flush=True)
        return True

    if not WebSocket.is_websocket(environ):
        start_response("200 OK", [])
        return [b""]
    ws = WebSocket(environ, check=check, check_every=EVERY)
    ws.on("close", lambda event: print("told of the end", file=sys.stderr, flush=True))
    return ws.response(environ, start_response)


def test_a_thread_waits_for_a_check_that_is_being_asked(tmp_path: Any) -> None:
    """Else its hub would be destroyed under it, with what it holds of a database."""
    sign = tmp_path / "answer"
    with run_server("gunicorn-gthread", "tests.transport.test_checks:slow_app") as running:
        with Peer(running) as peer:
            peer.open(f"/?{sign}")
            wait_until(lambda: "asking" in running.log())
        wait_until(lambda: "told of the end" in running.log())
        sign.touch()
        wait_until(lambda: "answered" in running.log())
        assert "Traceback" not in running.log()


@pytest.fixture(
    scope="module", params=["gunicorn-gevent", "gunicorn-gthread", "gunicorn-sync", "wsgiref"]
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(request.param, APP) as running:
        yield running
        assert "Traceback" not in running.log()


def assert_refused(peer: Peer) -> None:
    frame = peer.read_close()
    assert (frame.close_code, frame.close_reason) == (4401, checks.REASON)


def test_a_websocket_is_closed_when_the_check_refuses(server: Server, tmp_path: Any) -> None:
    if server.kind == "gunicorn-sync":
        pytest.skip("its socket cannot be taken")
    sign = tmp_path / "refused"
    with Peer(server) as peer:
        peer.open(f"/?{sign}")
        sign.touch()
        assert_refused(peer)
        peer.send_close(4401)
        peer.read_eof()


def test_a_stream_ends_and_its_client_is_told_to_wait(server: Server, tmp_path: Any) -> None:
    """Also where its socket cannot be taken, and the server's thread asks."""
    sign = tmp_path / "refused"
    with EventReader(server, f"/?{sign}") as reader:
        assert reader.head.status == 200
        sign.touch()
        *_, last = [line for line in reader.body().split(b"\r\n") if line]
        assert last.startswith(b"retry: ") and EVERY * 1000 <= int(last[7:]) <= EVERY * 2000


# In one hub


def test_a_connection_goes_on_while_the_check_allows_it(exchange: Callable[..., Exchange]) -> None:
    seen: list[WebSocket] = []
    answers = [True, 1, "yes", None]
    made = exchange()

    def check(ws: WebSocket) -> Any:
        seen.append(ws)
        return answers[len(seen) - 1]

    ws = made.accept(check=check, check_every=EVERY)
    assert_refused(made.peer)  # None is no permission
    made.peer.send_close(4401)
    ws.wait_closed(TIMEOUT)
    assert seen == [ws] * 4 and ws.close_code == 4401


def test_one_is_asked_about_at_a_time(exchange: Callable[..., Exchange]) -> None:
    """However long an answer takes, and also about the same connection."""
    asking: list[WebSocket] = []
    asked: set[WebSocket] = set()
    most = 0
    answer = gevent.event.Event()

    def check(ws: WebSocket) -> bool:
        nonlocal most
        asking.append(ws)
        asked.add(ws)
        most = max(most, len(asking))
        answer.wait(TIMEOUT)
        gevent.sleep(0)
        asking.remove(ws)
        return True

    made = [exchange() for _ in range(5)]
    for one in made:
        one.accept(check=check, check_every=EVERY)
    until(lambda: asking)
    queue = checks._queues[gevent.get_hub()]
    until(lambda: len(queue) == 4, what="the others wait")
    answer.set()
    until(lambda: len(asked) == 5)
    assert most == 1


def test_who_has_ended_does_not_wait_behind_a_check_that_hangs(
    exchange: Callable[..., Exchange],
) -> None:
    answer = gevent.event.Event()
    asked: list[WebSocket] = []

    def check(ws: WebSocket) -> bool:
        asked.append(ws)
        return answer.wait(TIMEOUT)

    first, second = exchange(), exchange()
    first.accept(check=check, check_every=EVERY)
    until(lambda: asked)
    ws = second.accept(check=check, check_every=EVERY)
    queue = checks._queues[gevent.get_hub()]
    until(lambda: queue)
    second.peer.close()
    ws.wait_closed(TIMEOUT)
    assert not queue
    answer.set()
    until(lambda: len(asked) > 1)
    assert ws not in asked


def test_the_child_of_a_fork_does_not_wait_for_its_parents_check(
    exchange: Callable[..., Exchange],
) -> None:
    answer = gevent.event.Event()
    asked: list[WebSocket] = []

    def check(ws: WebSocket) -> bool:
        asked.append(ws)
        return answer.wait(TIMEOUT)

    first = exchange()
    first.accept(check=check, check_every=EVERY)
    until(lambda: asked)
    checks.forget()
    second = exchange()
    second.accept(check=lambda ws: False, check_every=EVERY)
    assert_refused(second.peer)
    answer.set()
    until(lambda: len(asked) > 1, what="the greenlet of the first one goes on")


def test_the_first_check_comes_later_and_each_at_another_time() -> None:
    delays = {checks.delay(30) for _ in range(100)}
    assert len(delays) > 90 and min(delays) >= 22.5 and max(delays) <= 30
    assert max(delays) - min(delays) > 3


def test_a_check_that_raises_ends_nothing(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    """One ERROR, however many connections there are; and it is asked again."""
    count = 0
    is_back = False

    def check(ws: WebSocket) -> bool:
        nonlocal count
        count += 1
        if not is_back:
            raise OSError("the database is away")
        return False

    made = [exchange() for _ in range(3)]
    for one in made:
        one.accept(check=check, check_every=EVERY)
    until(lambda: count > 10)
    loud = [one for one in caplog.records if one.levelname == "ERROR"]
    assert len(loud) == 1 and "it goes on" in loud[0].getMessage()
    assert loud[0].exc_info
    is_back = True
    for one in made:
        assert_refused(one.peer)


@pytest.mark.parametrize("kind", [SystemExit, gevent.GreenletExit, gevent.Timeout])
def test_a_check_that_exits(
    exchange: Callable[..., Exchange], kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """It ends neither the worker nor the checks of the others."""
    count = 0

    def check(ws: WebSocket) -> bool:
        nonlocal count
        count += 1
        if count == 1:
            raise kind()
        return False

    made = exchange()
    made.accept(check=check, check_every=EVERY)
    assert_refused(made.peer)
    assert count == 2 and caplog.text.count("it goes on") == 1


def test_a_check_may_notice_the_end_itself(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    made = exchange()
    answered = gevent.event.Event()

    def check(ws: WebSocket) -> bool:
        made.peer.close()
        try:
            ws.wait_closed(TIMEOUT)
            ws.send("are you there?")
            return True
        finally:
            answered.set()

    ws = made.accept(check=check, check_every=EVERY)
    assert answered.wait(TIMEOUT)
    turn()
    assert ws.ready_state == ws.CLOSED
    assert not caplog.records


def test_a_stream_that_nothing_refers_to_still_ends() -> None:
    """The timer does not keep it."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        es = EventSource(environ, check=lambda es: True, check_every=EVERY)
        return es.response(environ, start_response)

    with connect_events(application, "/") as es:
        es.wait_ended(TIMEOUT)


# Options


@pytest.mark.parametrize("kind", [WebSocket, EventSource])
@pytest.mark.parametrize(
    "options",
    [{"check": True}, {"check_every": 0}, {"check_every": -1}, {"check_every": None}],
)
def test_wrong_options(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="check"):
        kind({}, **options)


@pytest.mark.parametrize("decorator", [websocket, eventsource])
def test_the_decorators_check_them_at_once(decorator: Any) -> None:
    with pytest.raises(TypeError, match="check is a function"):
        decorator(check="user.is_active")(lambda connection: None)


# Frameworks


def test_flasks_hooks_run_after_each_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a listener: a check leaves no database session behind."""
    monkeypatch.setattr(faye_wsgi.flask, "_hooks", [])
    done: list[str] = []
    released = release(lambda: done.append("released"))
    assert released
    flask_app = Flask(__name__)

    def check(ws: WebSocket) -> bool:
        with flask_app.app_context():
            done.append(ws.user)  # type: ignore[attr-defined]
        return len(done) < 4

    @flask_app.route("/", websocket=True)
    @websocket(check=check, check_every=EVERY)
    def view(ws: WebSocket) -> None:
        ws.user = "ada"  # type: ignore[attr-defined]
        for message in ws:
            ws.send(message)

    with connect(flask_app.test_client(), "/") as ws:
        assert ws.wait_closed(TIMEOUT) == 4401
    assert done[:1] == ["released"]  # before the view
    assert done[1:5] == ["ada", "released", "ada", "released"]
