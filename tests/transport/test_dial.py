"""Connecting: addresses, the proxy, TLS, and that a failure leaves no descriptor open.

What a Client makes of all this is tested in tests/test_client.py.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import gevent.socket
import pytest

from faye_wsgi import Client
from faye_wsgi.driver.client_handshake import ClientHandshake
from faye_wsgi.errors import HandshakeError
from faye_wsgi.http.url import HTTP_SCHEMES, parse_url
from faye_wsgi.transport import dial
from faye_wsgi.transport.stream import PlainSocket
from faye_wsgi.transport.tls import make_client_tls

from ..support.certs import Certificates
from ..support.scripted import (
    Scripted,
    descriptors,
    echo,
    good_answer,
    proxy,
    read_head,
    says,
    scripted,
    server_context,
)
from .harness import TIMEOUT, until

Start = Callable[..., Scripted]
STREAM = socket.SOCK_STREAM


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(script, ...)` runs a scripted server that ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(scripted(*args, **options))


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """No test leaves a descriptor behind."""
    gevent.socket.getaddrinfo("localhost", 80)  # the hub's own descriptors, if it had none
    gc.collect()
    before = descriptors()
    yield
    until(lambda: descriptors() <= before, what="the end of all descriptors")


def silent(sock: Any, server: Scripted) -> None:
    while sock.recv(65536):
        pass


def failure(function: Callable[..., object], *args: Any) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        function(*args)
    return caught.value


# The socket


def test_the_socket_is_tuned(start: Start) -> None:
    server = start(silent)
    sock = dial.open_socket(parse_url(server.url()))
    assert isinstance(sock, PlainSocket) and not sock.getblocking()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    sock.close()


def test_a_unix_socket(tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        with contextlib.closing(dial.open_socket(parse_url(f"ws+unix:{tmp_path}/sock"))) as sock:
            assert sock.getpeername() == str(tmp_path / "sock") and not sock.getblocking()


def test_the_refusal_names_where_and_why() -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = failure(dial.open_socket, parse_url(f"ws://127.0.0.1:{port}/?token=secret"))
    assert error.code == 1006 and "secret" not in str(error)
    assert f"127.0.0.1:{port}" in str(error) and "refused" in str(error)


def test_a_unix_socket_that_is_not_there() -> None:
    error = failure(dial.open_socket, parse_url("ws+unix:/no/such/socket"))
    assert error.code == 1006 and "/no/such/socket" in str(error)


def test_a_look_up_that_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *args: [])
    assert failure(dial.open_socket, parse_url("ws://example.com/")).code == 1006


def test_a_family_that_this_machine_has_not_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    server = start(silent)
    addresses = [
        (9999, STREAM, 0, "", ("nowhere", 1)),
        (socket.AF_INET, STREAM, 6, "", ("127.0.0.1", server.port)),
    ]
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *args: addresses)
    with contextlib.closing(dial.open_socket(parse_url("ws://example.com/"))) as sock:
        assert sock.getpeername() == ("127.0.0.1", server.port)


def test_the_last_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gevent.socket, "getaddrinfo", lambda *args: [(9999, STREAM, 0, "", ("nowhere", 1))] * 2
    )
    error = failure(dial.open_socket, parse_url("ws://example.com/"))
    assert "not supported" in str(error)


def test_a_process_without_descriptors_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*args: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(dial, "PlainSocket", none_left)
    error = failure(dial.open_socket, parse_url("ws://127.0.0.1/"))
    assert error.code == 1006 and "Too many open files" in str(error)


def test_a_slow_address_is_overtaken(start: Start) -> None:
    # A full queue makes connecting hang, as a black hole does.
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        server = start(echo)
        kind = socket.SOCK_STREAM
        places = [full.getsockname(), ("127.0.0.1", server.port)]
        sock = dial._race([(socket.AF_INET, kind, 6, "", place) for place in places], "name")
        assert sock.getpeername() == places[1]
        sock.close()


def test_ipv6_and_ipv4_in_turns() -> None:
    """RFC 8305 §4: a network without one of them is found out by the second attempt."""
    six, four = socket.AF_INET6, socket.AF_INET
    found = [(six, 1), (six, 2), (six, 3), (four, 4), (four, 5)]
    mixed = dial._interleave(found)
    assert mixed == [(six, 1), (four, 4), (six, 2), (four, 5), (six, 3)]
    assert dial._interleave([]) == []


# The way to the server


def test_a_proxy_that_refuses_leaves_nothing_open(start: Start) -> None:
    through = start(proxy(b"HTTP/1.1 407 Who\r\nContent-Length: 2\r\n\r\nno"), scheme="http")
    url = parse_url("ws://example.com/")
    way = dial.Proxy(parse_url(through.url(), HTTP_SCHEMES))
    error = failure(dial.dial, url, make_client_tls, way)
    assert (error.status_code, error.body, error.code) == (407, b"no", 1006)


def test_tls_that_fails_leaves_nothing_open(
    start: Start, certificates: Certificates, hub_errors: list[str]
) -> None:
    server = start(echo, tls=server_context(certificates))
    error = failure(dial.dial, parse_url(server.url()), make_client_tls)
    assert error.code == 1006 and "the certificate is not valid" in str(error)
    until(lambda: hub_errors, what="the end of the server's handshake")
    assert "UNKNOWN_CA" in hub_errors.pop()  # our alert, which the server's hub tells of


def test_a_server_that_hangs_up_in_the_handshake_of_tls(start: Start) -> None:
    server = start(lambda sock, server: sock.recv(1))
    url = parse_url(server.url().replace("ws:", "wss:"))
    error = failure(dial.dial, url, make_client_tls)
    assert error.code == 1006 and "TLS with the server failed" in str(error)


def test_tls_is_asked_for_only_where_it_is_spoken(start: Start) -> None:
    """Reading the system's certificates is slow, and their absence must not stop `ws:`."""

    def no_tls() -> Any:
        raise AssertionError("the URL is not secure")

    with contextlib.closing(dial.dial(parse_url(start(silent).url()), no_tls)) as sock:
        assert isinstance(sock, PlainSocket)


# The opening handshake


def test_a_handshake_that_opens(start: Start) -> None:
    server = start(says(lambda head: good_answer(head) + b"left"))
    url = parse_url(server.url())
    with contextlib.closing(dial.open_socket(url)) as sock:
        opened = dial.shake_hands(sock, ClientHandshake(url))
        # The rest may come with the head or after it, as TCP likes.
        assert opened.status_code == 101 and b"left".startswith(opened.left)
        assert sock.fileno() >= 0


@pytest.mark.parametrize(
    "answer, status",
    [(b"HTTP/1.1 404 No\r\n\r\n", 404), (b"nonsense\r\n\r\n", None), (b"", None)],
)
def test_a_handshake_that_fails_closes_its_socket(
    start: Start, answer: bytes, status: int | None
) -> None:
    url = parse_url(start(says(answer)).url())
    sock = dial.open_socket(url)
    error = failure(dial.shake_hands, sock, ClientHandshake(url))
    assert error.status_code == status and sock.fileno() == -1


def test_a_request_that_cannot_be_sent() -> None:
    ours, theirs = socket.socketpair()
    sock = PlainSocket(fileno=ours.detach())
    sock.setblocking(False)
    theirs.close()
    error = failure(dial.shake_hands, sock, ClientHandshake(parse_url("ws://example.com/")))
    assert error.code == 1006 and "could not be sent" in str(error) and sock.fileno() == -1


def test_a_reset_in_the_middle_of_the_answer() -> None:
    ours, theirs = socket.socketpair()
    sock = PlainSocket(fileno=ours.detach())
    sock.setblocking(False)
    peer = gevent.socket.socket(fileno=theirs.detach())

    def hang_up() -> None:
        peer.recv(1)  # what it leaves unread turns the end of a socket pair into a reset
        peer.close()

    hanging = gevent.spawn(hang_up)
    error = failure(dial.shake_hands, sock, ClientHandshake(parse_url("ws://example.com/")))
    hanging.get(timeout=TIMEOUT)
    assert error.code == 1006 and "there was no answer" in str(error)


def test_an_answer_in_pieces(start: Start) -> None:
    def dribble(sock: Any, server: Scripted) -> None:
        for byte in good_answer(read_head(sock)):
            sock.sendall(bytes([byte]))
            gevent.sleep(0)
        silent(sock, server)

    url = parse_url(start(dribble).url())
    with contextlib.closing(dial.open_socket(url)) as sock:
        assert dial.shake_hands(sock, ClientHandshake(url)).status_code == 101


# A fault of our own


def test_what_should_never_be_raised_is_logged_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the user would wait for a connection that will never open."""

    def fail(*args: Any) -> Any:
        raise LookupError("of our own")

    monkeypatch.setattr(gevent.socket, "getaddrinfo", fail)
    ws = Client("ws://example.com/")
    error = failure(ws.wait_open, TIMEOUT)
    assert error.code == 1006 and "LookupError: of our own" in str(error)
    assert caplog.text.count("LookupError: of our own") == 1
