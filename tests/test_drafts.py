"""hixie-75 and hixie-76 on real servers, wherever the eight bytes of the body are."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import pytest

from faye_wsgi import ConnectionClosed, WebSocket, broadcast
from faye_wsgi.transport import connection

from .support import frames
from .support.apps import wsgi_app
from .support.apps.views import options, query
from .support.peer import Head, Peer
from .support.servers import Server
from .support.servers import serve as run_server
from .support.waiting import wait_until
from .wsgi.test_echo import ALARM

APP = "tests.test_drafts:application"
PATIENCE = "FAYE_WSGI_TEST_OPEN_TIMEOUT"
SERVED = ["gunicorn-gevent", "gunicorn-gthread", "pywsgi", "flask", "wsgiref"]
CLOSE = b"\xff\x00"

# The server under test has no time to waste.
if PATIENCE in os.environ:
    connection.OPEN_TIMEOUT = float(os.environ[PATIENCE])


# The application

ENDS: dict[str, Any] = {}  # how each connection ended, by the key in its query


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    name = environ["PATH_INFO"].strip("/")
    if name == "ends":
        return wsgi_app.page(start_response, "200 OK", json.dumps(ENDS))
    if name not in VIEWS:
        return wsgi_app.application(environ, start_response)
    values = query(environ)
    ws = WebSocket(environ, **options(values))
    ws.on("close", lambda event: note_end(values.get("key", ""), ws.version, event))
    VIEWS[name](ws)
    return ws.response(environ, start_response)


def note_end(key: str, version: str, event: Any) -> None:
    ENDS[key] = [version, event.code, event.reason]


def talk(ws: WebSocket) -> None:
    """Does what it is told, and says what came of it."""
    try:
        if ws.version.startswith("hixie"):
            with pytest.raises(TypeError):
                ws.send(b"bytes")  # before the handshake is complete, on 76
        ws.send("welcome")
        while True:
            answer(ws, ws.receive())
    except ConnectionClosed:
        pass


def listen(ws: WebSocket) -> None:
    if ws.ready_state == ws.CLOSED:  # refused
        return
    ws.send("welcome")
    ws.on("message", lambda event: answer(ws, event.data))


def answer(ws: WebSocket, message: Any) -> None:
    if message == "binary":
        try:
            ws.send(b"bytes")
        except TypeError:
            ws.send("TypeError")
    elif message == "broadcast":
        broadcast([ws], b"bytes")
        broadcast([ws], "text")
    elif message == "fragments":
        try:
            ws.send(iter(["one", "two"]))
        except TypeError:
            ws.send("TypeError")
    elif message == "ping":
        ws.send(str(ws.ping("hello")))
    elif message == "about":
        ws.send(f"{ws.version} {ws.url} {ws.protocol} {ws.ready_state:d}")
    elif message == "close":
        ws.send("goodbye")
        ws.close(4000, "not said by a draft")
    else:
        ws.send(message)


VIEWS = {"talk": talk, "listen": listen}


# A client of the drafts

KEY1, KEY2, BODY = "4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", b"^n:ds[4U"
ANSWER = b"8jKS'y:G*Co,Wxa-"  # draft 76, 1.3


def text(message: str) -> bytes:
    return b"\x00" + message.encode() + b"\xff"


class DraftPeer:
    """A connection whose handshake is sent by hand."""

    def __init__(self, server: Any, path: str = "/talk?allow_drafts=1") -> None:
        self.peer = Peer(server)
        self.server, self.key = server, uuid.uuid4().hex
        self.path = f"{path}{'&' if '?' in path else '?'}key={self.key}"

    def __enter__(self) -> DraftPeer:
        return self

    def __exit__(self, *error: object) -> None:
        self.peer.close()

    def head_of(self, draft: int, headers: frames.Headers | None = None) -> bytes:
        lines = [
            f"GET {self.path} HTTP/1.1",
            "Upgrade: WebSocket",
            "Connection: Upgrade",
            f"Host: {self.server.host_header}",
            f"Origin: http://{self.server.host_header}",
        ]
        if draft == 76:
            ours = {"Sec-WebSocket-Key1": KEY1, "Sec-WebSocket-Key2": KEY2}
            lines += [f"{name}: {value}" for name, value in {**ours, **dict(headers or {})}.items()]
        else:
            lines += [f"{name}: {value}" for name, value in frames.pairs(headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def open75(self, headers: frames.Headers | None = None, first: bytes = b"") -> Head:
        self.peer.send(self.head_of(75, headers) + first)
        head = self.peer.read_head()
        assert (head.status, head.reason) == (101, "Web Socket Protocol Handshake")
        return head

    def open76(self, headers: frames.Headers | None = None, first: bytes = b"") -> Head:
        self.peer.send(self.head_of(76, headers) + BODY + first)
        return self.check76()

    def check76(self) -> Head:
        head = self.peer.read_head()
        assert (head.status, head.reason) == (101, "WebSocket Protocol Handshake")
        assert self.read(16) == ANSWER
        return head

    def open(self, draft: int, first: bytes = b"") -> Head:
        return self.open75(first=first) if draft == 75 else self.open76(first=first)

    def read(self, size: int) -> bytes:
        return frames.read_exactly(self.peer.sock, size)

    def send(self, message: str) -> None:
        self.peer.send(text(message))

    def read_text(self) -> str:
        assert self.read(1) == b"\x00"
        data = b""
        while not data.endswith(b"\xff"):
            data += self.read(1)
        return data[:-1].decode()

    def ask(self, message: str) -> str:
        self.send(message)
        return self.read_text()


@pytest.fixture(scope="module", params=SERVED)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(request.param, APP, env={PATIENCE: "0.5"}) as running:
        yield running
        assert not ALARM.search(running.log()), running.log()


@pytest.fixture(scope="module", params=SERVED)
def refusing(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The eight bytes after a refused request look like another one, of which servers complain."""
    with run_server(request.param, APP) as running:
        yield running


@pytest.fixture(params=["/talk", "/listen"])
def draft_peer(server: Server, request: pytest.FixtureRequest) -> Iterator[DraftPeer]:
    with DraftPeer(server, f"{request.param}?allow_drafts=1") as peer:
        yield peer


def end_of(peer: DraftPeer) -> list[Any]:
    """What the close event says."""

    def look() -> Any:
        return json.loads(peer.server.get("/ends")[1]).get(peer.key)

    found: list[Any] = wait_until(look, what="a close event")
    return found


DRAFTS = [75, 76]


# The handshakes


def test_the_head_of_75(draft_peer: DraftPeer, server: Server) -> None:
    """Clients of the draft compare the first lines byte by byte (4.1)."""
    draft_peer.peer.send(draft_peer.head_of(75))
    expected = (
        "HTTP/1.1 101 Web Socket Protocol Handshake\r\n"
        "Upgrade: WebSocket\r\n"
        "Connection: Upgrade\r\n"
        f"WebSocket-Origin: http://{server.host_header}\r\n"
        f"WebSocket-Location: ws://{server.host_header}{draft_peer.path}\r\n\r\n"
    ).encode()
    assert draft_peer.read(len(expected)) == expected
    assert draft_peer.read_text() == "welcome"


def test_the_head_of_76(draft_peer: DraftPeer, server: Server) -> None:
    head = draft_peer.open76()
    assert head.fields == [
        ("Upgrade", "WebSocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Origin", f"http://{server.host_header}"),
        ("Sec-WebSocket-Location", f"ws://{server.host_header}{draft_peer.path}"),
    ]
    assert draft_peer.read_text() == "welcome"


@pytest.mark.parametrize(
    "name, draft", [("WebSocket-Protocol", 75), ("Sec-WebSocket-Protocol", 76)]
)
def test_protocol(server: Server, name: str, draft: int) -> None:
    with DraftPeer(server, "/talk?allow_drafts=1&protocols=chat,echo") as peer:
        open_it = peer.open75 if draft == 75 else peer.open76
        assert open_it({name: "echo"}).get(name) == "echo"
        assert peer.read_text() == "welcome"
        assert peer.ask("about").split() == [
            f"hixie-{draft}",
            f"ws://{server.host_header}{peer.path}",
            "echo",
            "1",
        ]


def test_body_in_the_heads_segment(draft_peer: DraftPeer) -> None:
    draft_peer.open76(first=text("one") + text("two"))
    assert [draft_peer.read_text() for _ in range(3)] == ["welcome", "one", "two"]


@pytest.mark.parametrize("split", range(1, 8))
def test_body_in_two_segments(draft_peer: DraftPeer, split: int) -> None:
    draft_peer.peer.send(draft_peer.head_of(76) + BODY[:split])
    time.sleep(0.05)
    draft_peer.peer.send(BODY[split:] + text("one"))
    draft_peer.check76()
    assert [draft_peer.read_text() for _ in range(2)] == ["welcome", "one"]


def test_body_byte_by_byte_and_late(draft_peer: DraftPeer) -> None:
    """As behind a proxy that forwards the head first, and waits for its answer."""
    draft_peer.peer.send(draft_peer.head_of(76))
    head = draft_peer.peer.read_head()
    assert head.status == 101
    draft_peer.peer.sock.settimeout(0.1)
    with pytest.raises((TimeoutError, socket.timeout)):
        draft_peer.peer.sock.recv(1)  # what the view sends is kept
    draft_peer.peer.sock.settimeout(5)
    for number in range(8):
        time.sleep(0.01)
        draft_peer.peer.send(BODY[number : number + 1])
    assert draft_peer.read(16) == ANSWER
    assert draft_peer.read_text() == "welcome"
    assert draft_peer.ask("hello") == "hello"


def test_body_never_comes(draft_peer: DraftPeer) -> None:
    """The server does not wait for ever: ten seconds, here cut short."""
    assert connection.OPEN_TIMEOUT == 10
    draft_peer.peer.send(draft_peer.head_of(76) + BODY[:7])
    started = time.monotonic()
    assert draft_peer.peer.read_head().status == 101
    draft_peer.peer.read_eof()
    assert 0.3 < time.monotonic() - started < 3
    assert end_of(draft_peer)[1:] == [None, None]


def test_the_client_goes_before_the_body(draft_peer: DraftPeer) -> None:
    draft_peer.peer.send(draft_peer.head_of(76) + BODY[:3])
    assert draft_peer.peer.read_head().status == 101
    draft_peer.peer.close()
    assert end_of(draft_peer)[1:] == [None, None]


BAD_KEYS = {
    "no digits": "a b",
    "no spaces": "1234",
    "a remainder": "5 5 7",
    "too large": "4294967296 ",
    "far too large": "9" * 30 + " ",
    "nothing": "",
}


@pytest.mark.parametrize("which", ["Sec-WebSocket-Key1", "Sec-WebSocket-Key2"])
@pytest.mark.parametrize("fault", BAD_KEYS)
def test_bad_keys(refusing: Server, which: str, fault: str) -> None:
    with DraftPeer(refusing) as peer:
        # The space is inside: servers strip what is around a value.
        key = BAD_KEYS[fault].replace("6 ", "6 x").replace("9 ", "9 x")
        peer.peer.send(peer.head_of(76, {which: key}) + BODY)
        assert peer.peer.read_head().status == 400


def test_a_computed_challenge(server: Server) -> None:
    """The largest number there is, and another body."""
    body = b"\x00\xff\r\n\r\n\x80a"
    with DraftPeer(server) as peer:
        keys = {"Sec-WebSocket-Key1": "42949 67295", "Sec-WebSocket-Key2": "0 x 0"}
        peer.peer.send(peer.head_of(76, keys) + body)
        assert peer.peer.read_head().status == 101
        challenge = (2**32 - 1).to_bytes(4, "big") + bytes(4) + body
        assert peer.read(16) == hashlib.md5(challenge).digest()
        assert peer.read_text() == "welcome"


@pytest.mark.parametrize("draft", DRAFTS)
def test_refused_unless_allowed(refusing: Server, draft: int) -> None:
    with DraftPeer(refusing, "/talk") as peer:
        peer.peer.send(peer.head_of(draft) + (BODY if draft == 76 else b""))
        head = peer.peer.read_head()
        assert head.status == 426
        assert head.get("Sec-WebSocket-Version") == "13"


@pytest.mark.parametrize("draft", DRAFTS)
def test_origin(refusing: Server, draft: int) -> None:
    with DraftPeer(refusing, "/talk?allow_drafts=1&origins=http://elsewhere.example") as peer:
        peer.peer.send(peer.head_of(draft) + (BODY if draft == 76 else b""))
        assert peer.peer.read_head().status == 403


def test_rfc_6455_beside_them(server: Server) -> None:
    with Peer(server) as peer:
        peer.open("/talk?allow_drafts=1")
        assert peer.read_text() == "welcome"
        peer.finish()


# Messages


@pytest.mark.parametrize("draft", DRAFTS)
def test_echo(draft_peer: DraftPeer, draft: int) -> None:
    draft_peer.open(draft)
    assert draft_peer.read_text() == "welcome"
    for message in ["hello", "", "grüße, 世界 🎉", "x" * 10_000]:
        assert draft_peer.ask(message) == message


@pytest.mark.parametrize("draft", DRAFTS)
def test_byte_by_byte(draft_peer: DraftPeer, draft: int) -> None:
    draft_peer.open(draft)
    assert draft_peer.read_text() == "welcome"
    draft_peer.peer.send(text("grüße"), step=1)
    assert draft_peer.read_text() == "grüße"


@pytest.mark.parametrize("draft", DRAFTS)
def test_what_a_draft_cannot_do(draft_peer: DraftPeer, draft: int) -> None:
    draft_peer.open(draft)
    assert draft_peer.read_text() == "welcome"
    assert draft_peer.ask("binary") == "TypeError"
    assert draft_peer.ask("broadcast") == "text"
    assert draft_peer.ask("ping") == "False"
    assert draft_peer.ask("hello") == "hello", "the connection has not suffered"


@pytest.mark.parametrize("draft", DRAFTS)
def test_no_fragments(draft_peer: DraftPeer, draft: int) -> None:
    """An iterable is one message, or a TypeError: never half of one."""
    draft_peer.open(draft)
    assert draft_peer.read_text() == "welcome"
    assert draft_peer.ask("fragments") in ("onetwo", "TypeError")
    assert draft_peer.ask("hello") == "hello"


@pytest.mark.parametrize("draft", DRAFTS)
def test_length_prefixed_frames_are_skipped(draft_peer: DraftPeer, draft: int) -> None:
    draft_peer.open(draft, first=b"\x80\x81\x00" + b"x" * 128 + text("after"))
    assert [draft_peer.read_text() for _ in range(2)] == ["welcome", "after"]


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("data", [b"\x00" + b"x" * 101, b"\x80\x81\x00", b"\x00\xc0\xff"])
def test_faults_end_it(server: Server, draft: int, data: bytes) -> None:
    with DraftPeer(server, "/talk?allow_drafts=1&max_length=100") as peer:
        peer.open(draft)
        assert peer.read_text() == "welcome"
        peer.peer.send(data)
        assert peer.peer.read_available() == (CLOSE if draft == 76 else b"")
    assert end_of(peer) == [f"hixie-{draft}", None, None]


# The end


def test_we_close_76(draft_peer: DraftPeer) -> None:
    draft_peer.open76()
    assert draft_peer.read_text() == "welcome"
    assert draft_peer.ask("close") == "goodbye"
    assert draft_peer.read(2) == CLOSE
    draft_peer.peer.send(CLOSE)
    draft_peer.peer.read_eof()
    draft_peer.peer.close()
    assert end_of(draft_peer) == ["hixie-76", None, None]


def test_the_client_closes_76(draft_peer: DraftPeer) -> None:
    draft_peer.open76()
    assert draft_peer.read_text() == "welcome"
    draft_peer.peer.send(text("before") + CLOSE)
    assert draft_peer.read_text() == "before"
    assert draft_peer.read(2) == CLOSE
    draft_peer.peer.read_eof()
    draft_peer.peer.close()
    assert end_of(draft_peer) == ["hixie-76", None, None]


def test_we_close_75(draft_peer: DraftPeer) -> None:
    draft_peer.open75()
    assert draft_peer.read_text() == "welcome"
    assert draft_peer.ask("close") == "goodbye"
    draft_peer.peer.read_eof()
    draft_peer.peer.close()
    assert end_of(draft_peer) == ["hixie-75", None, None]


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_client_ends_tcp(draft_peer: DraftPeer, draft: int) -> None:
    draft_peer.open(draft)
    assert draft_peer.read_text() == "welcome"
    draft_peer.peer.close()
    assert end_of(draft_peer) == [f"hixie-{draft}", None, None]


# Behind a proxy that forwards the head first


class Relay:
    """A proxy for one connection: it forwards the head of the request alone, and what
    follows only when the response's head has gone by."""

    def __init__(self, server: Server) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        self.address = self.listener.getsockname()
        self.host_header = server.host_header
        self.server = server
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def connect(self, timeout: float = 10.0) -> socket.socket:
        return socket.create_connection(self.address, timeout)

    def run(self) -> None:
        client, _ = self.listener.accept()
        client.settimeout(10)
        with self.listener, client, self.server.connect() as upstream:
            request = client.recv(65536)
            head, end, rest = request.partition(b"\r\n\r\n")
            upstream.sendall(head + end)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += upstream.recv(65536)
            client.sendall(answer)
            upstream.sendall(rest)
            back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
            back.start()
            pump(client, upstream)
            back.join(10)


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_behind_a_proxy_that_forwards_the_head_first(server: Server) -> None:
    relay = Relay(server)
    with DraftPeer(relay) as peer:
        peer.open76(first=text("one"))
        assert [peer.read_text() for _ in range(2)] == ["welcome", "one"]
        peer.peer.send(CLOSE)
        assert peer.read(2) == CLOSE
        peer.peer.read_eof()
    relay.thread.join(10)
    assert not relay.thread.is_alive()
