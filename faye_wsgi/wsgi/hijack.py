"""Taking a live socket out of a WSGI server's hands: the transplant, and the void.

The connection moves out of the server's socket object into one of ours, and a *void* takes
its place there: the server reads end-of-file from it, and what it writes there vanishes,
but for the status of its response, by which we learn how the view ended. So the server may
do what it likes with its object, and nothing is closed twice.

gevent's socket object keeps the real one in an attribute, and any object that answers the
same calls will do there: ``Void``. The interpreter's is a descriptor itself, and gets one
end of a socket pair: ``VoidPair``.

The private attributes of gevent's and the interpreter's sockets are touched here only.
"""

from __future__ import annotations

import _socket
import errno
import os
import re
import socket
import weakref
from dataclasses import dataclass
from typing import Any, Callable, NoReturn

import gevent
import gevent.socket

from faye_wsgi.errors import HijackError
from faye_wsgi.transport import fork
from faye_wsgi.transport.stream import READ_SIZE, PlainSocket, tune
from faye_wsgi.transport.tls import TlsSocket
from faye_wsgi.wsgi.servers import Place

__all__ = ["Taken", "Void", "VoidPair", "take"]

# The interpreter's sockets that were left with a VoidPair, which look as they did.
_taken: weakref.WeakSet[Any] = weakref.WeakSet()

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass
class Taken:
    """A connection that is ours, what the server had read of it, and what we left there.

    Where it is a ``Void``, the server runs on greenlets, so that the hub goes on serving
    when the view has returned; else the connection lives in the thread of its view.
    """

    socket: Any
    read_ahead: bytes
    void: Void | VoidPair


def take(place: Place) -> Taken:
    """Move the connection that a server keeps at ``place`` into our own hands."""
    sock = place.socket
    cooperative = isinstance(sock, gevent.socket.socket)
    if not cooperative and not isinstance(sock, _socket.socket):
        raise HijackError(f"{place.server} has a socket of its own kind, {type(sock)}")
    if cooperative and isinstance(sock._sock, Void) or not cooperative and sock in _taken:
        raise RuntimeError(
            "this request's connection has been taken: a request has one WebSocket or "
            "EventSource (a decorator has made it already)"
        )
    session = getattr(sock, "_sslobj", None)
    void: Void | VoidPair
    if cooperative:
        void = Void(sock.hub)
        ours = _transplant_gevent(sock, void)
    else:
        void = VoidPair()
        ours = _transplant_native(sock, void)
    tune(ours)
    moved: Any
    if session is None:
        # All four, or the interpreter asks the kernel for three of them.
        moved = PlainSocket(ours.family, ours.type, ours.proto, ours.detach())
        if _socket.getdefaulttimeout() is not None:
            moved.setblocking(False)
    else:
        sock._sslobj = None
        moved = TlsSocket(ours, session)
    return Taken(moved, _read_ahead(place), void)


def _read_ahead(place: Place) -> bytes:
    """What the server has read of the connection, and not used."""
    if place.take_buffered is not None:
        return place.take_buffered()
    if place.reader is None:
        return b""
    # An empty buffer is filled from the void: with nothing, at once.
    size = len(place.reader.peek(1))
    data: bytes = place.reader.read(size) if size else b""
    return data


def _transplant_gevent(sock: Any, void: Void) -> Any:
    ours = sock._sock
    sock._drop_events_and_close(closefd=False)  # its watchers; the descriptor lives on
    sock._sock = void
    return ours


def _transplant_native(sock: Any, void: VoidPair) -> Any:
    _taken.add(sock)
    given = void.give()
    ours = _Pinned(fileno=sock.detach())
    ours.setblocking(False)
    _socket.socket.__init__(sock, socket.AF_UNIX, socket.SOCK_STREAM, 0, given)
    sock._closed = False  # detach() has set it
    if getattr(sock, "_sslobj", None) is not None:
        # The TLS session asks this object, which it knows by a weak reference, whether
        # it may wait; and it must outlive the session.
        sock.settimeout(0)
        ours.pin = sock
    return ours


class _Pinned(_socket.socket):
    """A native socket that keeps another object alive."""

    pin: Any = None


class Void:
    """What gevent's socket object is left with: at its end, and it drops what is sent."""

    __slots__ = ("__weakref__", "_done", "_hub", "_status")

    family = socket.AF_UNIX
    type = socket.SOCK_STREAM
    proto = 0
    timeout = 0.0

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._status: int | None = None
        self._done: Callable[[int | None], None] | None = None

    def watch(self, done: Callable[[int | None], None]) -> None:
        """``done`` gets the response's status, in the hub, when the server has closed."""
        self._done = done

    def send(self, data: Any, flags: int = 0) -> int:
        """Look for the status of the response, and take all."""
        if self._status is None:
            self._status = _status_of(data)
        return memoryview(data).nbytes

    def recv(self, size: int, flags: int = 0) -> bytes:
        """The end."""
        return b""

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        """The end."""
        return 0

    def shutdown(self, how: int) -> None:
        """Nothing is there to be shut down."""

    def fileno(self) -> int:
        """As of a closed socket."""
        return -1

    def getsockopt(self, *args: Any) -> int:
        """0: gevent asks for the size of the send buffer, servers for errors."""
        return 0

    def setsockopt(self, *args: Any) -> None:
        """Nothing is there to be set."""

    def close(self) -> None:
        """The server has ended the request."""
        done, self._done = self._done, None
        if done is not None:
            self._hub.loop.run_callback(done, self._status)

    def __del__(self) -> None:
        # A server that forgets its socket has ended the request, too; in any thread.
        done, self._done = self._done, None
        loop = self._hub.loop
        if done is not None and loop is not None:
            loop.run_callback_threadsafe(done, self._status)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _not_connected


def _not_connected(*args: Any, **values: Any) -> NoReturn:
    raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


class VoidPair:
    """The same with a descriptor: what the server writes to it can be read here."""

    __slots__ = ("__weakref__", "_given", "_ours")

    def __init__(self) -> None:
        self._ours, self._given = _socket.socketpair()  # native, even where that is patched
        self._ours.shutdown(socket.SHUT_WR)
        self._ours.setblocking(False)
        fork.watch(self)

    def forget(self, hub: Any) -> None:
        """In the child of a fork: what the server writes is the parent's to read."""
        self._ours.close()

    def give(self) -> int:
        """The descriptor for the server."""
        fd: int = self._given.detach()
        return fd

    def finish(self) -> int | None:
        """Read what is there, close, and return the response's status, None if there was none."""
        status = None
        try:
            data = self._ours.recv(READ_SIZE)
            while data:
                status = _status_of(data) if status is None else status
                data = self._ours.recv(READ_SIZE)
        except OSError:
            pass
        self._ours.close()
        return status


def _status_of(data: Any) -> int | None:
    match = _STATUS.match(data)
    return int(match.group(1)) if match else None
