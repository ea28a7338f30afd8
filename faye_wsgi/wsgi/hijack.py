"""Taking a live socket from a WSGI server: the transplant, and the void.

The descriptor moves out of the server's socket object into one of ours, and a *void* takes its
place there. The server reads end-of-file from the void, and what it writes there is dropped, but
for the status of its response, which tells how the view has ended. So the server may write and
close as it likes: the peer sees none of it, and no descriptor is closed twice.

The danger is in what a server does with the socket after the view: it writes a response, shuts the
socket down, closes it, or reads the next request. That differs from server to server. What was
tried, and where it fails:

- raising StopIteration in the application: a traceback or 500 under gevent.pywsgi, gunicorn's
  gevent_pywsgi, Werkzeug and wsgiref, and through any middleware;
- returning ``[]`` without a call of ``start_response``: 500 almost everywhere;
- closing the server's socket, then 101: four servers write the 101 to the client all the same,
  the others log EBADF;
- leaving the server a descriptor that is closed: EBADF again;
- ``dup`` alone: gevent.pywsgi reads from its copy before it closes it, and so steals bytes of the
  peer; gunicorn 27 shuts down the writing side, which both copies share.

There are two kinds of void, for two kinds of socket objects. gevent's keeps the interpreter's
socket in an attribute, where any object with the same methods will do: ``Void``. The interpreter's
own is a descriptor and nothing else, so it gets one end of a socket pair: ``VoidPair``.

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

# The interpreter's sockets that were left with a VoidPair. Nothing else shows that they were taken.
_taken: weakref.WeakSet[Any] = weakref.WeakSet()

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass
class Taken:
    """A socket that is ours now, what the server had read from it, and the void we left there.

    With a ``Void`` the server runs on greenlets, so that the hub serves the connection when
    the view has returned. With a ``VoidPair`` it is served in the thread of its view.
    """

    socket: Any
    read_ahead: bytes
    void: Void | VoidPair


def take(place: Place) -> Taken:
    """Take the socket that a server keeps at ``place``.

    RuntimeError where it has been taken before; HijackError where it is of an unknown kind.
    """
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
        # With all four arguments: without the first three the interpreter asks the kernel for them.
        moved = PlainSocket(ours.family, ours.type, ours.proto, ours.detach())
        if _socket.getdefaulttimeout() is not None:
            # Under a default timeout a new socket waits in its calls, and the hub would wait there.
            moved.setblocking(False)
    else:
        sock._sslobj = None  # or the server would end the TLS session, and read from it
        moved = TlsSocket(ours, session)
    return Taken(moved, _read_ahead(place), void)


def _read_ahead(place: Place) -> bytes:
    """What the server has read from the socket and not used.

    A client may send its first frames in one segment with its handshake, and a client of
    hixie-76 sends 8 bytes of body. Both are in the server's buffers then.
    """
    if place.take_buffered is not None:
        return place.take_buffered()
    if place.reader is None:
        return b""
    # peek() reads from the socket where the buffer is empty. That is the void by now, which is
    # at its end: peek() neither waits nor takes what belongs to the new owner.
    size = len(place.reader.peek(1))
    data: bytes = place.reader.read(size) if size else b""
    return data


def _transplant_gevent(sock: Any, void: Void) -> Any:
    ours = sock._sock
    # Closes gevent's watchers of this descriptor, and leaves the descriptor itself open. A
    # watcher that stayed would be called for what is ours to read, and outlive the descriptor.
    sock._drop_events_and_close(closefd=False)
    sock._sock = void
    return ours


def _transplant_native(sock: Any, void: VoidPair) -> Any:
    _taken.add(sock)
    given = void.give()
    ours = _Pinned(fileno=sock.detach())
    ours.setblocking(False)
    # The same object on another descriptor: the server, and the files that it has made of its
    # socket, refer to the object.
    _socket.socket.__init__(sock, socket.AF_UNIX, socket.SOCK_STREAM, 0, given)
    sock._closed = False  # detach() has set it
    if getattr(sock, "_sslobj", None) is not None:
        # The TLS session has a weak reference to the server's socket object, and asks it for
        # its timeout. So the object must live as long as the session, and must not wait.
        sock.settimeout(0)
        ours.pin = sock
    return ours


class _Pinned(_socket.socket):
    """A native socket that keeps another object alive."""

    pin: Any = None


class Void:
    """What gevent's socket object is left with: a socket at its end, which drops what is sent.

    It has no descriptor. A socket pair was tried first: it cost each connection two descriptors
    and a watcher.
    """

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
        """Call ``done`` in the hub with the response's status when the server has closed."""
        self._done = done

    def send(self, data: Any, flags: int = 0) -> int:
        """Look for the status of the response, and drop the rest."""
        if self._status is None:
            self._status = _status_of(data)
        return memoryview(data).nbytes

    def recv(self, size: int, flags: int = 0) -> bytes:
        """End of file."""
        return b""

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        """End of file."""
        return 0

    def shutdown(self, how: int) -> None:
        """Do nothing."""

    def fileno(self) -> int:
        """As of a closed socket."""
        return -1

    def getsockopt(self, *args: Any) -> int:
        """0: gevent asks for the size of the send buffer, servers for errors."""
        return 0

    def setsockopt(self, *args: Any) -> None:
        """Do nothing."""

    def close(self) -> None:
        """The server has ended the request."""
        done, self._done = self._done, None
        if done is not None:
            self._hub.loop.run_callback(done, self._status)

    def __del__(self) -> None:
        # A server that drops its socket without closing it has ended the request, too. The danger:
        # garbage collection may call this in any thread, so that only the thread-safe call of the
        # loop is allowed. What else was tried: a weakref.finalize cannot see the status, which
        # goes with the void. Each connection would need a second object for it, and an entry in
        # the registry of finalizers.
        done, self._done = self._done, None
        loop = self._hub.loop
        if done is not None and loop is not None:
            loop.run_callback_threadsafe(done, self._status)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        # All other methods of a socket (getpeername, ...), which raise as those of a socket that
        # is not connected. Written out they would be some thirty, not the same in each Python.
        # Without them an AttributeError reaches the server, which logs a traceback; a closed
        # socket of the interpreter's in this place raises EBADF, which servers log as well.
        if name.startswith("__"):
            raise AttributeError(name)
        return _not_connected


def _not_connected(*args: Any, **values: Any) -> NoReturn:
    raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


class VoidPair:
    """A void with a descriptor: the server has one end, and what it writes is read at ours."""

    __slots__ = ("__weakref__", "_given", "_ours")

    def __init__(self) -> None:
        # From ``_socket``: under monkey patching ``socket`` makes gevent's sockets. Our writing
        # side is shut down, so that the server reads end-of-file. Our reading side stays open, so
        # that the server can write.
        self._ours, self._given = _socket.socketpair()
        self._ours.shutdown(socket.SHUT_WR)
        self._ours.setblocking(False)
        fork.watch(self)

    def forget(self, hub: Any) -> None:
        """In the child of a fork: close our end. The parent reads its bytes."""
        self._ours.close()

    def give(self) -> int:
        """The descriptor for the server."""
        fd: int = self._given.detach()
        return fd

    def finish(self) -> int | None:
        """Close our end; returns the response's status, None if the server wrote none."""
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
