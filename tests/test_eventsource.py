"""EventSource on every kind of server: the head, the events, the end, and the fallback."""

from __future__ import annotations

import contextlib
import gc
import json
import queue
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, Callable
from wsgiref.util import setup_testing_defaults

import pytest

from faye_wsgi import ConnectionClosed, EventSource

from .support.apps.streams import FORBIDDEN, TEXTS
from .support.frames import read_exactly
from .support.servers import KINDS, Server, children
from .support.servers import serve as run_server
from .support.sse import Acknowledgements, EventReader, notes, read_one_by_one
from .support.strangers import Http2Client, waitress_server
from .support.waiting import wait_until
from .test_websocket import Exchange, exchange
from .transport.harness import turn, until
from .wsgi.test_echo import ALARM, ways

__all__ = ["exchange"]

# gunicorn's sync worker streams through the iterable: see the end of this file.
TAKEN = [kind for kind in KINDS if kind != "gunicorn-sync"]
LISTENING = [way for kind in TAKEN for way in ways(kind)]
TIMEOUT = 10.0
ONE_AT_A_TIME = "wsgiref-single"
HEADERS = [
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache, no-store, no-transform"),
    ("X-Accel-Buffering", "no"),
    ("Connection", "close"),
]


@pytest.fixture(scope="module", params=LISTENING)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server for the tests of this file."""
    kind, _, way = request.param.partition("+")
    how: dict[str, Any] = {way: True} if way else {}
    with run_server(kind, **how) as running:
        CHECKED[running] = len(running.log())
        yield running


CHECKED: dict[Server, int] = {}


@pytest.fixture
def quiet(server: Server) -> Iterator[Server]:
    """The server; what is new in its log after the test must hold no complaint."""
    yield server
    new = server.log()[CHECKED[server] :]
    CHECKED[server] += len(new)
    assert not ALARM.search(new), new


@pytest.fixture
def key() -> str:
    """What happens is written down under it."""
    return uuid.uuid4().hex


@pytest.fixture
def several(server: Server) -> None:
    """The test asks for a page beside its stream."""
    if server.kind == ONE_AT_A_TIME:
        pytest.skip("it serves one connection at a time")


def retry_line(seconds: float) -> bytes:
    return b"retry: %d\r\n\r\n" % round(seconds * 1000)


# The head


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_the_bytes(quiet: Server, version: str) -> None:
    """The same on either version of HTTP, and not one byte more."""
    with EventReader(quiet, "/es/write", version=version) as reader:
        assert (reader.head.status, reader.head.reason) == (200, "OK")
        assert reader.head.fields == HEADERS
        assert reader.body() == retry_line(5) + b"data: written\r\n\r\ndata: ended\r\n\r\n"
    status = rf'GET /es/write {re.escape(version)}[^"\n]*" 200\b'
    wait_until(lambda: re.search(status, quiet.access_log()), what="200 in the access log")


def test_headers_of_the_user(quiet: Server) -> None:
    added = "cache-control=private,X-Mine=1,X-Mine=2"
    with EventReader(quiet, "/es/write", header=added) as reader:
        assert reader.head.get_all("Cache-Control") == ["private"]
        assert reader.head.get_all("X-Mine") == ["1", "2"]
        assert reader.head.get_all("Content-Type") == [HEADERS[0][1]]


@pytest.mark.parametrize(
    "retry, line",
    [
        ("2", b"retry: 2000"),
        ("0.25", b"retry: 250"),
        ("1.2345", b"retry: 1234"),
        ("0", b"retry: 0"),
    ],
)
def test_retry(quiet: Server, retry: str, line: bytes) -> None:
    with EventReader(quiet, "/es/write", retry=retry) as reader:
        assert reader.body().split(b"\r\n\r\n")[0] in (line, line[:-1] + b"5")


def test_no_retry(quiet: Server) -> None:
    with EventReader(quiet, "/es/write", retry="none") as reader:
        assert reader.body().startswith(b"data: written\r\n")


def test_pings(quiet: Server) -> None:
    with EventReader(quiet, "/es/blank", ping="0.1", seconds=0.55) as reader:
        comments = reader.start(len(retry_line(5)) + 3 * 5)
        assert comments == retry_line(5) + b":\r\n\r\n" * 3


@pytest.mark.parametrize("ping", ["none", "0"])
def test_no_pings(quiet: Server, ping: str) -> None:
    with EventReader(quiet, "/es/blank", ping=ping, seconds=0.3) as reader:
        reader.start(len(retry_line(5)))
        reader.sock.settimeout(0.1)
        with pytest.raises((TimeoutError, socket.timeout)):
            reader.sock.recv(1)


def test_a_ping_by_hand(quiet: Server, key: str) -> None:
    with EventReader(quiet, "/es/comment", key=key) as reader:
        assert reader.body() == retry_line(5) + b":\r\n\r\ndata: after the comment\r\n\r\n"
    wait_until(lambda: notes(quiet, key) == [True])


def test_what_it_knows(quiet: Server) -> None:
    with EventReader(quiet, "/es/about", {"Last-Event-ID": "42"}, a="b c") as reader:
        known = json.loads(reader.next().data)
    url = quiet.url("/es/about?a=b+c")
    if quiet.kind.startswith("wsgiref"):  # whose url_scheme knows nothing of TLS
        url = url.replace("https:", "http:")
    assert known == {"url": url, "last_event_id": "42", "ready_state": 1, "closed": False}


@pytest.mark.parametrize(
    "header, query, expected",
    [
        (None, {}, ""),
        ("an id", {}, "an id"),
        ("grüße".encode().decode("latin-1"), {}, "grüße"),
        ("0", {"param": "last", "last": "5"}, "0"),
        (None, {"param": "last", "last": "5 6"}, "5 6"),
        (None, {"last": "5"}, ""),
        (None, {"param": "last"}, ""),
    ],
)
def test_last_event_id(
    quiet: Server, header: str | None, query: dict[str, str], expected: str
) -> None:
    headers = {} if header is None else {"Last-Event-ID": header.encode("latin-1").decode()}
    with EventReader(quiet, "/es/about", headers, **query) as reader:
        assert json.loads(reader.next().data)["last_event_id"] == expected


# The events


def test_one_by_one(quiet: Server) -> None:
    with Acknowledgements() as acks:
        with EventReader(quiet, "/es/step", n=4, ack=acks.path) as reader:
            read_one_by_one(reader, acks, 4)
            assert list(reader) == []


def test_every_text_survives(quiet: Server) -> None:
    """Read by another implementation; every newline is LF at the client (WHATWG 9.2.6)."""
    with EventReader(quiet, "/es/texts") as reader:
        events = list(reader)
    received = {event.id: event.data for event in events}
    for number, text in enumerate(TEXTS):
        expected = text.replace("\r\n", "\n").replace("\r", "\n")
        if text == "":
            continue  # an event with empty data is one: sseclient-py leaves it out
        assert received[str(number)] == expected
    assert (events[-2].event, events[-2].id, events[-2].data) == (
        "named",
        "an id: 世界",
        "with all",
    )
    assert events[-1].data == "the end"


def test_what_raises_sends_nothing(quiet: Server, key: str) -> None:
    with EventReader(quiet, "/es/refused", key=key) as reader:
        assert reader.body() == retry_line(5) + b"data: fine\r\n\r\n"
    expected = ["raised"] * (2 * len(FORBIDDEN) + 3)
    wait_until(lambda: notes(quiet, key) == expected)


def test_closing(quiet: Server, key: str) -> None:
    with EventReader(quiet, "/es/close_twice", key=key) as reader:
        assert [event.data for event in reader] == ["last"]
    wait_until(lambda: notes(quiet, key) == [[True, False, True], "raised"])


def test_many_events_through_a_slow_reader(quiet: Server, key: str) -> None:
    """All arrive, in order, and never much more than the high-water mark waits."""
    with EventReader(quiet, "/es/amount", n=300, size=20_000, key=key) as reader:
        for number, event in enumerate(reader):
            assert (event.id, len(event.data)) == (str(number), 20_000)
            if number % 30 == 0:
                time.sleep(0.01)
        assert number == 299
    assert max(wait_until(lambda: notes(quiet, key))) < 65536 + 21_000


def test_a_client_that_does_not_read(quiet: Server, several: None, key: str) -> None:
    with EventReader(quiet, "/es/flood", key=key) as reader:
        assert reader.head.status == 200
        before = json.loads(quiet.get("/stats")[1])["rss"]
        said = wait_until(lambda: notes(quiet, key), 15, "the sender's TimeoutError")
        assert said[0][0] == "timeout" and said[0][2] < 65536 + 11_000 and said[0][3] == 1
        assert json.loads(quiet.get("/stats")[1])["rss"] - before < 8 * 2**20
        received = 0
        for event in reader:
            received += len(event.data)
            if received == said[0][1]:  # what timed out was not sent
                break
        wait_until(lambda: ["drain"] in notes(quiet, key), what="drain")
    wait_until(lambda: ["closed"] in notes(quiet, key), what="the end")


# The end


def test_the_disconnect_is_noticed_at_once(quiet: Server, several: None, key: str) -> None:
    """Without a write: the view is blocked in wait_closed."""
    with EventReader(quiet, "/es/waiting", key=key, ping="none") as reader:
        assert reader.next().data == "ready"
        cut = time.time()
    ((what, when, state),) = wait_until(lambda: notes(quiet, key), 5, "the close")
    assert what == "waited" and when - cut < 1 and state == 3


def test_events(quiet: Server, several: None, key: str) -> None:
    """The view has gone home; a listener hears of the open and of the close."""
    with EventReader(quiet, "/es/listening", key=key, ping="none") as reader:
        assert reader.next().data == "ready"
        wait_until(lambda: notes(quiet, key) == [["open", True]])
        cut = time.time()
    wait_until(lambda: len(notes(quiet, key)) == 2, 5, "the close event")
    what, when, code = notes(quiet, key)[1]
    assert what == "close" and when - cut < 1 and code is None


def test_listeners_that_come_when_the_client_has_gone(
    quiet: Server, several: None, key: str
) -> None:
    with EventReader(quiet, "/es/late", key=key, ping="none") as reader:
        assert reader.next().data == "ready"
    wait_until(lambda: len(notes(quiet, key)) >= 2, what="the close event")
    assert notes(quiet, key) == [0, 1]


def test_a_half_closed_client_is_gone(quiet: Server, several: None, key: str) -> None:
    """HTTP's clients do not shut down their side and wait: the FIN is the disconnect."""
    if quiet.tls:
        pytest.skip("TLS has no half-closed connections")
    with EventReader(quiet, "/es/listening", key=key, ping="none") as reader:
        assert reader.next().data == "ready"
        reader.sock.shutdown(socket.SHUT_WR)
        assert list(reader) == []
    wait_until(lambda: len(notes(quiet, key)) == 2, 5, "the close event")


def test_a_loop_until_closed(quiet: Server, several: None, key: str) -> None:
    with EventReader(quiet, "/es/looping", key=key) as reader:
        assert [reader.next().data for _ in range(3)] == ["tick 1", "tick 2", "tick 3"]
    wait_until(lambda: notes(quiet, key) == ["raised", ["over", False, False]])


def test_held_by_the_application(quiet: Server, several: None, key: str) -> None:
    """Other requests send, which on threaded servers is from other threads."""
    with EventReader(quiet, "/es/held", key=key) as reader:
        assert reader.next().data == "held"
        for message in ("one", "two", "three"):
            assert quiet.get(f"/es/send?key={key}&message={message}")[0] == 200
            assert reader.next().data == message
        assert quiet.get(f"/es/close?key={key}")[0] == 200
        assert list(reader) == []


def test_held_by_nobody_any_more(quiet: Server, several: None, key: str) -> None:
    with EventReader(quiet, "/es/held", key=key) as reader:
        assert reader.next().data == "held"
        assert quiet.get(f"/es/drop?key={key}")[0] == 200
        quiet.get("/stats")  # which collects
        assert list(reader) == []


def test_held_by_nobody(quiet: Server) -> None:
    with EventReader(quiet, "/es/dropped", ping="none") as reader:
        assert [event.data for event in reader] == ["alone"]


@pytest.mark.parametrize("request_is", ["HEAD", "POST"])
def test_other_methods_do_not_ask_for_a_stream(quiet: Server, request_is: str) -> None:
    if quiet.kind in ("flask", "django"):
        pytest.skip("its application does not ask is_eventsource")
    length = {"Content-Length": "0"}
    with EventReader(quiet, "/es/write", length, method=request_is) as reader:
        assert reader.head.status == 406


# What goes wrong: servers of their own, since they leave tracebacks.


def tracebacks(server: Server) -> int:
    return server.log().count("Traceback")


@pytest.mark.parametrize("kind", TAKEN)
def test_exceptions(kind: str) -> None:
    """The stream ends at once, and one traceback is logged."""
    errors = {"raise": "view", "raise_in_with": "view", "raise_in_listener": "listener"}
    with run_server(kind) as server:
        for count, (name, place) in enumerate(errors.items(), 1):
            with EventReader(server, f"/es/{name}", timeout=3) as reader:
                if kind in ("flask", "django") and name == "raise":
                    # An exception that nobody has caught keeps its frames, and so the request,
                    # until garbage is collected: a `with` block, or the decorator, ends it.
                    wait_until(lambda: "RuntimeError: raised by a view" in server.log())
                    server.get("/stats")
                events = [event.data for event in reader]
                assert events == ([] if place == "listener" else ["before"])
            said = f"RuntimeError: raised by a {place}"
            wait_until(lambda count=count: tracebacks(server) >= count, what="the traceback")
            assert said in server.log()
            assert server.get("/plain")[0] == 200
            assert tracebacks(server) == count


GUNICORNS = [kind for kind in TAKEN if KINDS[kind].workers]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("kind", GUNICORNS)
def test_the_worker_stops(kind: str, number: int) -> None:
    """The clients' streams end, whatever their views do, and the worker is gone."""
    with run_server(kind) as server, contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(EventReader(server, f"/es/{view}"))
            for view in ("waiting", "listening", "looping")
        ]
        assert [reader.next().data for reader in readers] == ["ready", "ready", "tick 1"]
        (worker,) = server.worker_pids()
        asked = time.monotonic()
        server.signal(number)
        for reader in readers:
            for _ in reader:
                assert time.monotonic() - asked < 4
        assert time.monotonic() - asked < 3
        gone = lambda: worker not in children(server.pid)  # noqa: E731
        wait_until(gone, 4 - (time.monotonic() - asked), "the end of the worker")
        if number == signal.SIGHUP:
            assert server.get("/plain")[0] == 200
        else:
            server.wait()
    assert "Traceback" not in server.log(), server.log()


def few_more(server: Server, before: dict[str, int]) -> bool:
    now = json.loads(server.get("/stats")[1])
    descriptors = now["descriptors"] - before["descriptors"]
    return descriptors <= 1001 and now["greenlets"] - before["greenlets"] <= 1


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "pywsgi-unpatched"])
def test_a_thousand_streams(kind: str) -> None:
    """All are held by one worker, get their event, and are noticed when they go."""
    with run_server(kind) as server, contextlib.ExitStack() as stack:
        before = json.loads(server.get("/stats")[1])
        readers = [
            stack.enter_context(EventReader(server, "/es/listening", key="crowd"))
            for _ in range(1000)
        ]
        assert all(reader.next().data == "ready" for reader in readers)
        # The server's own greenlets, with a descriptor each, may still be on their way out.
        wait_until(lambda: few_more(server, before), 15, "little more than a descriptor for each")
        stack.close()
        wait_until(lambda: len(notes(server, "crowd")) == 2000, 15, "their close events")
        after = json.loads(server.get("/stats")[1])
        for name in ("descriptors", "greenlets", "watchers", "timers"):
            assert after[name] == before[name], name


# The decorators


FEEDS = {
    "flask": ("flask", "tests.support.apps.feeds_flask:app"),
    "flask on gunicorn-gevent": ("gunicorn-gevent", "tests.support.apps.feeds_flask:app"),
    "django": ("django", "tests.support.apps.feeds_django:app"),
    "django on gunicorn-gevent": ("gunicorn-gevent", "tests.support.apps.feeds_django:app"),
}


@pytest.fixture(scope="module", params=FEEDS)
def feeds(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(*FEEDS[request.param]) as running:
        yield running
        said = re.sub("WARNING: This is a development server.*", "", running.log())
        assert not ALARM.search(said), said


def test_decorator(feeds: Server) -> None:
    with EventReader(feeds, "/bare") as reader:
        assert reader.head.fields == HEADERS, "and none of the middleware's"
        assert [event.data for event in reader] == ["hello"]


def test_decorator_with_options(feeds: Server) -> None:
    with EventReader(feeds, "/rooms/blue", {"Last-Event-ID": "7"}) as reader:
        assert reader.head.get("X-Room") == "a room"
        body = b"retry: 500\r\n\r\nevent: room\r\nid: 1\r\ndata: blue 7\r\n\r\n"
        assert reader.body() == body


def test_decorator_below_another(feeds: Server) -> None:
    with EventReader(feeds, "/guarded") as reader:
        assert reader.head.status == 401
    with EventReader(feeds, "/guarded", user="alice") as reader:
        assert reader.next().data == "welcome"


def test_decorator_and_a_plain_get(feeds: Server) -> None:
    """A client that does not say what it accepts gets the stream as well."""
    status, body = feeds.get("/bare")
    assert (status, body) == (200, retry_line(5) + b"data: hello\r\n\r\n")


def test_decorator_swallows_the_streams_own_end(feeds: Server) -> None:
    with EventReader(feeds, "/loop") as reader:
        assert [reader.next().data, reader.next().data] == ["tick", "tick"]
    assert feeds.get("/stats")[0] == 200
    # The module's server must not have logged a traceback: see the fixture.


def test_decorator_and_listeners(feeds: Server, key: str) -> None:
    with EventReader(feeds, "/listeners", key=key) as reader:
        assert reader.next().data == "listening"
        assert notes(feeds, key) == []
    wait_until(lambda: notes(feeds, key) == ["close"])


@pytest.mark.parametrize("name", FEEDS)
def test_decorator_and_an_exception(name: str) -> None:
    """The stream ends at once, without waiting for a collection; one traceback."""
    with run_server(*FEEDS[name]) as server:
        with EventReader(server, "/raise", timeout=3) as reader:
            assert [event.data for event in reader] == ["before"]
        wait_until(lambda: "RuntimeError: raised by a view" in server.log())
        assert server.get("/stats")[0] == 200
        assert server.log().count("Traceback") == 1


# Without a server: what the constructor says, and an environ that nobody knows.


def environ(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"HTTP_ACCEPT": "text/event-stream", "HTTP_HOST": "example.com"}
    setup_testing_defaults(found)
    return {**found, "SERVER_PROTOCOL": "HTTP/1.1", **changes}


@pytest.mark.parametrize(
    "options, error",
    [
        ({"retry": "5"}, TypeError),
        ({"retry": True}, TypeError),
        ({"retry": -1}, ValueError),
        ({"retry": float("nan")}, ValueError),
        ({"retry": float("inf")}, ValueError),
        ({"ping": -1}, ValueError),
        ({"ping": "10"}, TypeError),
        ({"close_timeout": None}, TypeError),
        ({"high_water": 0}, ValueError),
        ({"headers": {"X": "a\r\nb"}}, ValueError),
        ({"headers": {"X": "a\0b"}}, ValueError),
        ({"headers": {"X y": "a"}}, ValueError),
        ({"headers": {"Content-Length": "5"}}, ValueError),
        ({"headers": {"transfer-encoding": "chunked"}}, ValueError),
        ({"unknown": 1}, TypeError),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        EventSource(environ(), **options)


def test_no_environ() -> None:
    with pytest.raises(TypeError):
        EventSource("GET / HTTP/1.1")


@pytest.mark.parametrize(
    "accept, expected",
    [
        ("text/event-stream", True),
        ("TEXT/Event-Stream", True),
        ("text/html, text/event-stream;q=0.9", True),
        ("text/event-stream; charset=utf-8", True),
        ("text/html", False),
        ("text/event-streams", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_detection(accept: str, expected: bool) -> None:
    assert EventSource.is_eventsource(environ(HTTP_ACCEPT=accept)) is expected
    assert not EventSource.is_eventsource(environ(HTTP_ACCEPT=accept, REQUEST_METHOD="POST"))


def start_response(status: str, headers: Any) -> None:
    assert status == "200 OK"
    assert not [name for name, _ in headers if name.lower() in ("connection", "content-length")]


def test_repr_has_no_query() -> None:
    es = EventSource(environ(QUERY_STRING="token=secret"), ping=None)
    assert es.url == "http://example.com/?token=secret"
    assert repr(es) == "<EventSource http://example.com/ CONNECTING>"


def test_a_head_request_gets_the_head() -> None:
    """The server keeps its connection, and a decorator leaves the view alone."""
    told: list[Any] = []
    given = environ(REQUEST_METHOD="HEAD")
    es = EventSource(given, headers={"X-Mine": "1"})
    assert es.closed and es.ready_state == es.CLOSED
    with pytest.raises(ConnectionClosed):
        es.send("to nobody")
    answer = es.response(given, lambda status, headers, *rest: told.extend([status, *headers]))
    assert list(answer) == []
    assert told[0] == "200 OK" and {("X-Mine", "1"), HEADERS[0]} <= set(told[1:])


def test_the_end_is_told_to_listeners_that_come_after_it() -> None:
    """Each once, in its turn; a raising one keeps nothing from those that come later."""
    es = EventSource(environ(REQUEST_METHOD="HEAD"))
    heard: queue.Queue[Any] = queue.Queue()
    may_go_on = threading.Event()

    def block(event: Any) -> None:
        heard.put(("block", threading.current_thread()))
        may_go_on.wait(TIMEOUT)

    es.on("close", block)
    assert heard.get(timeout=TIMEOUT)[1] is not threading.current_thread(), "not inside on"
    es.onclose = lambda event: heard.put(event.type)
    es.on("close", lambda event: 1 // 0)
    may_go_on.set()
    assert heard.get(timeout=TIMEOUT) == "close"
    es.on("close", lambda event: heard.put("last"))
    assert heard.get(timeout=TIMEOUT) == "last"
    assert heard.empty()


def test_the_operator_is_told_once_of_what_does_not_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        EventSource(environ(SERVER_SOFTWARE="a server of its own kind"), ping=None)
    assert caplog.text.count("a server of its own kind") == 1
    assert "gunicorn -k gevent" in caplog.text


def test_a_wrong_timeout_sends_nothing() -> None:
    es = EventSource(environ(), ping=None)
    before = es.buffered_amount
    with pytest.raises(TypeError, match="timeout is a number of seconds"):
        es.send("x", timeout="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout is a number of seconds"):
        es.wait_closed("1")  # type: ignore[arg-type]
    assert es.buffered_amount == before


# Over a socket of its own, in this process


@pytest.fixture
def taken(exchange: Callable[..., Exchange]) -> tuple[EventSource, Exchange]:
    """A stream, and the request that it has taken; its head is read."""
    made = exchange(HTTP_UPGRADE=None, HTTP_ACCEPT="text/event-stream")
    es = EventSource(made.environ, ping=None, retry=None)
    assert made.peer.read_head().status == 200
    return es, made


def read(made: Exchange, expected: bytes) -> None:
    assert read_exactly(made.peer.sock, len(expected)) == expected


def test_each_way_to_send(taken: tuple[EventSource, Exchange]) -> None:
    es, made = taken
    es.send("x", event="e", id=0)
    assert es.write("y") is True
    assert es.ping() is True
    es.end("z")
    read(made, b"event: e\r\nid: 0\r\ndata: x\r\n\r\ndata: y\r\n\r\n:\r\n\r\ndata: z\r\n\r\n")
    made.peer.read_eof()
    assert (es.ping(), es.close()) == (False, False)
    with pytest.raises(ConnectionClosed):
        es.write("late")


def test_a_block_that_is_left_ends_the_stream(taken: tuple[EventSource, Exchange]) -> None:
    es, made = taken
    with es:
        es.send("x")
    read(made, b"data: x\r\n\r\n")
    made.peer.read_eof()


def test_a_client_that_has_gone_is_noticed(taken: tuple[EventSource, Exchange]) -> None:
    es, made = taken
    made.peer.close()
    until(lambda: es.closed)
    es.wait_closed(TIMEOUT)


def test_with_ends_quietly_where_its_client_has_gone(taken: tuple[EventSource, Exchange]) -> None:
    es, made = taken
    with es:
        made.peer.close()
        es.wait_closed(TIMEOUT)
        es.send("too late")


def test_a_stream_that_is_held_outlives_its_view(taken: tuple[EventSource, Exchange]) -> None:
    es, made = taken
    made.answer(es.response)
    turn()
    es.send("still held")
    read(made, b"data: still held\r\n\r\n")
    es.close()


def test_a_stream_that_is_not_held_ends_with_its_view(
    exchange: Callable[..., Exchange],
) -> None:
    """Nothing could send on it, and its client would wait for ever."""
    made = exchange(HTTP_UPGRADE=None, HTTP_ACCEPT="text/event-stream")

    def view(environ: Any, start_response: Any) -> Any:
        return EventSource(environ, ping=None, retry=None).response(environ, start_response)

    made.answer(view)
    assert made.peer.read_head().status == 200
    gc.collect()
    made.peer.read_eof()


@pytest.mark.parametrize(
    "changes, options, expected",
    [
        ({"HTTP_LAST_EVENT_ID": "7"}, {}, "7"),
        ({"HTTP_LAST_EVENT_ID": "caf\xc3\xa9"}, {}, "café"),
        ({"HTTP_LAST_EVENT_ID": "\xff"}, {}, "\ufffd"),
        ({"QUERY_STRING": "last=8&last=9"}, {"last_event_id_param": "last"}, "8"),
        ({"QUERY_STRING": "last=8"}, {}, ""),
        ({"QUERY_STRING": ""}, {"last_event_id_param": "last"}, ""),
    ],
)
def test_the_last_event_id(changes: Any, options: Any, expected: str) -> None:
    assert EventSource(environ(**changes), ping=None, **options).last_event_id == expected


# Through the iterable: where the socket is shared, or not to be had.


@pytest.fixture(scope="module", params=["gunicorn-sync", "waitress"])
def stranger(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose socket cannot be taken."""
    if request.param == "waitress":
        pytest.importorskip("waitress")
        with waitress_server() as running:
            yield running
    else:
        with run_server(request.param) as running:
            yield running
            assert not ALARM.search(running.log()), running.log()


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_fallback(stranger: Server, key: str, version: str) -> None:
    with (
        Acknowledgements() as acks,
        EventReader(
            stranger, "/es/step_later", version=version, n=3, ack=acks.path, key=key
        ) as reader,
    ):
        assert reader.head.status == 200
        for name, value in HEADERS[:3]:
            assert reader.head.get(name) == value
        read_one_by_one(reader, acks, 3)
        assert list(reader) == []
    wait_until(lambda: notes(stranger, key) == ["close"])


@pytest.mark.parametrize("name", ["texts", "write", "close_twice", "refused", "about"])
def test_fallback_sends_what_the_view_left(stranger: Server, key: str, name: str) -> None:
    with EventReader(stranger, f"/es/{name}", key=key) as reader:
        assert list(reader)


def test_fallback_pings(stranger: Server, key: str) -> None:
    with EventReader(stranger, "/es/listening", key=key, ping=0.1) as reader:
        pieces = reader.pieces()
        data = b""
        while data.count(b":\r\n\r\n") < 3:
            data += next(pieces)


def test_fallback_notices_a_client_that_has_gone(stranger: Server, key: str) -> None:
    """When something is sent to it, a ping at the latest."""
    with EventReader(stranger, "/es/listening", key=key, ping=0.1) as reader:
        assert reader.next().data == "ready"
    wait_until(lambda: [note[0] for note in notes(stranger, key)] == ["open", "close"])


def test_fallback_tells_listeners_that_come_when_the_client_has_gone(
    stranger: Server, key: str
) -> None:
    with EventReader(stranger, "/es/late_elsewhere", key=key, ping=0.1) as reader:
        assert reader.next().data == "ready"
    wait_until(lambda: len(notes(stranger, key)) >= 2, what="the close event")
    assert notes(stranger, key) == [0, 1]


@pytest.fixture
def http_2(serve: Callable[..., Server]) -> Server:
    pytest.importorskip("h2")
    if not hasattr(pytest.importorskip("gunicorn.config"), "HTTPProtocols"):
        pytest.skip("this gunicorn has no HTTP/2")
    return serve("gunicorn-gevent", tls=True, options=["--http-protocols", "h2,h1"])


def test_http_2(http_2: Server, key: str) -> None:
    """The socket of all streams is not taken: after one has ended, others are answered."""
    with Http2Client(http_2) as client:
        for number in range(2):
            name = f"{key}.{number}"
            with Acknowledgements() as acks:
                stream = client.get("/es/step_later", n=3, ack=acks.path, key=name)
                headers = client.headers(stream)
                assert headers[":status"] == "200"
                assert headers["content-type"] == HEADERS[0][1]
                assert "connection" not in headers
                for event in range(3):
                    client.wait_for(stream, f"data: event {event}\r\n\r\n".encode())
                    acks.give(event)
                client.wait_end(stream)
            wait_until(lambda name=name: notes(http_2, name) == ["close"])
    assert not ALARM.search(http_2.log()), http_2.log()


def test_http_2_more_than_a_window(http_2: Server) -> None:
    with Http2Client(http_2) as client:
        stream = client.get("/es/texts")
        client.wait_for(stream, b"data: the end\r\n\r\n")
        client.wait_end(stream)
        assert b"x" * 70_000 in client.bodies[stream]


def test_http_2_client_is_gone(http_2: Server, key: str) -> None:
    with Http2Client(http_2) as client:
        client.wait_for(client.get("/es/listening", key=key, ping=0.1), b"ready")
    wait_until(lambda: [note[0] for note in notes(http_2, key)] == ["open", "close"])


def test_http_1_beside_http_2(http_2: Server) -> None:
    with EventReader(http_2, "/es/write") as reader:
        assert reader.head.fields == HEADERS
