"""The transplant, and each private name of gevent, gunicorn and the interpreter that it needs.

A release that renames one of them fails here first, and by its name.
"""

from __future__ import annotations

import inspect
import io
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.pywsgi
import gevent.socket
import gevent.ssl
import pytest

from faye_wsgi.errors import HijackError
from faye_wsgi.transport.stream import PlainSocket
from faye_wsgi.transport.tls import TlsSocket
from faye_wsgi.wsgi import servers
from faye_wsgi.wsgi.hijack import Void, VoidPair, take
from faye_wsgi.wsgi.servers import Place

from ..support.certs import Certificates
from ..transport.harness import TIMEOUT, is_open, until


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT)
    yield ours, theirs
    for sock in (ours, theirs):
        sock.close()


# Private names


@pytest.mark.parametrize(
    "name", ["_sock", "_io_refs", "_drop_events_and_close", "timeout", "_closed"]
)
def test_gevents_socket_has(name: str) -> None:
    with gevent.socket.socket() as sock:
        assert hasattr(sock, name), f"gevent.socket.socket.{name}"


def test_gevents_drop_events_and_close_leaves_the_descriptor_when_told() -> None:
    drop = gevent.socket.socket._drop_events_and_close
    assert "closefd" in inspect.signature(drop).parameters
    with socket.socket() as native:
        sock = gevent.socket.socket(fileno=native.detach())
        fd, ours = sock.fileno(), sock._sock
        drop(sock, closefd=False)
        assert is_open(fd)
        ours.close()


def test_gevents_socket_takes_another_object_for_its_native_one() -> None:
    sock = gevent.socket.socket()
    ours = sock._sock
    sock._drop_events_and_close(closefd=False)
    void = sock._sock = Void(gevent.get_hub())
    told: list[Any] = []
    void.watch(told.append)
    sock.settimeout(7)
    sock.setblocking(True)
    sock.sendall(b"HTTP/1.1 204 No\r\n" + b"x" * 500_000)
    assert sock.send(memoryview(b"xy")) == 2
    assert sock.recv(1) == b"" and sock.recv_into(bytearray(1)) == 0
    with sock.makefile("rb") as reader:
        assert reader.read() == b""
    sock.shutdown(socket.SHUT_RDWR)
    assert (sock.family, sock.fileno()) == (socket.AF_UNIX, -1)
    with pytest.raises(OSError, match="not connected"):
        sock.getpeername()
    assert not told
    sock.close()
    until(lambda: told)
    assert told == [204]
    ours.close()


def test_the_interpreters_socket_has_a_mark_for_closed() -> None:
    sock = socket.socket()
    PlainSocket(fileno=sock.detach()).close()
    assert sock._closed is True, "socket.socket._closed, which detach() sets"  # type: ignore[attr-defined]


def test_tls_sockets_keep_their_session_where_we_look(certificates: Certificates) -> None:
    wrapped, peer = gevent_tls(certificates)
    for name in ("read", "write", "pending", "shutdown"):
        assert callable(getattr(wrapped._sslobj, name)), f"_sslobj.{name}"
    wrapped.close()
    peer.close()


@pytest.mark.parametrize("name", ["run_callback", "run_callback_threadsafe", "io", "timer"])
def test_gevents_loop_has(name: str) -> None:
    assert callable(getattr(gevent.get_hub().loop, name)), f"loop.{name}"


def test_gevent_tells_whether_a_thread_has_a_hub() -> None:
    assert gevent._hub_local.get_hub_if_exists() is gevent.get_hub()
    found: list[Any] = []
    pool = gevent.get_hub().threadpool
    pool.apply(lambda: found.append(gevent._hub_local.get_hub_if_exists()))
    assert found == [None] or found[0] is not gevent.get_hub()


def test_pywsgis_request_has_its_file_below_its_input() -> None:
    body = gevent.pywsgi.Input(io.BytesIO(b""), 0)
    assert hasattr(body, "rfile"), "gevent.pywsgi.Input.rfile"


def test_pywsgi_names_itself() -> None:
    assert gevent.pywsgi.WSGIServer.base_env["SERVER_SOFTWARE"].startswith("gevent/")


def test_the_file_of_a_gevent_socket_leads_back_to_it() -> None:
    one, other = gevent.socket.socketpair()
    with one.makefile("rb", -1) as reader:
        assert reader.raw._sock is one, "makefile().raw._sock"
        assert callable(reader.peek)
    one.close()
    other.close()


def test_the_file_of_a_native_socket_leads_back_to_it(ends: Any) -> None:
    with ends[0].makefile("rb", -1) as reader:
        assert reader.raw._sock is ends[0], "makefile().raw._sock"


def test_gunicorns_unreader_gives_what_it_has_read() -> None:
    unreader_module = pytest.importorskip("gunicorn.http.unreader")
    unreader = unreader_module.IterUnreader(iter([b"abc"]))
    unreader.unread(b"read ahead")
    assert servers._take_buffered(unreader) == b"read ahead"
    assert servers._take_buffered(unreader) == b""
    assert unreader.read() == b"abc", "and nothing twice"


def test_gunicorns_request_leads_to_the_unreader() -> None:
    body = pytest.importorskip("gunicorn.http.body")
    reader = body.LengthReader("unreader", 0)
    assert body.Body(reader).reader is reader, "wsgi.input.reader"
    assert reader.unreader == "unreader", "wsgi.input.reader.unreader"


# Adapters on environs that are none of theirs


@pytest.mark.parametrize("locate", servers._SERVERS)
def test_an_unknown_server_is_not_recognised(locate: Any) -> None:
    assert locate({"SERVER_SOFTWARE": "other/1"}) is None


def test_a_socket_of_another_kind_is_refused() -> None:
    with pytest.raises(HijackError, match="somebody"):
        take(Place("somebody", object()))


# The transplant


def test_a_native_socket_moves(ends: Any) -> None:
    served, peer = ends
    fd = served.fileno()
    taken = take(Place("test", served))
    assert isinstance(taken.void, VoidPair) and taken.socket.fileno() == fd
    check_moved(taken, served, peer)


def test_a_gevent_socket_moves(ends: Any) -> None:
    native, peer = ends
    served = gevent.socket.socket(fileno=native.detach())
    served.settimeout(7)
    file = served.makefile("rb")
    taken = take(Place("test", served))
    assert isinstance(taken.void, Void) and served.timeout == 7
    file.close()
    check_moved(taken, served, peer)


def check_moved(taken: Any, served: Any, peer: Any) -> None:
    told: list[Any] = []
    if isinstance(taken.void, Void):
        taken.void.watch(told.append)
    served.sendall(b"HTTP/1.1 200 OK\r\n\r\nwhat the server says now")
    assert served.recv(10) == b"", "its end of file"
    served.close()
    taken.socket.send(b"ours")
    assert peer.recv(100) == b"ours", "and nothing of the server's"
    peer.sendall(b"theirs")
    assert taken.socket.recv(100) == b"theirs"
    if isinstance(taken.void, VoidPair):
        told.append(taken.void.finish())
    until(lambda: told)
    assert told == [200]
    taken.socket.close()
    assert peer.recv(1) == b""


def gevent_tls(certificates: Certificates) -> tuple[Any, Any]:
    server, client = gevent.socket.socketpair()
    ours = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificates.cert, certificates.key)
    theirs = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.load_verify_locations(certificates.ca)
    handshake = gevent.spawn(ours.wrap_socket, server, server_side=True)
    peer = theirs.wrap_socket(client, server_hostname="localhost")
    peer.settimeout(TIMEOUT)
    return handshake.get(timeout=TIMEOUT), peer


def test_a_gevent_tls_socket_moves_with_its_session(certificates: Certificates) -> None:
    served, peer = gevent_tls(certificates)
    taken = take(Place("test", served))
    assert isinstance(taken.socket, TlsSocket) and served._sslobj is None
    check_moved(taken, served, peer)
    peer.close()


def test_the_default_timeout_of_sockets_is_not_ours(ends: Any) -> None:
    """Nothing may wait in the hub, whatever the application has told the interpreter."""
    sock = gevent.socket.socket(fileno=ends[0].detach())
    socket.setdefaulttimeout(TIMEOUT)
    try:
        moved = take(Place("test", sock)).socket
    finally:
        socket.setdefaulttimeout(None)
    with pytest.raises(BlockingIOError):
        moved.recv(1)
    moved.close()


def test_what_the_server_has_read_ahead_comes_along(ends: Any) -> None:
    served, peer = ends
    peer.sendall(b"request" + b"frames")
    with served.makefile("rb") as reader:
        assert reader.read(7) == b"request"
        served.settimeout(3)
        taken = take(Place("test", served, reader=reader))
        assert taken.read_ahead == b"frames"
    taken.void.finish()
    taken.socket.close()


def test_nothing_read_ahead_is_not_waited_for(ends: Any) -> None:
    served, peer = ends
    with served.makefile("rb") as reader:
        with gevent.Timeout(1):
            assert take_and_close(Place("test", served, reader=reader)) == b""


def take_and_close(place: Place) -> bytes:
    taken = take(place)
    taken.void.finish()
    taken.socket.close()
    return bytes(taken.read_ahead)


# The void


def test_the_void_tells_how_the_view_ended() -> None:
    void = Void(gevent.get_hub())
    told: list[Any] = []
    void.watch(told.append)
    void.send(b"HTTP/1.0 500 Oh\r\n")
    void.send(b"HTTP/1.0 200 and more of it\r\n")
    void.close()
    assert told == [], "it tells in the hub"
    void.close()
    until(lambda: told)
    assert told == [500]


def test_a_void_that_is_forgotten_tells_too() -> None:
    void: Any = Void(gevent.get_hub())
    told: list[Any] = []
    void.watch(told.append)
    gevent.get_hub().threadpool.apply(void.send, (b"HTTP/1.1 201 \r\n",))
    void = None
    until(lambda: told)
    assert told == [201]


def test_a_pair_tells_how_the_view_ended() -> None:
    void = VoidPair()
    given = socket.socket(fileno=void.give())
    given.sendall(b"HTTP/1.0 500 Oh\r\n" + b"x" * 70_000)
    given.close()
    assert void.finish() == 500


def test_a_pair_that_nobody_wrote_to() -> None:
    void = VoidPair()
    given = socket.socket(fileno=void.give())
    assert given.recv(1) == b""
    given.close()
    assert void.finish() is None
