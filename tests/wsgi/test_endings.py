"""How the ends of views that no decorator surrounds are understood, on every server.

A server tells by the status that it writes. A view that returns leaves its connection to
its listeners; one that is thrown out has failed, with a status of the server's or without.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from ..support.apps import endings
from ..support.peer import Peer
from ..support.servers import KINDS, Server
from ..support.servers import serve as run_server
from ..support.waiting import wait_until

TAKEN = [kind for kind in KINDS if kind != "gunicorn-sync"]  # which keeps its sockets
GEVENT = [kind for kind in TAKEN if KINDS[kind].gevent]
WAYS = [(kind, tls) for kind in TAKEN for tls in (False, True) if KINDS[kind].tls or not tls]
IDS = [f"{kind}-tls" if tls else kind for kind, tls in WAYS]

RETURNS = [function.__name__ for function in endings.RETURNS]
FAILURES = [function.__name__ for function in endings.FAILURES]
# These stop the server itself.
FATAL = {
    "gunicorn-gevent_pywsgi": ["system_exit"],
    "gunicorn-gthread": ["greenlet_exit", "system_exit", "killed"],
    "pywsgi": ["system_exit"],
    "pywsgi-unpatched": ["system_exit"],
}


def start(kind: str, tls: bool = False) -> Any:
    name = "endings_django" if kind == "django" else "endings"
    return run_server(kind, f"tests.support.apps.{name}:application", tls=tls)


@pytest.fixture(scope="module", params=WAYS, ids=IDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with start(*request.param) as running:
        yield running


def in_access_log(server: Server, path: str) -> bool:
    return f"GET {path} HTTP" in server.access_log()


def collect_until(server: Server, condition: Callable[[], Any]) -> None:
    """A request that collects garbage, which Werkzeug leaves of a view that raises."""
    wait_until(lambda: server.get("/") and condition(), what="the end of the connection")


def has_arrived(peer: Peer) -> bool:
    return bool(select.select([peer.sock], [], [], 0.02)[0])


def assert_echo(peer: Peer) -> None:
    for message in ("one", "two"):
        peer.send_text(message)
        assert peer.read_text() == message


@pytest.mark.parametrize("ending", RETURNS)
@pytest.mark.parametrize("copied", ["", "/copied"])
def test_a_view_that_returns(server: Server, ending: str, copied: str) -> None:
    """Whatever it returns, its listeners go on where the hub serves the connection."""
    path = f"{copied}/ws/{ending}"
    with Peer(server) as peer:
        peer.open(path)
        if KINDS[server.kind].gevent:
            wait_until(lambda: in_access_log(server, path), what="the end of the request")
        elif ending != "response":
            # Its thread is gone. Where the environ was a copy, that may be known before
            # there is a status, so that it looks like a failure.
            collect_until(server, lambda: has_arrived(peer))
            assert peer.read_close().close_code in ((1000, 1011) if copied else (1000,))
            peer.send_close()
            peer.read_eof()
            return
        assert_echo(peer)
        peer.finish()


@pytest.mark.parametrize("ending", FAILURES)
def test_a_view_that_is_thrown_out(server: Server, ending: str) -> None:
    if ending in FATAL.get(server.kind, ()):
        pytest.skip("the server ends with it")
    said = server.log().count("told of close")
    with Peer(server) as peer:
        peer.open(f"/ws/{ending}")
        collect_until(server, lambda: has_arrived(peer))
        assert peer.read_close().close_code == 1011
        peer.send_close(1011)
        peer.read_eof()
    wait_until(lambda: server.log().count("told of close") > said, what="the close event")


@pytest.mark.parametrize("kind", ["gunicorn-gevent_pywsgi", "pywsgi", "pywsgi-unpatched"])
def test_a_view_that_stops_its_server(kind: str) -> None:
    with start(kind) as server, Peer(server) as peer:
        peer.open("/ws/system_exit")
        assert peer.read_close().close_code in (1001, 1011)


@pytest.mark.parametrize("ending", RETURNS)
def test_a_stream_whose_view_returns(server: Server, ending: str) -> None:
    if not KINDS[server.kind].gevent:
        pytest.skip("its thread serves it")
    path = f"/es/{ending}"
    with Peer(server) as peer:
        assert peer.request(path).status == 200
        wait_until(lambda: in_access_log(server, path), what="the end of the request")
        assert server.get("/send/hello") == (200, b"1")
        assert b"data: hello" in read_until(peer, b"hello")
    wait_until(lambda: server.get("/send/nobody") == (200, b"0"))


@pytest.mark.parametrize("ending", FAILURES)
def test_a_stream_whose_view_is_thrown_out(server: Server, ending: str) -> None:
    if ending in FATAL.get(server.kind, ()):
        pytest.skip("the server ends with it")
    said = server.log().count("told of close")
    with Peer(server) as peer:
        assert peer.request(f"/es/{ending}").status == 200
        collect_until(server, lambda: server.log().count("told of close") > said)
        while peer.sock.recv(4096):
            pass


@pytest.mark.parametrize("second", ["w", "e"])
@pytest.mark.parametrize("first", ["ws", "es"])
def test_a_second_connection_of_a_request(server: Server, first: str, second: str) -> None:
    """It is refused, and the first one is left alone."""
    path = f"/twice/{first}.{second}"
    with Peer(server) as peer:
        if first == "es":
            assert peer.request(path).status == 200
            data = read_until(peer, b"")
            assert data.count(b"data: this request's connection has been taken") == 2
            return
        peer.open(path)
        for _ in range(2):
            assert peer.read_text().startswith("this request's connection has been taken")
        assert_echo(peer)
        peer.finish()


def read_until(peer: Peer, end: bytes) -> bytes:
    """Up to ``end``; without one, to the end of the stream."""
    data = b""
    while not end or end not in data:
        piece = peer.sock.recv(4096)
        if not piece:
            assert not end, data
            break
        data += piece
    return data


def test_nothing_is_counted_that_has_ended(server: Server) -> None:
    """After all of the above, and after each kind of end by the peer."""
    before = server.get("/count/served")
    for finish in (Peer.finish, Peer.close, reset, send_nonsense):
        with Peer(server) as peer:
            finish(peer.open("/ws/response"))
    for finish in (Peer.close, reset):
        with Peer(server) as peer:
            assert peer.request("/es/response").status == 200
            finish(peer)
    with Peer(server) as peer:
        assert peer.request("/ws/response", {"Origin": "http://elsewhere.example"}).status == 403
    wait_until(lambda: server.get("/count/served") == (200, b"0"), what=f"none of {before} is left")


def reset(peer: Peer) -> None:
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def send_nonsense(peer: Peer) -> None:
    peer.send(b"\xff" * 20)
    assert peer.read_close().close_code == 1002
    peer.close()


def test_a_listener_that_exits_stops_no_server(server: Server) -> None:
    pid = server.get("/")
    with Peer(server) as peer:
        peer.open("/ws/response")
        assert_echo(peer)
        peer.send_text("exit")
        assert peer.read_close().close_code == 1011
        peer.send_close(1011)
        peer.read_eof()
    assert server.get("/") == pid
