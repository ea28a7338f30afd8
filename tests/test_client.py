"""Client against real servers and proxies, and against some that do not behave."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import gevent.event
import gevent.socket
import pytest

from faye_wsgi import Client, ConnectionClosed, HandshakeError, ReadyState
from faye_wsgi.extensions.permessage_deflate import PermessageDeflate
from faye_wsgi.transport import dial
from faye_wsgi.transport.backoff import Backoff

from .conftest import find_program
from .support import frames
from .support.certs import Certificates
from .support.scripted import (
    Scripted,
    descriptors,
    echo,
    good_answer,
    greenlets,
    header,
    proxy,
    read_head,
    says,
    scripted,
    server_context,
)
from .support.servers import ROOT, Server
from .transport.harness import until

TIMEOUT = 5.0


@pytest.fixture(scope="module", autouse=True)
def old_objects() -> Iterator[None]:
    """What is there before this file's tests is not looked through after each of them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """No test leaves a descriptor or a greenlet behind."""
    gevent.socket.getaddrinfo("localhost", 80)  # the hub's own descriptors, if it had none
    gc.collect()
    before = descriptors(), greenlets()
    yield
    deadline = time.monotonic() + TIMEOUT
    while (descriptors(), greenlets()) > before:
        assert time.monotonic() < deadline, (before, (descriptors(), greenlets()))
        gevent.sleep(0.02)


@pytest.fixture
def start() -> Iterator[Callable[..., Scripted]]:
    """`start(script, ...)` runs a scripted server that ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(scripted(*args, **options))


def failure(ws: Client) -> HandshakeError:
    """The error of a client that must not open, told in every way that there is."""
    told: list[Any] = []
    ws.on("open", told.append)
    ws.on("error", told.append)
    ws.on("close", told.append)
    with pytest.raises(HandshakeError) as caught:
        ws.wait_open(TIMEOUT)
    ws.wait_closed(TIMEOUT)
    gevent.sleep(0.01)
    error = caught.value
    assert error.target is ws and error.reason
    assert [event.type for event in told] == ["error", "close"]
    assert told[0].message == error.reason and told[1].code == error.code
    assert ws.ready_state == ReadyState.CLOSED
    assert (ws.close_code, ws.close_reason) == (error.code, error.reason)
    for call in (ws.receive, lambda: ws.send("x")):
        with pytest.raises(HandshakeError):
            call()
    assert list(ws) == []
    return error


def finish(ws: Client, code: int = 1000) -> None:
    ws.close()
    ws.wait_closed(TIMEOUT)
    assert ws.close_code == code


# Opening


@pytest.mark.parametrize("how", [{}, {"tls": True}, {"unix": True}], ids=["tcp", "tls", "unix"])
def test_echo(
    serve: Callable[..., Server], certificates: Certificates, how: dict[str, bool]
) -> None:
    server = serve("gunicorn-gevent", **how)
    url = f"ws+unix:{server.address}:/echo" if server.unix else server.url("/echo", "ws")
    with Client(url, ca=certificates.ca) as ws:
        assert (ws.ready_state, ws.status_code, ws.protocol, ws.version) == (
            ReadyState.OPEN,
            101,
            "",
            "hybi-13",
        )
        assert ws.headers["UPGRADE"].lower() == "websocket"
        for message in ("hello", b"\0\xff", "", "é" * 1000, b"x" * 3_000_000):
            ws.send(message)
            assert ws.receive(TIMEOUT) == message
    ws.wait_closed(TIMEOUT)
    assert (ws.close_code, ws.close_reason) == (1000, "")


def test_messages_before_open_are_sent_in_order(start: Callable[..., Scripted]) -> None:
    ws = Client(start(echo).url())
    assert ws.ready_state == ReadyState.CONNECTING and ws.status_code is None
    for number in range(3):
        ws.send(str(number))
    assert ws.buffered_amount == 3
    assert [ws.receive(TIMEOUT) for _ in range(3)] == ["0", "1", "2"]
    finish(ws)


def test_what_is_sent_while_opening_keeps_its_order(start: Callable[..., Scripted]) -> None:
    ws = Client(start(echo).url())
    ws.send("first")

    def send_at_once() -> None:
        while ws.ready_state == ReadyState.CONNECTING:
            gevent.sleep(0)
        ws.send("second")

    sender = gevent.spawn(send_at_once)
    assert [ws.receive(TIMEOUT), ws.receive(TIMEOUT)] == ["first", "second"]
    sender.join(TIMEOUT)
    finish(ws)


def test_what_cannot_be_sent_raises_before_open(start: Callable[..., Scripted]) -> None:
    ws = Client(start(echo).url())
    ws.send("first")
    for wrong in ("\ud800", iter(["ok", "\ud800"]), iter([1]), iter(["a", b"b"]), 5, ["a"]):
        with pytest.raises((UnicodeEncodeError, TypeError)):
            ws.send(wrong)  # type: ignore[arg-type]
    ws.send(iter([bytearray(b"a"), memoryview(b"b")]))
    ws.send(iter([]))
    ws.send("last")
    assert [ws.receive(TIMEOUT) for _ in range(3)] == ["first", b"ab", "last"]
    finish(ws)


def test_events_as_in_a_browser(start: Callable[..., Scripted]) -> None:
    ws = Client(start(echo).url())
    told: list[Any] = []
    ws.on("open", lambda event: ws.send("hello"))
    ws.on("message", lambda event: (told.append(event.data), ws.close(4000, "bye")))
    ws.on("close", lambda event: told.append((event.code, event.reason)))
    ws.wait_closed(TIMEOUT)
    gevent.sleep(0.01)
    assert told == ["hello", (4000, "bye")]


def test_subprotocols(serve: Callable[..., Server]) -> None:
    url = serve("gunicorn-gevent").url("/echo?protocols=amqp,irc", "ws")
    with Client(url, ["irc", "amqp"]) as ws:
        assert ws.protocol == "irc"
    with Client(url, "mqtt") as other:
        assert other.protocol == ""
    ws.wait_closed(TIMEOUT)
    other.wait_closed(TIMEOUT)


@pytest.mark.parametrize("agrees", [True, False])
def test_deflate(serve: Callable[..., Server], agrees: bool) -> None:
    url = serve("gunicorn-gevent").url(f"/echo?deflate={int(agrees)}", "ws")
    with Client(url, extensions=[PermessageDeflate()]) as ws:
        assert ("Sec-WebSocket-Extensions" in ws.headers) == agrees
        for message in ("x", "hello " * 10_000, b"\0\xff" * 50_000, ""):
            ws.send(message)
            assert ws.receive(TIMEOUT) == message
    ws.wait_closed(TIMEOUT)
    assert ws.close_code == 1000


def test_ping(start: Callable[..., Scripted]) -> None:
    def answer_pings(sock: Any, server: Scripted) -> None:
        sock.sendall(good_answer(read_head(sock)))
        while (frame := frames.read_frame(sock)).opcode != frames.CLOSE:
            sock.sendall(frames.frame(frames.PONG, frame.payload, mask=None))
        sock.sendall(frames.close(1000, mask=None))

    with Client(start(answer_pings).url()) as ws:
        pong = gevent.event.Event()
        assert ws.ping("x", pong.set)
        assert pong.wait(TIMEOUT)
    ws.wait_closed(TIMEOUT)


def test_a_server_that_is_dead(start: Callable[..., Scripted]) -> None:
    def play_dead(sock: Any, server: Scripted) -> None:
        sock.sendall(good_answer(read_head(sock)))
        gevent.sleep(0.5)

    with Client(start(play_dead).url(), ping=0.05, ping_timeout=0.1) as ws:
        assert list(ws) == []
    assert ws.close_code == 1006


def test_headers_and_credentials(start: Callable[..., Scripted]) -> None:
    server = start(echo)
    headers = {"X-One": "1", "Host": "virtual.example"}
    url = server.url("/a?b").replace("//", "//us%20er:p%40ss@")
    with Client(url, headers=headers) as ws:
        pass
    ws.wait_closed(TIMEOUT)
    head = server.heads[0]
    assert head.startswith(b"GET /a?b HTTP/1.1\r\n")
    assert (header(head, "X-One"), header(head, "Host")) == ("1", "virtual.example")
    assert header(head, "Authorization") == "Basic dXMgZXI6cEBzcw=="
    assert "p%40ss" not in repr(ws) and ws.url == server.url("/a?b")
    assert headers == {"X-One": "1", "Host": "virtual.example"}


def test_bytes_after_the_head(start: Callable[..., Scripted]) -> None:
    pieces = frames.text("a", mask=None) + frames.text("b", mask=None) + b"\x81\x01"
    server = start(says(lambda head: good_answer(head) + pieces))
    ws = Client(server.url())
    assert [ws.receive(TIMEOUT), ws.receive(TIMEOUT)] == ["a", "b"]
    with pytest.raises(ConnectionClosed):
        ws.receive(TIMEOUT)
    assert ws.close_code == 1006


def test_an_answer_in_pieces(start: Callable[..., Scripted]) -> None:
    def dribble(sock: Any, server: Scripted) -> None:
        for byte in good_answer(read_head(sock)) + frames.text("a", mask=None):
            sock.sendall(bytes([byte]))
            gevent.sleep(0)
        frames.read_frame(sock)
        sock.sendall(frames.close(1000, mask=None))

    with Client(start(dribble).url()) as ws:
        assert ws.receive(TIMEOUT) == "a"
    ws.wait_closed(TIMEOUT)
    assert ws.close_code == 1000


# Handshakes that fail


@pytest.mark.parametrize(
    "answer",
    [
        lambda head: good_answer(head).replace(b"Accept: ", b"Accept: x"),
        lambda head: good_answer(head).replace(b"Upgrade: websocket", b"X: y"),
        lambda head: good_answer(head).replace(b"Connection: Upgrade", b"Connection: close"),
        lambda head: good_answer(head, "Sec-WebSocket-Protocol: mqtt"),
        lambda head: good_answer(head, "Sec-WebSocket-Extensions: permessage-unknown"),
        lambda head: b"nonsense\r\n\r\n",
        lambda head: b"HTTP/1.1 101 x\r\nX: " + b"x" * 1_000_000,
        lambda head: b"HTTP/1.1 100 x\r\n\r\n" * 1000,
    ],
    ids=["accept", "upgrade", "connection", "protocol", "extension", "http", "endless", "interim"],
)
def test_bad_answers(start: Callable[..., Scripted], answer: Any) -> None:
    assert failure(Client(start(says(answer)).url(), ["irc"])).code == 1002


def test_a_refusal(start: Callable[..., Scripted]) -> None:
    body = b"x" * 10_000
    server = start(says(b"HTTP/1.1 403 No\r\nX-Why: it\r\nContent-Length: 10000\r\n\r\n" + body))
    ws = Client(server.url())
    error = failure(ws)
    assert (error.status_code, error.code, error.body) == (403, 1002, body[:4096])
    assert ("X-Why", "it") in error.headers
    assert (ws.status_code, ws.headers["x-why"]) == (403, "it")


@pytest.mark.parametrize("code", ["receive", "enter"])
def test_a_refusal_is_raised(start: Callable[..., Scripted], code: str) -> None:
    server = start(says(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n"))
    with pytest.raises(HandshakeError) as caught:
        if code == "receive":
            Client(server.url()).receive(TIMEOUT)
        else:
            with Client(server.url()):
                raise AssertionError("it is not open")
    assert caught.value.status_code == 503


def test_a_refusal_whose_body_never_ends(start: Callable[..., Scripted]) -> None:
    def stall(sock: Any, server: Scripted) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\nstart")
        sock.recv(1)

    error = failure(Client(start(stall).url()))
    assert (error.status_code, error.body) == (500, b"start")


def silent(sock: Any, server: Scripted) -> None:
    while sock.recv(65536):
        pass


def trickle(sock: Any, server: Scripted) -> None:
    sock.sendall(b"HTTP/1.1 101 x\r\n")
    while True:
        sock.sendall(b"X: y\r\n")
        gevent.sleep(0.02)


@pytest.mark.parametrize("script", [silent, trickle])
@pytest.mark.parametrize("scheme", ["ws", "wss", "proxy"])
def test_silence(start: Callable[..., Scripted], script: Any, scheme: str) -> None:
    server = start(script)
    url = server.url().replace("ws:", "wss:") if scheme == "wss" else server.url()
    through = f"http://127.0.0.1:{server.port}" if scheme == "proxy" else None
    began = time.monotonic()
    error = failure(Client(url, proxy=through, open_timeout=0.3))
    assert time.monotonic() - began < 2
    assert error.code == 1006 and error.status_code is None


@pytest.mark.parametrize("after", [0, 10])
def test_a_server_that_hangs_up(start: Callable[..., Scripted], after: int) -> None:
    server = start(lambda sock, server: (read_head(sock), sock.sendall(b"HTTP/1.1 10"[:after])))
    assert failure(Client(server.url())).code in (1002, 1006)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = failure(Client(f"ws://127.0.0.1:{taken.getsockname()[1]}/"))
    assert (error.code, error.status_code) == (1006, None) and "refused" in str(error)
    assert failure(Client("ws+unix:/no/such/socket")).code == 1006


def test_a_host_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(*args: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(gevent.socket, "getaddrinfo", not_found)
    error = failure(Client("ws://nowhere.example/"))
    assert error.code == 1006 and "nowhere.example" in str(error)


def test_a_slow_look_up_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *args: gevent.sleep(10))
    ws = Client("ws://slow.example/", open_timeout=0.2)
    assert failure(ws).code == 1006


def test_the_resolver_is_the_hubs(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., Scripted]
) -> None:
    asked: list[Any] = []
    resolver = gevent.get_hub().resolver

    class Resolver:
        def getaddrinfo(self, *args: Any) -> Any:
            asked.append(args[0])
            return resolver.getaddrinfo("127.0.0.1", *args[1:])

    monkeypatch.setattr(gevent.get_hub(), "_resolver", Resolver())
    with Client(start(echo).url().replace("127.0.0.1", "bücher.example")) as ws:
        pass
    ws.wait_closed(TIMEOUT)
    assert [name if isinstance(name, str) else name.decode() for name in asked] == [
        "xn--bcher-kva.example"
    ]


def test_the_first_address_that_works(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., Scripted]
) -> None:
    server = start(echo)
    kind = socket.SOCK_STREAM
    addresses = [
        (socket.AF_INET6, kind, 6, "", ("::1", 1, 0, 0)),
        (socket.AF_INET, kind, 6, "", ("127.0.0.1", 1)),
        (socket.AF_INET, kind, 6, "", ("127.0.0.1", server.port)),
    ]
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *args: addresses)
    with Client(server.url()) as ws:
        ws.send("x")
        assert ws.receive(TIMEOUT) == "x"
    ws.wait_closed(TIMEOUT)


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    listener = gevent.socket.socket(socket.AF_INET6)
    try:
        listener.bind(("::1", 0))
    except OSError:
        listener.close()
        pytest.skip("this machine has no IPv6")
    with listener:
        listener.listen()
        heads: list[bytes] = []

        def serve_one() -> None:
            sock, _ = listener.accept()
            with sock:
                heads.append(read_head(sock))
                sock.sendall(good_answer(heads[0]) + frames.close(1000, mask=None))

        server = gevent.spawn(serve_one)
        port = listener.getsockname()[1]
        ws = Client(f"ws://[::1]:{port}/")
        ws.wait_open(TIMEOUT)
        ws.wait_closed(TIMEOUT)
        server.join(TIMEOUT)
        assert header(heads[0], "Host") == f"[::1]:{port}"


# Giving up


@pytest.mark.parametrize("turns", [0, 1, 5])
@pytest.mark.parametrize("tls", [False, True])
def test_close_while_connecting(start: Callable[..., Scripted], turns: int, tls: bool) -> None:
    server = start(silent)
    ws = Client(server.url().replace("ws:", "wss:") if tls else server.url())
    told: list[Any] = []
    ws.on("error", told.append)
    ws.on("open", told.append)
    ws.on("close", told.append)
    for _ in range(turns):
        gevent.sleep(0.005)
    ws.close(3000, "never mind")
    assert ws.ready_state == ReadyState.CLOSED
    gevent.sleep(0.01)
    assert [(event.code, event.reason) for event in told] == [(3000, "never mind")]
    with pytest.raises(HandshakeError):
        ws.wait_open(TIMEOUT)
    with pytest.raises(ConnectionClosed):
        ws.receive(TIMEOUT)
    ws.close()


def test_close_while_the_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *args: gevent.sleep(10))
    ws = Client("ws://slow.example/")
    gevent.sleep(0.01)
    ws.close()
    ws.wait_closed(TIMEOUT)


def test_close_from_another_thread_while_connecting(start: Callable[..., Scripted]) -> None:
    ws = Client(start(silent).url())
    gevent.sleep(0.02)
    thread = threading.Thread(target=ws.close)
    thread.start()
    ws.wait_closed(TIMEOUT)
    thread.join(TIMEOUT)
    assert ws.close_code == 1000


def test_wait_open_checks_its_timeout(start: Callable[..., Scripted]) -> None:
    ws = Client(start(silent).url())
    with pytest.raises(TypeError, match="timeout is a number of seconds"):
        ws.wait_open("1")  # type: ignore[arg-type]
    ws.close()


def test_wait_open_has_a_timeout(start: Callable[..., Scripted]) -> None:
    ws = Client(start(silent).url())
    with pytest.raises(TimeoutError):
        ws.wait_open(0.02)
    assert ws.ready_state == ReadyState.CONNECTING
    ws.close()


def test_a_killed_block_gives_up(start: Callable[..., Scripted]) -> None:
    server = start(silent)

    def use() -> None:
        with Client(server.url()):
            pass

    greenlet = gevent.spawn(use)
    gevent.sleep(0.05)
    greenlet.kill(timeout=TIMEOUT)
    assert greenlet.dead


# Servers that break the protocol


@pytest.mark.parametrize(
    "data",
    [
        frames.text("masked"),
        frames.text("x", mask=None, rsv=4),
        frames.text("x", mask=None, rsv=2),
        frames.text("x", mask=None, rsv=1),
        frames.frame(3, b"", mask=None),
        frames.frame(frames.PING, b"x" * 126, mask=None),
        frames.frame(frames.CONTINUATION, b"x", mask=None),
    ],
    ids=["masked", "rsv1", "rsv2", "rsv3", "opcode", "long ping", "continuation"],
)
@pytest.mark.parametrize("hangs_up", [True, False])
def test_bad_frames(start: Callable[..., Scripted], data: bytes, hangs_up: bool) -> None:
    seen: list[Any] = []

    def script(sock: Any, server: Scripted) -> None:
        sock.sendall(good_answer(read_head(sock)) + frames.text("good", mask=None) + data)
        seen.append(frames.read_frame(sock))
        if not hangs_up:
            silent(sock, server)

    began = time.monotonic()
    ws = Client(start(script).url())
    assert list(ws) == ["good"]
    ws.wait_closed(TIMEOUT)
    assert ws.close_code == 1002
    assert time.monotonic() - began < 3  # whatever the server does then
    assert (seen[0].opcode, seen[0].close_code) == (frames.CLOSE, 1002)
    assert seen[0].mask is not None


def test_a_message_that_is_too_long(start: Callable[..., Scripted]) -> None:
    server = start(says(lambda head: good_answer(head) + frames.text("x" * 11, mask=None)))
    ws = Client(server.url(), max_length=10)
    assert list(ws) == []
    ws.wait_closed(TIMEOUT)
    assert ws.close_code == 1009


# Redirects


def redirect(to: str, status: int = 302) -> Callable[..., None]:
    return says(f"HTTP/1.1 {status} Go\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode())


def test_redirects_are_not_followed(start: Callable[..., Scripted]) -> None:
    error = failure(Client(start(redirect("/b")).url()))
    assert (error.status_code, error.code) == (302, 1002)
    assert ("Location", "/b") in error.headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects(start: Callable[..., Scripted], status: int) -> None:
    target = start(echo)
    server = start(redirect(target.url("/there").replace("ws", "http"), status))
    with Client(server.url(), max_redirects=1) as ws:
        ws.send("x")
        assert ws.receive(TIMEOUT) == "x"
    ws.wait_closed(TIMEOUT)
    assert target.heads[0].startswith(b"GET /there ")


def test_an_endless_redirect(start: Callable[..., Scripted]) -> None:
    server = start(redirect("/again"))
    error = failure(Client(server.url(), max_redirects=3))
    assert (error.status_code, server.connections) == (302, 4)
    assert "max_redirects" in str(error)


def test_no_credentials_go_to_another_origin(start: Callable[..., Scripted]) -> None:
    target = start(echo)
    server = start(redirect(target.url()))
    secrets = {"Cookie": "a=b", "X-Api-Key": "k", "Proxy-Authorization": "Basic x"}
    headers = {**secrets, "Origin": "http://me", "User-Agent": "me"}
    url = server.url().replace("//", "//user:secret@")
    with Client(url, headers=headers, max_redirects=1) as ws:
        pass
    ws.wait_closed(TIMEOUT)
    first, second = server.heads[0], target.heads[0]
    for name in ("Authorization", *secrets):
        assert header(first, name) and header(second, name) is None
    assert (header(second, "Origin"), header(second, "User-Agent")) == ("http://me", "me")


def test_credentials_stay_with_their_origin(start: Callable[..., Scripted]) -> None:
    def script(sock: Any, server: Scripted) -> None:
        (echo if server.heads else redirect("/again"))(sock, server)

    server = start(script)
    url = server.url().replace("//", "//user:secret@")
    with Client(url, headers={"Cookie": "a=b"}, max_redirects=1) as ws:
        pass
    ws.wait_closed(TIMEOUT)
    assert [header(head, "Cookie") for head in server.heads] == ["a=b"] * 2
    assert len({header(head, "Authorization") for head in server.heads}) == 1


@pytest.mark.parametrize("to", ["ftp://x/", "ws://127.0.0.1:99999/", "http://", "ws+unix:/run/x"])
def test_redirects_to_nowhere(start: Callable[..., Scripted], to: str) -> None:
    error = failure(Client(start(redirect(to)).url(), max_redirects=5))
    assert error.status_code == 302


@pytest.mark.parametrize("to", ["/?token=secret", "ftp://example.com/?token=secret"])
def test_the_error_of_a_redirect_has_no_query(
    start: Callable[..., Scripted], certificates: Certificates, to: str
) -> None:
    where = to if ":" in to else start(echo).url(to)
    server = start(redirect(where), tls=server_context(certificates))
    error = failure(Client(server.url(), ca=certificates.ca, max_redirects=5))
    assert "the redirect" in str(error) and "secret" not in str(error)


def test_what_gevent_logs_of_a_client_has_no_secrets(
    start: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repr of a greenlet has its arguments."""
    begun: list[Any] = []
    begin = dial.begin
    monkeypatch.setattr(dial, "begin", lambda *args: (begun.extend(args), begin(*args)))
    url = start(echo).url("/?token=secret").replace("//", "//me:pass@")
    with Client(url, headers={"Cookie": "secret"}) as ws:
        assert "secret" in ws.url
        assert not any(word in repr(begun + [ws]) for word in ("secret", "pass", "Basic"))


def test_a_redirect_that_would_lose_tls(
    start: Callable[..., Scripted], certificates: Certificates
) -> None:
    target = start(echo)
    server = start(redirect(target.url()), tls=server_context(certificates))
    error = failure(Client(server.url(), ca=certificates.ca, max_redirects=5))
    assert error.status_code == 302 and target.connections == 0


def test_a_certificate_does_not_go_to_another_origin(
    start: Callable[..., Scripted], certificates: Certificates
) -> None:
    """Nobody can take it out of an SSLContext, so there the way ends."""
    pair = {"cert": certificates.client_cert, "key": certificates.client_key}
    wants_one = server_context(certificates)
    wants_one.verify_mode, accepts_one = ssl.CERT_REQUIRED, server_context(certificates)
    for context in (wants_one, accepts_one):
        context.load_verify_locations(certificates.ca)
    accepts_one.verify_mode = ssl.CERT_OPTIONAL
    shown: list[Any] = []

    def look(sock: Any, server: Scripted) -> None:
        shown.append(sock.getpeercert())
        echo(sock, server)

    target = start(look, tls=accepts_one)
    server = start(redirect(target.url()), tls=wants_one)
    with Client(server.url(), tls={"ca": certificates.ca, **pair}, max_redirects=1) as ws:
        ws.wait_open(TIMEOUT)
    assert [bool(certificate) for certificate in shown] == [False]
    mine = ssl.create_default_context(cafile=certificates.ca)
    mine.load_cert_chain(*pair.values())
    error = failure(Client(server.url(), tls=mine, max_redirects=1))
    assert error.status_code == 302 and "SSLContext" in str(error)
    assert target.connections == 1


# TLS


def test_certificates_are_verified(
    start: Callable[..., Scripted], certificates: Certificates
) -> None:
    server = start(echo, tls=server_context(certificates))
    error = failure(Client(server.url()))
    assert error.code == 1006 and "certificate" in str(error)


def test_host_names_are_verified(
    start: Callable[..., Scripted], certificates: Certificates
) -> None:
    server = start(echo, tls=server_context(certificates))
    other = {"ca": certificates.ca, "server_hostname": "other.example"}
    assert "certificate" in str(failure(Client(server.url(), tls=other)))
    assert other == {"ca": certificates.ca, "server_hostname": "other.example"}
    named = {"ca": certificates.ca, "server_hostname": "localhost"}
    with Client(server.url(), tls=named) as ws:
        pass
    ws.wait_closed(TIMEOUT)


@pytest.mark.parametrize("way", ["file", "pem", "context", "unverified"])
def test_ways_to_trust(
    start: Callable[..., Scripted], certificates: Certificates, way: str
) -> None:
    server = start(echo, tls=server_context(certificates))
    with open(certificates.ca) as file:
        pem = file.read()
    option: Any = {
        "file": {"ca": certificates.ca},
        "pem": {"ca": pem},
        "context": certificates.client_context(),
        "unverified": {"verify": False},
    }[way]
    with Client(server.url(), tls=option) as ws:
        ws.send("x")
        assert ws.receive(TIMEOUT) == "x"
    ws.wait_closed(TIMEOUT)


def test_client_certificates(start: Callable[..., Scripted], certificates: Certificates) -> None:
    server = start(echo, tls=server_context(certificates, True))
    ours = {
        "ca": certificates.ca,
        "cert": certificates.client_cert,
        "key": certificates.client_key,
    }
    with Client(server.url(), tls=ours) as ws:
        ws.send("x")
        assert ws.receive(TIMEOUT) == "x"
    ws.wait_closed(TIMEOUT)
    assert failure(Client(server.url(), ca=certificates.ca)).code == 1006


def test_the_name_is_sent(start: Callable[..., Scripted], certificates: Certificates) -> None:
    names: list[Any] = []
    context = server_context(certificates)
    context.sni_callback = lambda sock, name, context: names.append(name)
    server = start(echo, tls=context)
    url = server.url().replace("127.0.0.1", "localhost")
    with Client(url, ca=certificates.ca) as ws:
        pass
    ws.wait_closed(TIMEOUT)
    assert names == ["localhost"]


def test_a_server_without_tls(start: Callable[..., Scripted]) -> None:
    server = start(lambda sock, server: sock.sendall(b"HTTP/1.1 400 Bad\r\n\r\n"))
    assert failure(Client(server.url().replace("ws:", "wss:"))).code == 1006


# Proxies


@pytest.mark.parametrize("to", ["plain", "tls"])
@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("piece", [1, 1000])
def test_proxies(
    start: Callable[..., Scripted], certificates: Certificates, to: str, tls: bool, piece: int
) -> None:
    """ws and wss through a proxy with and without TLS; TLS in TLS is the last of them."""
    context = server_context(certificates)
    server = start(echo, tls=context if tls else None)
    through = start(proxy(piece=piece), tls=context if to == "tls" else None, scheme="http")
    option = {
        "origin": through.url().replace("//", "//us%20er:p%40ss@"),
        "headers": {"X-One": "1"},
        "tls": {"ca": certificates.ca},
    }
    url = server.url().replace("//", "//me:too@")
    with Client(url, proxy=option, ca=certificates.ca) as ws:
        for message in ("x", b"y" * 3_000_000):
            ws.send(message)
            assert ws.receive(TIMEOUT) == message
    ws.wait_closed(TIMEOUT)
    assert ws.close_code == 1000
    head = through.heads[0]
    authority = f"127.0.0.1:{server.port}"
    assert head.startswith(f"CONNECT {authority} HTTP/1.1\r\n".encode())
    assert (header(head, "Host"), header(head, "X-One")) == (authority, "1")
    assert header(head, "Proxy-Authorization") == "Basic dXMgZXI6cEBzcw=="
    assert header(head, "Authorization") is None
    assert header(server.heads[0], "Proxy-Authorization") is None
    assert set(option) == {"origin", "headers", "tls"} and option["tls"] == {"ca": certificates.ca}


@pytest.mark.parametrize("piece", [1, 1000])
@pytest.mark.parametrize("status", [407, 403, 502])
def test_a_proxy_that_refuses(start: Callable[..., Scripted], status: int, piece: int) -> None:
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 4\r\n\r\nbody".encode()
    through = start(proxy(answer, piece), scheme="http")
    ws = Client("wss://example.com/", proxy=through.url())
    error = failure(ws)
    assert (error.status_code, error.body, error.code) == (status, b"body", 1006)
    assert ws.status_code == status and "proxy" in str(error)


def test_a_proxy_whose_body_never_ends(start: Callable[..., Scripted]) -> None:
    def script(sock: Any, server: Scripted) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 407 Who\r\n\r\nstart")
        sock.recv(1)

    error = failure(Client("ws://example.com/", proxy=start(script, scheme="http").url()))
    assert (error.status_code, error.body) == (407, b"start")


def test_a_redirect_by_a_proxy_is_not_followed(start: Callable[..., Scripted]) -> None:
    elsewhere = start(echo)
    through = start(redirect(elsewhere.url()), scheme="http")
    ws = Client("ws://example.com/", proxy=through.url(), max_redirects=5)
    assert failure(ws).status_code == 302
    assert elsewhere.connections == 0


def test_a_proxy_that_is_not_trusted(
    start: Callable[..., Scripted], certificates: Certificates
) -> None:
    through = start(proxy(), tls=server_context(certificates), scheme="http")
    ws = Client("ws://example.com/", proxy=through.url(), ca=certificates.ca)
    error = failure(ws)  # ca is for the server; the proxy has its own
    assert error.code == 1006 and "proxy" in str(error)


def test_a_proxy_that_is_not_there() -> None:
    assert failure(Client("ws://example.com/", proxy="http://127.0.0.1:1")).code == 1006


def test_proxy_of_the_environment(
    start: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server, through = start(echo), start(proxy(), scheme="http")

    def uses() -> int:
        before = through.connections
        with Client(server.url(), proxy="env") as ws:
            pass
        ws.wait_closed(TIMEOUT)
        return through.connections - before

    assert uses() == 0
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{through.port}")
    assert uses() == 1
    monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.1")
    assert uses() == 0
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", "")
    monkeypatch.setenv("HTTPS_PROXY", through.url())
    assert uses() == 0  # which is for wss
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ValueError):
        uses()


@contextlib.contextmanager
def tinyproxy(folder: Any, *lines: str) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    config = folder / "tinyproxy.conf"
    config.write_text("\n".join((f"Port {port}", "Listen 127.0.0.1", "Timeout 30", *lines, "")))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [find_program("tinyproxy"), "-d", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(TIMEOUT)


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_a_real_proxy(
    serve: Callable[..., Server], certificates: Certificates, tmp_path: Any, tls: bool
) -> None:
    server = serve("gunicorn-gevent", tls=tls)
    url = server.url("/echo", "ws")
    with tinyproxy(tmp_path, "BasicAuth user secret") as port:
        through = f"http://user:secret@127.0.0.1:{port}"
        with Client(url, proxy=through, ca=certificates.ca) as ws:
            for message in ("x", b"y" * 500_000):
                ws.send(message)
                assert ws.receive(TIMEOUT) == message
        ws.wait_closed(TIMEOUT)
        assert ws.close_code == 1000
        error = failure(Client(url, proxy=f"http://127.0.0.1:{port}", ca=certificates.ca))
        assert error.status_code == 407
        error = failure(Client("ws://127.0.0.1:1/", proxy=through))
        assert error.status_code is not None and error.status_code >= 500


# Reconnecting


class Delays(Backoff):
    """A backoff that only writes down how long it would have waited."""

    made: list[float] = []

    def __init__(self, first: float, most: float) -> None:
        super().__init__(first, most, random=lambda low, high: high, sleep=self.made.append)


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr("faye_wsgi.client.Backoff", Delays)
    monkeypatch.setattr(Delays, "made", [])
    return Delays.made


def test_reconnecting(
    start: Callable[..., Scripted], delays: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    def script(sock: Any, server: Scripted) -> None:
        if server.connections in (1, 3):
            says(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")(sock, server)
        else:
            says(lambda head: good_answer(head) + frames.text("x", mask=None))(sock, server)

    got = []
    headers = iter([("X-One", "1")])
    server = start(script)
    for ws in Client.reconnecting(server.url(), iter(["irc"]), headers=headers):
        got += list(ws)
        if len(got) == 2:
            break
    assert (got, server.connections) == (["x", "x"], 4)
    assert delays == [1, 2, 4]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "503" in caplog.text and "again in 4.0 seconds" in caplog.text
    assert all(header(head, "X-One") == "1" for head in server.heads)
    assert all(header(head, "Sec-WebSocket-Protocol") == "irc" for head in server.heads)


@pytest.mark.parametrize("code", [1001, 1012])
def test_a_server_that_restarts_is_no_warning(
    start: Callable[..., Scripted],
    delays: list[float],
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    server = start(says(lambda head: good_answer(head) + frames.close(code, mask=None)))
    with caplog.at_level("INFO", "faye_wsgi"):
        for ws in Client.reconnecting(server.url()):
            list(ws)
            if server.connections == 4:
                break
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3
    assert f"closed with {code}" in caplog.text


def test_leaving_the_loop_closes(start: Callable[..., Scripted], delays: list[float]) -> None:
    for _ in range(2):
        ws = next(iter(Client.reconnecting(start(echo).url())))
        gc.collect()
        ws.wait_closed(TIMEOUT)
        assert ws.close_code == 1000
    assert delays == []


@pytest.mark.parametrize("status, heals", [(404, False), (401, False), (408, True), (429, True)])
def test_refusals_that_will_not_heal(
    start: Callable[..., Scripted], delays: list[float], status: int, heals: bool
) -> None:
    def script(sock: Any, server: Scripted) -> None:
        code = status if server.connections == 1 else 404
        answer = f"HTTP/1.1 {code} x\r\n\r\n"
        says(answer.encode())(sock, server)

    server = start(script)
    with pytest.raises(HandshakeError) as caught:
        for _ in Client.reconnecting(server.url()):
            raise AssertionError("it did not open")
    assert caught.value.status_code == (404 if heals else status)
    assert len(delays) == int(heals)


def test_a_certificate_that_is_not_valid_does_not_heal(
    certificates: Any, delays: list[float], start: Callable[..., Scripted]
) -> None:
    url = start(echo, tls=server_context(certificates)).url()
    with pytest.raises(HandshakeError, match="certificate is not valid"):
        for _ in Client.reconnecting(url):
            raise AssertionError("it did not open")
    assert delays == []


def test_connections_that_end_with_an_error_are_logged_as_a_warning(
    start: Callable[..., Scripted], delays: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """From the second in a row: each one opens, so that no failure is logged."""
    end = frames.close(1011, mask=None)
    server = start(says(lambda head: good_answer(head) + end))
    for ws in Client.reconnecting(server.url()):
        assert list(ws) == []
        if len(delays) == 3:
            break
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and all("closed with 1011: trying again in" in one for one in said)
    assert delays == [1, 2, 4]


def test_tls_to_a_server_without_it(start: Callable[..., Scripted]) -> None:
    def script(sock: Any, server: Scripted) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = start(script)
    error = failure(Client(server.url().replace("ws://", "wss://")))
    assert "the server does not speak TLS at" in str(error) and "write ws://" in str(error)


def test_no_tls_to_a_server_with_it(start: Callable[..., Scripted]) -> None:
    server = start(says(b"\x15\x03\x01\x00\x02\x02\x46"))
    assert "the server speaks TLS here: write wss://" in str(failure(Client(server.url())))


def stop_in_thread(loop: Any) -> threading.Thread:
    thread = threading.Thread(target=loop.stop, daemon=True)
    thread.start()
    return thread


def test_reconnecting_is_stopped_from_another_thread(start: Callable[..., Scripted]) -> None:
    server = start(echo)
    loop = Client.reconnecting(server.url())
    for ws in loop:
        thread = stop_in_thread(loop)
        assert list(ws) == []
    assert (ws.close_code, server.connections) == (1000, 1)
    thread.join(TIMEOUT)


def test_reconnecting_is_stopped_while_it_waits(
    start: Callable[..., Scripted], caplog: pytest.LogCaptureFixture
) -> None:
    loop = Client.reconnecting(
        start(says(b"HTTP/1.1 503 Later\r\n\r\n")).url(), first_delay=3600, max_delay=3600
    )
    ended = gevent.spawn(list, loop)
    until(lambda: "trying again" in caplog.text)
    thread = stop_in_thread(loop)
    assert ended.get(timeout=TIMEOUT) == []
    thread.join(TIMEOUT)


def test_reconnecting_is_stopped_while_it_connects(start: Callable[..., Scripted]) -> None:
    arrived = gevent.event.Event()

    def script(sock: Any, server: Scripted) -> None:
        arrived.set()
        sock.recv(65536)
        sock.recv(65536)  # until the client has gone

    loop = Client.reconnecting(start(script).url())
    ended = gevent.spawn(list, loop)
    assert arrived.wait(TIMEOUT)
    thread = stop_in_thread(loop)
    assert ended.get(timeout=TIMEOUT) == []
    thread.join(TIMEOUT)


def test_no_query_is_logged(
    start: Callable[..., Scripted], delays: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    server = start(says(b"HTTP/1.1 404 x\r\n\r\n"))
    url = server.url("/path?token=secret")
    with caplog.at_level("INFO"), pytest.raises(HandshakeError):
        for _ in Client.reconnecting(url, retry=lambda error: not delays):
            pass
    assert "/path: " in caplog.text and "trying again" in caplog.text
    assert "secret" not in caplog.text


def test_told_otherwise(start: Callable[..., Scripted], delays: list[float]) -> None:
    server = start(says(b"HTTP/1.1 404 x\r\n\r\n"))
    with pytest.raises(HandshakeError):
        for _ in Client.reconnecting(server.url(), retry=lambda error: len(delays) < 3):
            pass
    assert delays == [1, 2, 4] and server.connections == 4


def test_what_the_loop_raises_is_not_swallowed(
    start: Callable[..., Scripted], delays: list[float]
) -> None:
    with pytest.raises(HandshakeError, match="of my own"):
        for _ in Client.reconnecting(start(echo).url()):
            raise HandshakeError("of my own")
    gc.collect()


def test_wrong_arguments_raise_at_once() -> None:
    with pytest.raises(ValueError):
        next(Client.reconnecting("http://example.com/"))
    with pytest.raises(ValueError):
        Client.reconnecting("ws://example.com/", first_delay=-1)


# Options


@pytest.mark.parametrize(
    "error, options",
    [
        (TypeError, {"no_such_option": 1}),
        (TypeError, {"protocols": lambda offer: None}),
        (ValueError, {"protocols": ["a b"]}),
        (ValueError, {"protocols": ["a", "a"]}),
        (ValueError, {"headers": {"X": "a\r\nb"}}),
        (TypeError, {"extensions": "permessage-deflate"}),
        (ValueError, {"headers": {"Upgrade": "x"}}),
        (ValueError, {"headers": {"Sec-WebSocket-Key": "x"}}),
        (ValueError, {"headers": [("Host", "a"), ("Host", "b")]}),
        (TypeError, {"open_timeout": "x"}),
        (ValueError, {"open_timeout": -1}),
        (ValueError, {"max_redirects": -1}),
        (TypeError, {"max_redirects": None}),
        (ValueError, {"max_length": 0}),
        (ValueError, {"max_fragments": 0}),
        (TypeError, {"close_timeout": None}),
        (ValueError, {"proxy": "socks5://proxy"}),
        (ValueError, {"proxy": "proxy:3128"}),
        (ValueError, {"proxy": {"headers": {}}}),
        (TypeError, {"proxy": {"origin": "http://proxy", "other": 1}}),
        (ValueError, {"proxy": {"origin": "http://proxy", "headers": {"Host": "x"}}}),
        (TypeError, {"tls": "x"}),
        (TypeError, {"tls": {"other": 1}}),
        (ValueError, {"tls": {"key": "x"}}),
        (OSError, {"tls": {"ca": "/no/such/file"}}),
        (TypeError, {"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "ca": "x"}),
    ],
)
def test_wrong_options(error: type[Exception], options: dict[str, Any]) -> None:
    with pytest.raises(error):
        Client("ws://127.0.0.1:1/", **options)


def test_no_proxy_to_a_unix_socket() -> None:
    with pytest.raises(ValueError):
        Client("ws+unix:/run/x", proxy="http://proxy")


@pytest.mark.parametrize("url", ["http://example.com", "example.com", "ws://", "ws://a b/"])
def test_wrong_urls(url: str) -> None:
    with pytest.raises(ValueError):
        Client(url)


# Many, elsewhere, and patched


def test_a_thousand_clients(serve: Callable[..., Server]) -> None:
    url = serve("gunicorn-gevent", options=["--worker-connections=2000"]).url("/events", "ws")
    clients = [Client(url, open_timeout=60) for _ in range(1000)]
    for index, ws in enumerate(clients):
        ws.send(str(index))
    assert [ws.receive(30) for ws in clients] == [str(index) for index in range(1000)]
    for ws in clients:
        ws.close()
    for ws in clients:
        ws.wait_closed(30)
    assert {ws.close_code for ws in clients} == {1000}


def test_in_a_thread_with_its_own_hub(serve: Callable[..., Server]) -> None:
    url = serve("gunicorn-gevent").url("/echo", "ws")
    got: list[Any] = []

    def run() -> None:
        try:
            with Client(url) as ws:
                ws.send("x")
                got.append(ws.receive(TIMEOUT))
            ws.wait_closed(TIMEOUT)
            got.append(ws.close_code)
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT)
    assert got == ["x", 1000]


def test_what_a_thread_has_sent_arrives_before_the_block_ends(
    start: Callable[..., Scripted],
) -> None:
    """In a plain script nothing lets the hub run between the thread's sends and the close."""
    seen: list[frames.Frame] = []

    def listen(sock: Any, server: Scripted) -> None:
        sock.sendall(good_answer(read_head(sock)))
        while not seen or seen[-1].opcode != frames.CLOSE:
            seen.append(frames.read_frame(sock))
        sock.sendall(frames.frame(frames.CLOSE, seen[-1].payload, mask=None))

    with Client(start(listen).url()) as ws:
        thread = threading.Thread(target=lambda: [ws.send(str(n)) for n in range(10)])
        thread.start()
        thread.join()
    assert [frame.text for frame in seen[:-1]] == [str(n) for n in range(10)]


PATCHED = """
from gevent import monkey; monkey.patch_all()
import sys
from faye_wsgi import Client
with Client(sys.argv[1], ca=sys.argv[2]) as ws:
    ws.send('x' * 100000)
    assert ws.receive(5) == 'x' * 100000
ws.wait_closed(5)
print(ws.close_code)
"""


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("patch", [False, True], ids=["unpatched", "patched"])
def test_monkey_patching(
    serve: Callable[..., Server], certificates: Certificates, tls: bool, patch: bool
) -> None:
    url = serve("gunicorn-gevent", tls=tls).url("/echo", "ws")
    script = PATCHED if patch else PATCHED.partition("all()")[2]
    result = subprocess.run(
        [sys.executable, "-c", script, url, certificates.ca],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stdout == "1000\n", result.stderr
    assert "Traceback" not in result.stderr


# In threads of their own: what was made there ends with them


def leave_the_block(url: str) -> Any:
    with Client(url) as ws:
        ws.send("x")
        assert ws.receive(TIMEOUT) == "x"
        return weakref.ref(gevent.get_hub())


def leave_the_loop(url: str) -> Any:
    for ws in Client.reconnecting(url):
        ws.send("x")
        assert ws.receive(TIMEOUT) == "x"
        return weakref.ref(gevent.get_hub())


def fail_to_open(url: str) -> Any:
    with pytest.raises(HandshakeError), Client("ws://localhost:1/"):
        pass


def close_and_leave(url: str) -> None:
    ws = Client(url)
    ws.send("x")
    assert ws.receive(TIMEOUT) == "x"
    ws.close()


def forget(url: str) -> None:
    ws = Client(url)
    ws.send("x")
    assert ws.receive(TIMEOUT) == "x"


@pytest.mark.parametrize(
    "use", [leave_the_block, leave_the_loop, fail_to_open, close_and_leave, forget]
)
def test_a_thread_leaves_nothing_behind(
    serve: Callable[..., Server], use: Callable[[str], Any]
) -> None:
    url = serve("gunicorn-gevent").url("/echo", "ws").replace("127.0.0.1", "localhost")
    hubs: list[Any] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            hubs.append(use(url))
        except BaseException as error:
            failures.append(error)

    def in_threads(number: int) -> int:
        for _ in range(number):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    assert in_threads(2) == in_threads(5), "descriptors"
    assert not failures
    assert [hub() for hub in hubs if hub is not None] == [None] * 7 * (hubs[0] is not None)


def test_a_block_that_another_thread_leaves(serve: Callable[..., Server]) -> None:
    with Client(serve("gunicorn-gevent").url("/echo", "ws")) as ws:
        thread = threading.Thread(target=ws.__exit__, args=(None, None, None))
        thread.start()
        ws.wait_closed(TIMEOUT)
        thread.join(TIMEOUT)
        assert not thread.is_alive() and ws.close_code == 1000


def test_a_hub_that_somebody_else_uses_stays() -> None:
    """In a thread whose hub has other work, a client takes nothing down with it."""
    results: list[Any] = []

    def run() -> None:
        other = gevent.spawn_later(0.1, lambda: results.append("done"))
        with pytest.raises(HandshakeError), Client("ws://127.0.0.1:1/"):
            pass
        other.join(TIMEOUT)
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT)
    assert results == ["done"]
