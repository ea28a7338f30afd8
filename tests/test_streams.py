"""Streams on real servers: write, end, pause, resume, and pipes at the pace of the slower."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import gevent
import pytest

from faye_wsgi import EventSource, WebSocket

from .support import frames
from .support.apps import wsgi_app
from .support.apps.views import options, query
from .support.peer import Peer
from .support.servers import Server
from .support.servers import serve as run_server
from .support.sse import EventReader
from .support.waiting import wait_until

APP = "tests.test_streams:application"
MEGABYTE = 1 << 20


# The application

NOTES: dict[str, list[Any]] = {}
SINKS: dict[str, Any] = {}
Query = dict[str, str]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    name, values = environ["PATH_INFO"].strip("/"), query(environ)
    if name == "notes":
        return wsgi_app.page(start_response, "200 OK", json.dumps(NOTES.get(values["key"], [])))
    if name == "go":
        note(values, "go")
        return wsgi_app.page(start_response, "200 OK", "gone")
    if name == "event_sink":
        es = SINKS[values["key"]] = EventSource(environ)
        return es.response(environ, start_response)
    if name not in VIEWS:
        return wsgi_app.application(environ, start_response)
    if name == "collecting":
        environ["a cycle"] = environ
    ws = WebSocket(environ, collect if name == "collecting" else None, **options(values))
    VIEWS[name](ws, values)
    return ws.response(environ, start_response)


def note(values: Query, what: Any) -> None:
    NOTES.setdefault(values["key"], []).append(what)


def echo(ws: WebSocket, values: Query) -> None:
    assert ws.pipe(ws) is ws


def collect(offered: Any) -> None:
    """Garbage is collected while the constructor is at work."""
    gc.collect()


class Target:
    """Something with `write`, as a file has."""

    def __init__(self, values: Query) -> None:
        self.values = values

    def write(self, data: Any) -> None:
        note(self.values, ["write", data])


class Sender:
    def __init__(self, values: Query) -> None:
        self.values = values

    def send(self, data: Any) -> None:
        note(self.values, ["send", data])


class Ended(Target):
    def end(self) -> None:
        note(self.values, ["end"])


class Slow(Target):
    """Takes its time with every message, and takes no fourth one before the test says `go`."""

    def write(self, data: Any) -> None:
        gevent.sleep(0.05)
        while len(NOTES.get(self.values["key"], ())) == 3:
            gevent.sleep(0.01)
        note(self.values, len(data))


class Broken(Target):
    def write(self, data: Any) -> None:
        raise RuntimeError("raised by a destination")


def to(ws: WebSocket, values: Query) -> None:
    """?to=&end=: one of the objects above, or a function."""
    kinds: dict[str, Any] = {
        "write": Target(values),
        "send": Sender(values),
        "end": Ended(values),
        "slow": Slow(values),
        "broken": Broken(values),
        "function": lambda data: note(values, ["call", data]),
    }
    destination = kinds[values["to"]]
    assert ws.pipe(destination, end=values.get("end") != "0") is destination


def wrong(ws: WebSocket, values: Query) -> None:
    """What a pipe cannot end in is refused at once."""
    for destination in (5, object(), None):
        try:
            ws.pipe(destination)
        except TypeError:
            ws.send("TypeError")
    ws.end()


def sink(ws: WebSocket, values: Query) -> None:
    SINKS[values["key"]] = ws
    ws.on("message", lambda event: note(values, ["sink", event.data]))
    ws.on("close", lambda event: note(values, ["sink closed", event.code]))


def source(ws: WebSocket, values: Query) -> None:
    """Into the sink of the same key."""
    ws.on("close", lambda event: note(values, ["source closed", event.code]))
    ws.pipe(SINKS[values["key"]], end=values.get("end") != "0")


def fan(ws: WebSocket, values: Query) -> None:
    """A source with two destinations."""
    ws.pipe(Target(values))
    ws.pipe(ws)


def pausing(ws: WebSocket, values: Query) -> None:
    """?for=: holds messages back for so long after each 'pause'."""

    def hear(event: Any) -> None:
        ws.send(event.data)
        if event.data == "pause":
            ws.pause()
            gevent.spawn_later(float(values["for"]), ws.resume)

    ws.on("message", hear)
    ws.on("close", lambda event: note(values, ["close", event.code]))


def paused_from_the_start(ws: WebSocket, values: Query) -> None:
    ws.pause()
    ws.on("message", lambda event: ws.send(event.data))
    gevent.spawn_later(float(values["for"]), ws.resume)


def write(ws: WebSocket, values: Query) -> None:
    """True while there is room; nothing blocks before the high-water mark."""
    note(values, ws.write("small"))
    note(values, ws.write(b"bytes"))
    ws.end("the last words")


def end(ws: WebSocket, values: Query) -> None:
    ws.end()
    ws.end()
    note(values, "ended twice")


VIEWS: dict[str, Callable[[WebSocket, Query], None]] = {
    "echo": echo,
    "to": to,
    "wrong": wrong,
    "sink": sink,
    "source": source,
    "fan": fan,
    "pausing": pausing,
    "paused_from_the_start": paused_from_the_start,
    "write": write,
    "end": end,
    "collecting": echo,
}


# Tests

KINDS = ["gunicorn-gevent", "pywsgi-unpatched", "gunicorn-gthread", "flask"]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(request.param, APP) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


def notes(server: Server, key: str) -> list[Any]:
    found: list[Any] = json.loads(server.get(f"/notes?key={key}")[1])
    return found


def resident(server: Server) -> int:
    return int(json.loads(server.get("/stats")[1])["rss"])


MakePeer = Callable[..., Peer]


def test_a_pipe_into_itself_is_an_echo(server: Server, peer: MakePeer) -> None:
    client = peer(server).open("/echo")
    for number in range(100):
        client.send_text(f"message {number}")
    client.send_binary(b"\x00\xff" * 50_000)
    assert [client.read_text() for _ in range(100)] == [f"message {n}" for n in range(100)]
    assert client.read_frame().payload == b"\x00\xff" * 50_000
    client.finish(4000)


@pytest.mark.parametrize("to, said", [("write", "write"), ("send", "send"), ("function", "call")])
def test_what_a_pipe_may_end_in(
    server: Server, peer: MakePeer, key: str, to: str, said: str
) -> None:
    client = peer(server).open(f"/to?to={to}&key={key}")
    client.send_text("one")
    client.send_text("two")
    wait_until(lambda: notes(server, key) == [[said, "one"], [said, "two"]])
    client.finish()


def test_the_destination_is_ended_with_the_source(server: Server, peer: MakePeer, key: str) -> None:
    client = peer(server).open(f"/to?to=end&key={key}")
    client.send_text("one")
    client.finish()
    wait_until(lambda: notes(server, key) == [["write", "one"], ["end"]])


def test_the_destination_is_not_ended(server: Server, peer: MakePeer, key: str) -> None:
    client = peer(server).open(f"/to?to=end&end=0&key={key}")
    client.send_text("one")
    client.finish()
    time.sleep(0.2)
    assert notes(server, key) == [["write", "one"]]


def test_what_a_pipe_cannot_end_in(server: Server, peer: MakePeer) -> None:
    client = peer(server).open("/wrong")
    assert [client.read_text() for _ in range(3)] == ["TypeError"] * 3
    assert client.read_close().close_code == 1000


def test_two_pipes_of_one_source(server: Server, peer: MakePeer, key: str) -> None:
    client = peer(server).open(f"/fan?key={key}")
    client.send_text("one")
    assert client.read_text() == "one"
    assert notes(server, key) == [["write", "one"]]
    client.finish()


def test_between_two_connections(server: Server, peer: MakePeer, key: str) -> None:
    """On threaded servers it is between two threads."""
    sink, source = peer(server).open(f"/sink?key={key}"), peer(server)
    source.open(f"/source?key={key}")
    for number in range(50):
        source.send_text(f"message {number}")
    source.send_binary(b"\x00\xff")
    assert [sink.read_text() for _ in range(50)] == [f"message {n}" for n in range(50)]
    assert sink.read_frame()[:2] == (frames.BINARY, b"\x00\xff")
    source.finish()
    assert sink.read_close().close_code == 1000
    sink.send_close()
    sink.read_eof()
    wait_until(lambda: len(notes(server, key)) == 2)
    assert sorted(notes(server, key)) == [["sink closed", 1000], ["source closed", 1000]]


def test_the_sink_stays_open(server: Server, peer: MakePeer, key: str) -> None:
    sink = peer(server).open(f"/sink?key={key}")
    peer(server).open(f"/source?end=0&key={key}").finish()
    sink.send_text("still there")
    wait_until(lambda: ["sink", "still there"] in notes(server, key))
    sink.finish()


def test_the_sink_closes(server: Server, peer: MakePeer, key: str) -> None:
    """The source is told when there is something for the sink that is gone: 1001."""
    sink, source = peer(server).open(f"/sink?key={key}"), peer(server)
    source.open(f"/source?key={key}")
    sink.finish()
    wait_until(lambda: ["sink closed", 1000] in notes(server, key))
    source.send_text("for nobody")
    assert source.read_close().close_code == 1001
    source.send_close(1001)
    source.read_eof()
    wait_until(lambda: ["source closed", 1001] in notes(server, key))


def test_the_sink_is_cut_while_it_blocks_the_source(
    server: Server, peer: MakePeer, key: str
) -> None:
    """A source that waits for a dead sink must not wait for ever."""
    sink, source = peer(server).open(f"/sink?key={key}"), peer(server)
    source.open(f"/source?key={key}&max_queue=4")
    push_until_blocked(source)
    linger_off(sink.sock)
    sink.close()
    source.sock.settimeout(10)
    source.send(source.rest)  # type: ignore[attr-defined]
    assert source.read_close().close_code == 1001
    source.send_close(1001)
    source.read_eof()
    wait_until(lambda: ["source closed", 1001] in notes(server, key), what="the source's close")


def linger_off(sock: socket.socket) -> None:
    """Closing sends RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


PIECE = frames.frame(frames.BINARY, b"x" * 30_000, mask=b"\0\0\0\0")


def push_until_blocked(peer: Peer, limit: int = 64 * MEGABYTE) -> int:
    """Whole frames, until the kernel takes no more for half a second; how many."""
    peer.sock.settimeout(0.5)
    sent = 0
    view = memoryview(PIECE)
    while sent < limit:
        offset = 0
        while offset < len(PIECE):
            try:
                offset += peer.sock.send(view[offset:])
            except (TimeoutError, socket.timeout):
                peer.rest = bytes(view[offset:])  # type: ignore[attr-defined]
                return sent // len(PIECE) + 1
        sent += len(PIECE)
    raise AssertionError(f"{sent} bytes were taken, and nobody reads them")


def test_a_fast_source_and_a_slow_sink(server: Server, peer: MakePeer, key: str) -> None:
    """What is between them stays within bounds, and nothing is lost of it."""
    sink, source = peer(server).open(f"/sink?key={key}"), peer(server)
    source.open(f"/source?key={key}&max_queue=8")
    before = resident(server)
    count = push_until_blocked(source)
    # 8 messages and a read of 64 KiB, the high-water mark, and the memory they take.
    assert resident(server) - before < 6 * MEGABYTE
    source.sock.settimeout(10)
    rest = source.rest  # type: ignore[attr-defined]
    pusher = threading.Thread(target=lambda: source.send(rest), daemon=True)
    pusher.start()
    for _ in range(count):
        assert len(sink.read_frame().payload) == 30_000
    pusher.join(10)
    source.finish()
    assert sink.read_close().close_code == 1000


def test_a_slow_destination_holds_the_source(server: Server, peer: MakePeer, key: str) -> None:
    client = peer(server).open(f"/to?to=slow&key={key}&max_queue=4")
    before = resident(server)
    count = push_until_blocked(client)
    assert resident(server) - before < 6 * MEGABYTE
    wait_until(lambda: notes(server, key) == [30_000] * 3)
    server.get(f"/go?key={key}")
    client.sock.settimeout(10)
    client.send(client.rest)  # type: ignore[attr-defined]
    wait_until(lambda: len(notes(server, key)) > 8, what="the messages that waited")
    assert count > 8


def test_into_an_event_stream(server: Server, peer: MakePeer, key: str) -> None:
    """An EventSource has `write` and `end`, too."""
    with EventReader(server, f"/event_sink?key={key}") as reader:
        assert reader.head.status == 200
        reader.start(len(b"retry: 5000\r\n\r\n"))
        source = peer(server).open(f"/source?key={key}")
        source.send_text("one\ntwo")
        assert reader.next().data == "one\ntwo"
        source.finish()
        assert list(reader) == []


def test_pause_and_resume(server: Server, peer: MakePeer, key: str) -> None:
    """Messages wait; pings are answered all the same."""
    client = peer(server).open(f"/pausing?for=0.4&key={key}")
    client.send_text("pause")
    assert client.read_text() == "pause"
    started = time.monotonic()
    client.send_text("one")
    client.send_text("two")
    client.send_frame(frames.PING, "there?")
    assert client.read_frame()[:2] == (frames.PONG, b"there?")
    assert time.monotonic() - started < 0.3
    assert [client.read_text(), client.read_text()] == ["one", "two"]
    assert time.monotonic() - started > 0.3
    client.finish()


def test_paused_from_the_start(server: Server, peer: MakePeer) -> None:
    started = time.monotonic()
    client = peer(server).open("/paused_from_the_start?for=0.3", first=frames.text("one"))
    assert client.read_text() == "one"
    assert time.monotonic() - started > 0.25
    client.finish()


def test_a_pause_stops_the_reading(server: Server, peer: MakePeer, key: str) -> None:
    client = peer(server).open(f"/pausing?for=1.5&max_queue=4&key={key}")
    client.send_text("pause")
    assert client.read_text() == "pause"
    before = resident(server)
    push_until_blocked(client)
    assert resident(server) - before < 6 * MEGABYTE


def test_the_client_closes_during_a_pause(server: Server, peer: MakePeer, key: str) -> None:
    """What came before the close is told first; the closing handshake does not wait for it."""
    client = peer(server).open(f"/pausing?for=0.8&key={key}")
    client.send_text("pause")
    assert client.read_text() == "pause"
    client.send_text("held")
    started = time.monotonic()
    client.send_close(4000)
    assert client.read_close().close_code == 4000
    assert time.monotonic() - started < 0.6
    client.read_eof()
    wait_until(lambda: notes(server, key) == [["close", 4000]])


def test_write_and_end(server: Server, peer: MakePeer, key: str) -> None:
    client = peer(server).open(f"/write?key={key}")
    assert client.read_text() == "small"
    assert client.read_frame()[:2] == (frames.BINARY, b"bytes")
    assert client.read_text() == "the last words"
    assert client.read_close().close_code == 1000
    client.send_close()
    client.read_eof()
    assert notes(server, key) == [True, True]


def test_end_alone(server: Server, peer: MakePeer, key: str) -> None:
    client = peer(server).open(f"/end?key={key}")
    assert client.read_close().close_code == 1000
    client.send_close()
    client.read_eof()
    assert notes(server, key) == ["ended twice"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_destination_that_raises(kind: str, peer: MakePeer, key: str) -> None:
    """As any listener: 1011, and one traceback."""
    with run_server(kind, APP) as server:
        client = peer(server).open(f"/to?to=broken&key={key}", first=frames.text("one"))
        assert client.read_close().close_code == 1011
        client.send_close(1011)
        client.read_eof()
        wait_until(lambda: "raised by a destination" in server.log())
        assert server.log().count("Traceback") == 1


def test_an_earlier_request_is_collected_late(peer: MakePeer) -> None:
    """The hub of a thread that serves again is not taken away by the end of what it served
    before: only one thread here, and an environ that dies when garbage is collected."""
    with run_server("gunicorn-gthread", APP, options=["--threads", "1"]) as server:
        for number in range(3):
            client = peer(server).open("/collecting")
            client.send_text(f"message {number}")
            assert client.read_text() == f"message {number}"
            client.finish()
        assert "Traceback" not in server.log(), server.log()
