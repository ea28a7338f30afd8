"""WebSocket, in this process: its options, handshakes, attributes, and its blocking use.

A request is made of a socket pair and an environ like that of gunicorn's gevent worker, so
that a test holds both ends and the WebSocket itself. What real servers do with the same is
tested in tests/wsgi and tests/transport.
"""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Callable

import gevent
import gevent.socket
import pytest
import webob
from webob.dec import wsgify

from faye_wsgi import ConnectionClosed, HandshakeError, HijackError, ReadyState, WebSocket

from .support import frames
from .support.peer import Peer
from .transport.harness import until

HEADERS = {
    "HTTP_HOST": "example.com",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "keep-alive, Upgrade",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": frames.KEY,
}
TIMEOUT = 5.0


class Untouchable:
    """A server's socket that must be left alone."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the socket was touched: {name}")


def make_environ(sock: Any, read_ahead: bytes = b"", **changes: Any) -> dict[str, Any]:
    """The environ of an opening handshake; a change to None takes a key away."""
    unreader = SimpleNamespace(buf=io.BytesIO(read_ahead))
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "gunicorn/0",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/chat",
        "QUERY_STRING": "room=1",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.input": SimpleNamespace(reader=SimpleNamespace(unreader=unreader)),
        "gunicorn.socket": sock,
        **HEADERS,
    }
    environ.update(changes)
    return {key: value for key, value in environ.items() if value is not None}


def refused(options: dict[str, Any] | None = None, **changes: Any) -> WebSocket:
    """The WebSocket of a request that must leave the server its socket."""
    return WebSocket(make_environ(Untouchable(), **changes), **(options or {}))


class Exchange:
    """A request to a server of one, and the peer that sent it."""

    def __init__(self, read_ahead: bytes = b"", **changes: Any) -> None:
        self.server, client = gevent.socket.socketpair()
        self.peer = Peer(sock=client, timeout=TIMEOUT)
        self.environ = make_environ(self.server, read_ahead, **changes)
        self.accepted: list[WebSocket] = []

    def accept(self, *args: Any, **options: Any) -> WebSocket:
        """The WebSocket, with the answer's head read by the peer."""
        ws = WebSocket(self.environ, *args, **options)
        self.accepted.append(ws)
        head = self.peer.read_head()
        assert head.status == 101
        assert head.get("Sec-WebSocket-Accept") == frames.accept(frames.KEY)
        return ws

    def answer(self, application: Callable[..., Iterable[bytes]]) -> str:
        """Serve the request as a server does; the status that its log would show."""
        said: list[str] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
            said.append(status)

        body = b"".join(application(self.environ, start_response))
        self.server.sendall(f"HTTP/1.1 {said[0]}\r\n\r\n".encode() + body)
        self.server.close()
        return said[0]

    def close(self) -> None:
        self.peer.close()
        self.server.close()
        for ws in self.accepted:
            ws.wait_closed(TIMEOUT)


@pytest.fixture
def exchange() -> Iterator[Callable[..., Exchange]]:
    made: list[Exchange] = []

    def make(*args: Any, **changes: Any) -> Exchange:
        made.append(Exchange(*args, **changes))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def pair(exchange: Callable[..., Exchange]) -> tuple[WebSocket, Peer]:
    """An open WebSocket and its peer."""
    made = exchange()
    return made.accept(), made.peer


def respond(ws: WebSocket) -> tuple[str, dict[str, str], bytes]:
    """What the server gets to send: status, headers, body."""
    said: list[Any] = []
    body = b"".join(ws.response({"REQUEST_METHOD": "GET"}, lambda *args: said.extend(args)))
    return said[0], dict(said[1]), body


# Options: wrong ones raise before the socket is touched.


@pytest.mark.parametrize("name", ["pings", "max_lenght", "protocol", "Origins", "extension"])
def test_unknown_option(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        refused({name: None})


BAD_VALUES: list[tuple[str, Any]] = [
    ("max_length", 0),
    ("max_length", -1),
    ("max_fragments", 0),
    ("max_queue", 0),
    ("max_queue_bytes", 0),
    ("high_water", -5),
    ("ping", -1),
    ("ping", float("nan")),
    ("ping", float("inf")),
    ("ping_timeout", -0.1),
    ("close_timeout", -1),
    ("close_timeout", float("inf")),
    ("protocols", ["two words"]),
    ("protocols", [""]),
    ("protocols", "chat, bad name"),
    ("protocols", [7]),
    ("headers", {"X-Injected": "a\r\nX-Evil: b"}),
    ("headers", {"X-Injected": "a\nb"}),
    ("headers", {"X-Injected": "a\0b"}),
    ("headers", {"X Name": "a"}),
    ("headers", {"": "a"}),
    ("headers", {"X-Snow": "\u2603"}),
    ("headers", {"Upgrade": "h2c"}),
    ("headers", {"connection": "close"}),
    ("headers", [("Sec-WebSocket-Accept", "mine")]),
    ("headers", [("sec-websocket-protocol", "mine")]),
    ("headers", {"Content-Length": "3"}),
    ("headers", {"Transfer-Encoding": "chunked"}),
    ("origins", "http://example.com"),
    ("origins", "any"),
    ("origins", ["example.com"]),
    ("origins", ["http://example.com/path"]),
    ("origins", [re.compile(rb"bytes")]),
]


@pytest.mark.parametrize("name, value", BAD_VALUES)
def test_bad_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError):
        refused({name: value})


WRONG_TYPES: list[tuple[str, Any]] = [
    ("max_length", "10"),
    ("max_length", 1.5),
    ("max_length", True),
    ("max_queue", None),
    ("ping", "25"),
    ("ping", True),
    ("close_timeout", None),
    ("headers", {"X-Number": 7}),
    ("headers", {b"X-Bytes": "a"}),
]


@pytest.mark.parametrize("name, value", WRONG_TYPES)
def test_wrong_type(name: str, value: Any) -> None:
    with pytest.raises(TypeError):
        refused({name: value})


def test_bad_values_come_before_bad_requests() -> None:
    """A mistake in the program shows with every request, even a plain GET."""
    with pytest.raises(ValueError):
        refused({"ping": -1}, HTTP_UPGRADE=None)


@pytest.mark.parametrize("request_", [None, 7, "GET", object()])
def test_no_request(request_: Any) -> None:
    with pytest.raises(TypeError, match="environ"):
        WebSocket(request_)


# Handshakes that fail


BAD_HANDSHAKES: list[tuple[dict[str, Any], int]] = [
    ({"HTTP_UPGRADE": None}, 426),
    ({"HTTP_UPGRADE": None, "HTTP_CONNECTION": None}, 426),
    ({"HTTP_UPGRADE": "h2c"}, 400),
    ({"HTTP_CONNECTION": "keep-alive"}, 400),
    ({"REQUEST_METHOD": "POST"}, 400),
    ({"REQUEST_METHOD": "POST", "HTTP_UPGRADE": None}, 400),
    ({"SERVER_PROTOCOL": "HTTP/1.0"}, 400),
    ({"HTTP_SEC_WEBSOCKET_KEY": None}, 400),
    ({"HTTP_SEC_WEBSOCKET_KEY": ""}, 400),
    ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, 400),
    ({"HTTP_SEC_WEBSOCKET_KEY": "!" * 24}, 400),
    ({"HTTP_SEC_WEBSOCKET_KEY": f"{frames.KEY},evil"}, 400),
    ({"HTTP_SEC_WEBSOCKET_VERSION": "12"}, 426),
    ({"HTTP_SEC_WEBSOCKET_VERSION": None}, 426),
    ({"HTTP_SEC_WEBSOCKET_VERSION": "13, 8"}, 426),
    ({"HTTP_SEC_WEBSOCKET_EXTENSIONS": "a; b=="}, 400),
    ({"CONTENT_LENGTH": "5"}, 400),
    ({"HTTP_TRANSFER_ENCODING": "chunked"}, 400),
    ({"HTTP_ORIGIN": "http://evil.com"}, 403),
    ({"HTTP_ORIGIN": "null"}, 403),
]


@pytest.mark.parametrize("changes, status", BAD_HANDSHAKES)
def test_a_bad_handshake_is_closed_from_the_start(changes: dict[str, Any], status: int) -> None:
    ws = refused(**changes)
    assert ws.ready_state == ReadyState.CLOSED
    assert ws.close_reason
    assert (ws.protocol, ws.version, ws.latency, ws.buffered_amount) == ("", "", None, 0)
    assert list(ws) == []
    for call in (ws.receive, lambda: ws.send("hello")):
        with pytest.raises(HandshakeError) as raised:
            call()
        assert isinstance(raised.value, ConnectionClosed)
        assert raised.value.status_code == status
        assert raised.value.reason == ws.close_reason
        assert raised.value.target is ws
    line, headers, body = respond(ws)
    assert int(line.split()[0]) == status
    assert headers["Content-Type"].startswith("text/plain")
    assert int(headers["Content-Length"]) == len(body) > 0


@pytest.mark.parametrize("changes, status", BAD_HANDSHAKES)
def test_a_bad_handshake_tells_its_listeners(changes: dict[str, Any], status: int) -> None:
    ws = refused(**changes)
    seen: list[Any] = []
    for name in ("open", "message", "error", "close"):
        ws.on(name, seen.append)
    gevent.sleep(0.01)
    assert [event.type for event in seen] == ["error", "close"]
    error, close = seen
    assert error.message == close.reason == ws.close_reason
    assert (close.code, close.target) == (ws.close_code, ws)


def test_a_failed_handshake_can_be_closed_and_waited_for() -> None:
    ws = refused(HTTP_UPGRADE=None)
    ws.close()
    ws.wait_closed(timeout=0)
    assert ws.ping() is False
    with ws:
        pass


def test_the_responses_name_the_cure() -> None:
    _, headers, _ = respond(refused(HTTP_UPGRADE=None))
    assert headers["Upgrade"] == "websocket"
    _, headers, _ = respond(refused(HTTP_SEC_WEBSOCKET_VERSION="8"))
    assert headers["Sec-WebSocket-Version"] == "13"


def test_the_server_can_still_answer_a_refused_request(
    exchange: Callable[..., Exchange],
) -> None:
    made = exchange(HTTP_SEC_WEBSOCKET_VERSION="12")
    assert made.answer(WebSocket(made.environ).response).startswith("426 ")
    assert made.peer.read_head().status == 426


def test_http_2_is_refused_and_never_taken() -> None:
    environ = make_environ(Untouchable(), SERVER_PROTOCOL="HTTP/2.0")
    assert not WebSocket.is_websocket(environ)
    with pytest.raises(HijackError, match="HTTP/1.1"):
        WebSocket(environ)


# Origins


ORIGINS: list[tuple[Any, dict[str, Any], bool]] = [
    ("same", {}, True),
    ("same", {"HTTP_ORIGIN": "http://example.com"}, True),
    ("same", {"HTTP_ORIGIN": "https://EXAMPLE.com"}, True),
    ("same", {"HTTP_ORIGIN": "http://example.com:8080"}, False),
    ("same", {"HTTP_ORIGIN": "http://example.com.evil.com"}, False),
    (["https://app.example.org"], {"HTTP_ORIGIN": "https://app.example.org"}, True),
    (["https://app.example.org"], {"HTTP_ORIGIN": "http://app.example.org"}, False),
    (["https://app.example.org"], {"HTTP_ORIGIN": "http://example.com"}, False),
    (["https://app.example.org"], {}, True),
    ([re.compile(r"https://\w+\.example\.org")], {"HTTP_ORIGIN": "https://a.example.org"}, True),
    (
        [re.compile(r"https://\w+\.example\.org")],
        {"HTTP_ORIGIN": "https://a.example.org.evil.com"},
        False,
    ),
    ([], {"HTTP_ORIGIN": "http://example.com"}, False),
    (None, {"HTTP_ORIGIN": "http://evil.com"}, True),
    (None, {"HTTP_ORIGIN": "null"}, True),
]


@pytest.mark.parametrize("origins, changes, allowed", ORIGINS)
def test_origins(
    exchange: Callable[..., Exchange], origins: Any, changes: dict[str, Any], allowed: bool
) -> None:
    made = exchange(**changes)
    ws = WebSocket(made.environ, origins=origins)
    made.accepted.append(ws)
    assert ws.ready_state == (ReadyState.OPEN if allowed else ReadyState.CLOSED)
    if not allowed:
        assert ws.response.status_code == 403


BEHIND_A_PROXY = {
    "HTTP_HOST": "10.0.0.7:8000",
    "HTTP_X_FORWARDED_HOST": "example.com",
    "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_ORIGIN": "https://example.com",
}


def test_forwarded_host_counts_only_when_trusted(exchange: Callable[..., Exchange]) -> None:
    untrusted = refused(**BEHIND_A_PROXY)
    assert untrusted.response.status_code == 403
    assert untrusted.url == "ws://10.0.0.7:8000/chat?room=1"
    trusted = exchange(**BEHIND_A_PROXY).accept(trust_forwarded=True)
    assert trusted.ready_state == ReadyState.OPEN
    assert trusted.url == "wss://example.com/chat?room=1"


def test_a_refused_origin_is_logged_with_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "faye_wsgi"):
        refused(HTTP_ORIGIN="http://evil.com")
    (record,) = caplog.records
    said = record.getMessage()
    assert record.levelno == logging.WARNING
    assert "http://evil.com" in said and "example.com" in said
    assert "origins=['http://evil.com']" in said and "trust_forwarded" in said
    assert "\n" not in said


def test_a_refused_origin_cannot_forge_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A folded header's line break comes through from some servers."""
    with caplog.at_level(logging.WARNING, "faye_wsgi"):
        refused(HTTP_ORIGIN="http://evil.com\r\nforged line", HTTP_HOST="a\nb")
    assert "\n" not in caplog.records[0].getMessage()


def test_a_bad_request_is_no_matter_of_origin(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "faye_wsgi"):
        refused(HTTP_UPGRADE=None)
    assert caplog.records == []


# Subprotocols and headers of the response


@pytest.mark.parametrize(
    "supported, offered, chosen",
    [
        (["chat", "echo"], "echo, chat", "echo"),
        ("chat, echo", "echo, chat", "echo"),
        (("chat",), "echo,chat", "chat"),
        (["chat"], "echo", ""),
        (["chat"], None, ""),
        (None, "chat", ""),
        ([], "chat", ""),
        (["Chat"], "chat", ""),
        (lambda offered: offered[-1], "a, b, c", "c"),
        (lambda offered: None, "a, b", ""),
        (lambda offered: "b" if "b" in offered else None, "a, b", "b"),
    ],
)
def test_protocols(
    exchange: Callable[..., Exchange], supported: Any, offered: str | None, chosen: str
) -> None:
    made = exchange(HTTP_SEC_WEBSOCKET_PROTOCOL=offered)
    ws = made.accept(supported)
    assert ws.protocol == chosen
    assert made.peer.head is not None
    assert made.peer.head.get_all("Sec-WebSocket-Protocol") == ([chosen] if chosen else [])


def test_protocols_out_of_an_iterator(exchange: Callable[..., Exchange]) -> None:
    ws = exchange(HTTP_SEC_WEBSOCKET_PROTOCOL="a, b").accept(protocols=iter(["b"]))
    assert ws.protocol == "b"


def test_a_callable_gets_the_clients_list() -> None:
    asked: list[list[str]] = []

    def choose(offered: list[str]) -> str:
        asked.append(offered)
        return "mine"

    with pytest.raises(ValueError, match="mine"):  # what was not offered cannot be agreed on
        refused({"protocols": choose}, HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
    assert asked == [["a", "b"]]


def test_headers_are_added_to_the_handshake(exchange: Callable[..., Exchange]) -> None:
    made = exchange()
    made.accept(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Name", "grüße")])
    assert made.peer.head is not None
    assert made.peer.head.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert made.peer.head.get("X-Name") == "grüße"
    assert made.peer.head.get_all("Upgrade") == ["websocket"]


def test_headers_may_be_a_dict(exchange: Callable[..., Exchange]) -> None:
    made = exchange()
    made.accept(headers={"X-Name": "value"})
    assert made.peer.head is not None and made.peer.head.get("X-Name") == "value"


# Attributes


def test_attributes(exchange: Callable[..., Exchange]) -> None:
    made = exchange(HTTP_SEC_WEBSOCKET_PROTOCOL="chat")
    ws = made.accept(["chat"])
    assert ws.ready_state == ReadyState.OPEN == ws.OPEN == 1
    assert (ws.CONNECTING, ws.OPEN, ws.CLOSING, ws.CLOSED) == (0, 1, 2, 3)
    assert ws.url == "ws://example.com/chat?room=1"
    assert (ws.protocol, ws.version) == ("chat", "hybi-13")
    assert ws.environ is made.environ
    assert ws.buffered_amount == 0
    assert (ws.close_code, ws.close_reason, ws.latency) == (None, None, None)
    assert repr(ws) == "<WebSocket ws://example.com/chat OPEN>", "a query may hold a token"


def test_no_query_is_logged(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    made = exchange(QUERY_STRING="token=secret")
    ws = made.accept()

    @ws.on("message")
    def fail(event: Any) -> None:
        raise LookupError("in a listener")

    made.peer.send_text("x")
    assert made.peer.read_close().close_code == 1011
    assert "in a listener" in caplog.text and "ws://example.com/chat" in caplog.text
    assert "secret" not in caplog.text
    assert ws.url == "ws://example.com/chat?token=secret"


def test_ready_state_through_a_close(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.close(4001, "bye")
    assert (ws.ready_state, ws.close_code) == (ReadyState.CLOSING, None)
    assert peer.read_close().close_code == 4001
    peer.send_close(4001, "bye")
    peer.read_eof()
    peer.close()
    ws.wait_closed(TIMEOUT)
    assert (ws.ready_state, ws.close_code, ws.close_reason) == (ReadyState.CLOSED, 4001, "bye")
    assert (ws.protocol, ws.version) == ("", "hybi-13")


def test_latency(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    assert ws.ping("there?") is True
    frame = peer.read_frame()
    assert (frame.opcode, frame.payload) == (frames.PING, b"there?")
    gevent.sleep(0.02)
    peer.send_frame(frames.PONG, "there?")
    gevent.sleep(0.02)
    assert ws.latency is not None and 0.02 <= ws.latency < TIMEOUT


def test_buffered_amount(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    size = 4_000_000
    ws.send("x" * size, timeout=0.05)
    waiting = ws.buffered_amount
    assert 0 < waiting <= size + 14
    assert len(peer.read_frame().payload) == size
    gevent.sleep(0.01)
    assert ws.buffered_amount == 0


def test_users_may_hang_things_on_it(pair: tuple[WebSocket, Peer]) -> None:
    ws, _ = pair
    ws.user = "alice"  # type: ignore[attr-defined]
    assert weakref.WeakSet([ws])
    assert len({ws, ws}) == 1


# Blocking use


def test_receive_and_iterate(exchange: Callable[..., Exchange]) -> None:
    made = exchange(frames.text("ahead"))
    ws = made.accept()
    made.peer.send_text("grüße")
    made.peer.send_binary(b"\x00\xff")
    made.peer.send_text("last")
    made.peer.send_close(4000, "enough")
    gevent.spawn_later(0.05, made.peer.close)
    assert ws.receive() == "ahead"
    assert ws.receive(timeout=1) == "grüße"
    assert list(ws) == [b"\x00\xff", "last"]
    assert list(ws) == []
    with pytest.raises(ConnectionClosed) as raised:
        ws.receive()
    assert (raised.value.code, raised.value.reason) == (4000, "enough")
    assert raised.value.target is ws
    assert not isinstance(raised.value, HandshakeError)


def test_receive_times_out_and_goes_on(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    with pytest.raises(TimeoutError):
        ws.receive(timeout=0.01)
    with pytest.raises(TimeoutError):
        ws.receive(timeout=0)
    peer.send_text("late")
    assert ws.receive(timeout=TIMEOUT) == "late"


def test_two_greenlets_are_served_in_order(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    waiting = [gevent.spawn(ws.receive, TIMEOUT) for _ in range(3)]
    gevent.sleep(0.01)
    for message in ("one", "two", "three"):
        peer.send_text(message)
    gevent.joinall(waiting, timeout=TIMEOUT)
    assert [greenlet.value for greenlet in waiting] == ["one", "two", "three"]


@pytest.mark.parametrize(
    "message, opcode, payload",
    [
        ("grüße", frames.TEXT, "grüße".encode()),
        ("", frames.TEXT, b""),
        (b"\x00\xff", frames.BINARY, b"\x00\xff"),
        (bytearray(b"ab"), frames.BINARY, b"ab"),
        (memoryview(b"abcd")[1:3], frames.BINARY, b"bc"),
    ],
)
def test_send(pair: tuple[WebSocket, Peer], message: Any, opcode: int, payload: bytes) -> None:
    ws, peer = pair
    ws.send(message)
    assert peer.read_frame() == frames.Frame(opcode, payload)


@pytest.mark.parametrize("pieces", [iter(["a", "b", "c"]), iter("abc"), (x for x in "abc")])
def test_send_in_fragments(pair: tuple[WebSocket, Peer], pieces: Iterable[str]) -> None:
    ws, peer = pair
    ws.send(pieces)
    assert [peer.read_frame() for _ in range(3)] == [
        frames.Frame(frames.TEXT, b"a", fin=False),
        frames.Frame(frames.CONTINUATION, b"b", fin=False),
        frames.Frame(frames.CONTINUATION, b"c"),
    ]


@pytest.mark.parametrize("message", [None, 7, 1.5, {"a": 1}, {"a"}, object()])
def test_what_cannot_be_sent(pair: tuple[WebSocket, Peer], message: Any) -> None:
    ws, peer = pair
    with pytest.raises(TypeError):
        ws.send(message)
    ws.send("still open")
    assert peer.read_text() == "still open"


def test_one_consumer(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    listener = ws.on("message", lambda event: None)
    for call in (ws.receive, lambda: iter(ws)):
        with pytest.raises(RuntimeError, match="listeners"):
            call()
    ws.remove_listener("message", listener)
    ws.onmessage = listener
    with pytest.raises(RuntimeError, match=r"ws\.response"):  # `return ws` in a WSGI view
        list(ws)
    ws.onmessage = None
    peer.send_text("for receive")
    assert ws.receive(TIMEOUT) == "for receive"


def test_listeners_for_other_events_leave_receive_alone(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.on("close", lambda event: None)
    peer.send_text("hello")
    assert ws.receive(TIMEOUT) == "hello"


def test_threads(pair: tuple[WebSocket, Peer]) -> None:
    """Any thread may send, ping and close; receive belongs to the connection's."""
    ws, peer = pair
    raised: list[BaseException] = []

    def elsewhere() -> None:
        ws.send("from a thread")
        ws.ping("ping")
        for call in (ws.receive, ws.wait_closed):
            try:
                call()
            except RuntimeError as error:
                raised.append(error)
        ws.close(4000, "done")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert peer.read_text() == "from a thread"
    assert peer.read_frame()[:2] == (frames.PING, b"ping")
    assert peer.read_close().close_code == 4000
    thread.join(TIMEOUT)
    assert len(raised) == 2 and not thread.is_alive()


# Pings


def test_ping_callbacks_run_once(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    answered: list[str] = []
    for name in ("a", "b"):
        assert ws.ping(name, lambda name=name: answered.append(name)) is True  # type: ignore[misc]
        peer.read_frame()
    peer.send_frame(frames.PONG, "nobody asked")
    gevent.sleep(0.01)
    assert answered == []
    peer.send_frame(frames.PONG, "b")  # RFC 6455 5.5.3: it answers the earlier ping too
    peer.send_frame(frames.PONG, "b")
    gevent.sleep(0.01)
    assert answered == ["a", "b"]


def test_pings_come_at_their_interval(exchange: Callable[..., Exchange]) -> None:
    """Not at twice of it, which a proxy's timeout may not survive."""
    made = exchange()
    made.accept(ping=0.1)
    started = time.monotonic()
    for _ in range(5):
        frame = made.peer.read_frame()
        assert frame.opcode == frames.PING
        made.peer.send_frame(frames.PONG, frame.payload)
    assert 0.45 < time.monotonic() - started < 0.75


def test_a_ping_is_small(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    assert ws.ping("x" * 125) and ws.ping(b"y" * 125)
    for message in ("x" * 126, "ü" * 63, b"y" * 126):
        with pytest.raises(ValueError):
            ws.ping(message)


def test_no_ping_when_it_is_over(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.close()
    assert ws.ping() is False
    peer.finish()
    peer.close()
    ws.wait_closed(TIMEOUT)
    assert ws.ping() is False


# Closing


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
)
def test_codes_that_may_be_sent(pair: tuple[WebSocket, Peer], code: int) -> None:
    ws, peer = pair
    ws.close(code, "grüße")
    frame = peer.read_close()
    assert (frame.close_code, frame.close_reason) == (code, "grüße")


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536])
def test_codes_that_may_not(pair: tuple[WebSocket, Peer], code: int) -> None:
    ws, peer = pair
    with pytest.raises(ValueError, match=str(code)):
        ws.close(code)
    assert ws.ready_state == ReadyState.OPEN


@pytest.mark.parametrize(
    "arguments, error",
    [
        ((1000, "x" * 124), ValueError),
        ((1000, "ü" * 62), ValueError),
        ((1000, b"bytes"), TypeError),
        (("1000",), TypeError),
        ((1000.0,), TypeError),
        ((True,), TypeError),
    ],
)
def test_what_close_refuses(
    pair: tuple[WebSocket, Peer], arguments: Any, error: type[Exception]
) -> None:
    ws, peer = pair
    with pytest.raises(error):
        ws.close(*arguments)
    ws.close(1000, "ü" * 61 + "x")
    assert len(peer.read_close().payload) == 125


def test_closing_twice(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.close(4000, "first")
    ws.close(4001, "second")
    assert peer.read_close().close_code == 4000
    peer.send_close(4000, "first")
    peer.read_eof()
    peer.close()
    ws.wait_closed(TIMEOUT)
    ws.close(4002)
    assert (ws.close_code, ws.close_reason) == (4000, "first")


def test_what_was_sent_comes_before_the_close(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    for number in range(50):
        ws.send(str(number))
    ws.close()
    assert [peer.read_text() for _ in range(50)] == [str(number) for number in range(50)]
    assert peer.read_close().close_code == 1000


def test_sending_after_close(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.close()
    with pytest.raises(ConnectionClosed) as raised:
        ws.send("too late")
    assert raised.value.target is ws
    peer.finish()
    peer.close()
    ws.wait_closed(TIMEOUT)
    with pytest.raises(ConnectionClosed) as raised:
        ws.send("too late")
    assert raised.value.code == 1000


def test_what_comes_after_our_close_is_dropped(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.close()
    peer.send_text("too late")
    peer.finish()
    peer.close()
    assert list(ws) == []


@pytest.mark.parametrize(
    "sent, code, reason",
    [
        (frames.close(1000), 1000, ""),
        (frames.close(1012, "restart"), 1012, "restart"),
        (frames.close(1013), 1013, ""),
        (frames.close(1014), 1014, ""),
        (frames.close(3999, "grüße"), 3999, "grüße"),
        (frames.close(None), 1005, ""),
        (b"", 1006, ""),
        (frames.frame(frames.TEXT, "half", fin=False), 1006, ""),
        (frames.frame(frames.TEXT, "half", fin=False) + frames.close(1001), 1001, ""),
    ],
    ids=lambda value: value if isinstance(value, (int, str)) else "",
)
def test_how_the_peer_may_end_it(
    pair: tuple[WebSocket, Peer], sent: bytes, code: int, reason: str
) -> None:
    ws, peer = pair
    peer.send(sent)
    if code != 1006:
        answer = peer.read_close()
        assert answer.close_code == (None if code == 1005 else code)
    peer.close()
    with pytest.raises(ConnectionClosed) as raised:
        ws.receive(TIMEOUT)
    assert raised.value.code == ws.close_code == code
    if code != 1006:
        assert raised.value.reason == ws.close_reason == reason


@pytest.mark.parametrize(
    "sent, options, code",
    [
        (frames.text("hello", mask=None), {}, 1002),
        (frames.frame(frames.TEXT, b"\xff"), {}, 1007),
        (frames.text("x" * 11), {"max_length": 10}, 1009),
        (frames.frame(frames.TEXT, "a", fin=False) * 2, {}, 1002),
        (
            frames.frame(frames.TEXT, "a", fin=False) + frames.frame(0, "b", fin=False) * 3,
            {"max_fragments": 3},
            1009,
        ),
        (frames.close(1005), {}, 1002),
    ],
    ids=["unmasked", "not UTF-8", "too long", "interleaved", "too many fragments", "bad code"],
)
def test_failures(
    exchange: Callable[..., Exchange], sent: bytes, options: dict[str, Any], code: int
) -> None:
    made = exchange()
    ws = made.accept(**options)
    made.peer.send(sent)
    assert made.peer.read_close().close_code == code
    made.peer.close()
    assert list(ws) == []
    assert ws.close_code == code


def test_with_closes(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    with ws as same:
        assert same is ws
        ws.send("hello")
    assert peer.read_text() == "hello"
    assert peer.read_close().close_code == 1000


def test_with_tells_of_an_exception(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    with pytest.raises(ZeroDivisionError), ws:
        raise ZeroDivisionError
    assert peer.read_close().close_code == 1011


def test_with_ends_quietly_where_its_connection_has_ended(
    exchange: Callable[..., Exchange],
) -> None:
    """A peer that vanishes is no failure of the view, which has no decorator."""
    made = exchange()

    def view(environ: dict[str, Any], start_response: Any) -> Any:
        with WebSocket(environ) as ws:
            made.peer.close()
            ws.wait_closed(TIMEOUT)
            ws.send("too late")
        return ws.response(environ, start_response)

    assert made.answer(view) == "101 Switching Protocols"


def test_with_ends_quietly_where_the_handshake_has_failed() -> None:
    with refused(HTTP_UPGRADE=None) as ws:
        ws.receive()
    assert respond(ws)[0].startswith("426")


def test_with_tells_of_the_end_of_another_connection(
    exchange: Callable[..., Exchange],
) -> None:
    other = exchange().accept()
    other.close()
    made = exchange()
    with pytest.raises(ConnectionClosed), made.accept():
        other.send("too late")
    assert made.peer.read_close().close_code == 1011


@pytest.mark.parametrize(
    "wrong, error",
    [("1", TypeError), ([], TypeError), (True, TypeError), (float("nan"), ValueError)],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda ws, timeout: ws.receive(timeout),
        lambda ws, timeout: ws.receive(timeout=timeout),
        lambda ws, timeout: ws.send("not sent", timeout=timeout),
        lambda ws, timeout: ws.wait_closed(timeout),
    ],
    ids=["receive", "receive-by-name", "send", "wait_closed"],
)
def test_a_wrong_timeout_does_nothing(
    pair: tuple[WebSocket, Peer], call: Any, wrong: Any, error: type[Exception]
) -> None:
    ws, peer = pair
    with pytest.raises(error, match="timeout is a number of seconds"):
        call(ws, wrong)
    peer.send_text("one")
    assert ws.receive(TIMEOUT) == "one"
    with pytest.raises(error, match="timeout is a number of seconds"):
        call(ws, wrong)
    ws.send("two", timeout=Fraction(1, 2))
    assert peer.read_text() == "two"


def test_wait_closed_times_out(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    with pytest.raises(TimeoutError):
        ws.wait_closed(0.01)


# What the view returns


def test_the_response_of_a_taken_connection(exchange: Callable[..., Exchange]) -> None:
    made = exchange()

    def view(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        ws = made.accept()
        ws.send(ws.receive())
        ws.close()
        return ws.response(environ, start_response)

    made.peer.send_text("hello")
    assert gevent.spawn(made.answer, view).get(timeout=TIMEOUT) == "101 Switching Protocols"
    assert made.peer.read_text() == "hello"
    made.peer.read_close()
    made.peer.send_close()
    made.peer.read_eof()  # and nothing of what the server wrote


@pytest.mark.parametrize("status, code", [("200 OK", 1000), ("500 Oh", 1011)])
def test_another_response_closes_it(
    exchange: Callable[..., Exchange], status: str, code: int
) -> None:
    """Whatever the view returns goes nowhere; the peer is told how it went."""
    made = exchange()

    def view(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        made.accept()
        start_response(status, [("Content-Type", "text/plain")])
        return [b"a page"]

    made.answer(view)
    assert made.peer.read_close().close_code == code


def test_what_is_kept_of_the_environ_when_the_view_has_returned(
    exchange: Callable[..., Exchange],
) -> None:
    made = exchange(**{f"HTTP_X_{number}": "x" * 8000 for number in range(90)})

    def view(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        ws = made.accept()
        ws.on("message", lambda event: ws.send(f"{ws.url} {sum(map(len, ws.environ.values()))}"))
        assert ws.environ is environ
        return ws.response(environ, start_response)

    made.answer(view)
    until(lambda: made.accepted[0].environ is not made.environ)
    made.peer.send_text("what is left?")
    url, size = made.peer.read_text().split()
    assert url == "ws://example.com/chat?room=1" and int(size) < 16384


def test_webob_request(exchange: Callable[..., Exchange]) -> None:
    made = exchange()
    request = webob.Request(made.environ)
    assert WebSocket.is_websocket(request)
    ws = WebSocket(request)
    made.accepted.append(ws)
    assert ws.environ is made.environ
    assert isinstance(ws.response, webob.Response)
    assert ws.response.status_code == 101


def test_wsgify_view(exchange: Callable[..., Exchange]) -> None:
    made = exchange()

    @wsgify
    def echo(request: webob.Request) -> Any:
        ws = WebSocket(request)
        made.accepted.append(ws)
        for message in ws:
            ws.send(message)
        return ws.response

    serving = gevent.spawn(made.answer, echo)
    assert made.peer.read_head().status == 101
    made.peer.send_text("hello")
    assert made.peer.read_text() == "hello"
    made.peer.finish()
    made.peer.close()
    assert serving.get(timeout=TIMEOUT) == "101 Switching Protocols"


def test_wsgify_view_with_listeners(exchange: Callable[..., Exchange]) -> None:
    made = exchange()

    @wsgify
    def echo(request: webob.Request) -> Any:
        ws = WebSocket(request)
        made.accepted.append(ws)
        ws.on("message", lambda event: ws.send(event.data))
        return ws.response

    assert made.answer(echo) == "101 Switching Protocols"  # the view is over
    assert made.peer.read_head().status == 101
    made.peer.send_text("hello")
    assert made.peer.read_text() == "hello"
    made.peer.finish()


def test_wsgify_view_refuses(exchange: Callable[..., Exchange]) -> None:
    made = exchange(HTTP_UPGRADE=None)
    echo = wsgify(lambda request: WebSocket(request).response)
    assert made.answer(echo).startswith("426 ")


# JSON


def test_json_goes_as_text(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.send_json({"text": "é", "n": [1, None]})
    assert json.loads(peer.read_text()) == {"text": "é", "n": [1, None]}
    peer.send_text('{"a": 1}')
    peer.send_binary(b'"bytes"')
    assert ws.receive_json(TIMEOUT) == {"a": 1}
    assert ws.receive_json(timeout=TIMEOUT) == "bytes"


def test_json_with_functions_of_your_own(pair: tuple[WebSocket, Peer]) -> None:
    """Bytes of an encoder go as text, too: a browser would get a Blob."""
    ws, peer = pair
    ws.send_json([1], encoder=lambda value: json.dumps(value).encode(), timeout=TIMEOUT)
    assert peer.read_text() == "[1]"
    peer.send_text("1.50")
    decimal = ws.receive_json(TIMEOUT, decoder=lambda text: json.loads(text, parse_float=Decimal))
    assert decimal == Decimal("1.50")


@pytest.mark.parametrize("message", ["", "hello", "[1", "[" * 100_000])
def test_a_message_that_is_no_json(message: str, pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    peer.send_text(message)
    peer.send_text("[1]")
    with pytest.raises(ValueError):
        ws.receive_json(TIMEOUT)
    assert ws.ready_state == ws.OPEN
    assert ws.receive_json(TIMEOUT) == [1]


def test_a_value_without_json_sends_nothing(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    with pytest.raises(TypeError, match="serializable"):
        ws.send_json(object())
    ws.send("next")
    assert peer.read_text() == "next"


def test_receive_json_at_the_end(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    with pytest.raises(TimeoutError):
        ws.receive_json(0)
    peer.send_close(4000)
    with pytest.raises(ConnectionClosed):
        ws.receive_json(TIMEOUT)
