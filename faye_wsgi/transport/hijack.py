"""Taking a live socket out of a WSGI server's hands: the transplant, and the void.

The connection moves out of the server's socket object into one of ours, and the server's
is initialised again on a *void*: it reads end-of-file from it, and what it writes there
vanishes, but for the status of its response, by which we learn how the view ended. So
the server may do what it likes with its object, and nothing is closed twice.

The private attributes of gevent's and the interpreter's sockets are touched here only.
"""

from __future__ import annotations

import _socket
import re
import socket
from dataclasses import dataclass
from typing import Any, Callable

import gevent
import gevent.socket

from faye_wsgi.adapters.base import Place
from faye_wsgi.errors import HijackError
from faye_wsgi.transport.stream import READ, READ_SIZE, PlainSocket, tune
from faye_wsgi.transport.tls import TlsSocket

__all__ = ['Taken', 'Void', 'take']

_STATUS = re.compile(rb'HTTP/1\.[01] (\d{3})')


@dataclass
class Taken:
    """A connection that is ours, what the server had read of it, and what we left there.

    ``cooperative``: the server runs on greenlets, so that the hub goes on serving when
    the view has returned; else the connection lives in the thread of its view.
    """

    socket: Any
    read_ahead: bytes
    void: Void
    cooperative: bool


def take(place: Place) -> Taken:
    """Move the connection that a server keeps at ``place`` into our own hands."""
    sock = place.socket
    cooperative = isinstance(sock, gevent.socket.socket)
    if not cooperative and not isinstance(sock, _socket.socket):
        raise HijackError(f'{place.server} has a socket of its own kind, {type(sock)}')
    read_ahead = place.take_buffered() if place.take_buffered is not None else b''
    if place.reader is not None:
        read_ahead = _drain(place.reader, sock)
    void = Void()
    session = getattr(sock, '_sslobj', None)
    ours = _transplant_gevent(sock, void) if cooperative else _transplant_native(sock, void)
    tune(ours)
    if session is None:
        return Taken(PlainSocket(fileno=ours.detach()), read_ahead, void, cooperative)
    sock._sslobj = None
    return Taken(TlsSocket(ours, session), read_ahead, void, cooperative)


def _drain(reader: Any, sock: Any) -> bytes:
    # peek(1) would wait for the peer where the buffer is empty: it is told not to.
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        size = len(reader.peek(1))
        data: bytes = reader.read(size) if size else b''
        return data
    except OSError:
        return b''
    finally:
        sock.settimeout(timeout)


def _transplant_gevent(sock: Any, void: Void) -> Any:
    ours, references, timeout = sock._sock, sock._io_refs, sock.timeout
    sock._drop_events_and_close(closefd=False)  # its watchers; the descriptor lives on
    gevent.socket.socket.__init__(sock, fileno=void.give())
    sock._io_refs, sock.timeout = references, timeout
    return ours


def _transplant_native(sock: Any, void: Void) -> Any:
    given = void.give()
    ours = _Pinned(fileno=sock.detach())
    ours.setblocking(False)
    _socket.socket.__init__(sock, socket.AF_UNIX, socket.SOCK_STREAM, 0, given)
    sock._closed = False  # detach() has set it
    if getattr(sock, '_sslobj', None) is not None:
        # The TLS session asks this object, which it knows by a weak reference, whether
        # it may wait; and it must outlive the session.
        sock.settimeout(0)
        ours.pin = sock
    return ours


class _Pinned(_socket.socket):
    """A native socket that keeps another object alive."""

    pin: Any = None


class Void:
    """What a server is left with: a socket at its end, whose writes are read and dropped."""

    __slots__ = ('_done', '_given', '_ours', '_status', '_watcher')

    def __init__(self) -> None:
        self._ours, self._given = _socket.socketpair()  # native, even where that is patched
        self._ours.shutdown(socket.SHUT_WR)
        self._ours.setblocking(False)
        self._status: int | None = None
        self._done: Callable[[int | None], None] | None = None
        self._watcher: Any = None

    def give(self) -> int:
        """The descriptor for the server."""
        fd: int = self._given.detach()
        return fd

    def watch(self, done: Callable[[int | None], None]) -> None:
        """Read in the hub; ``done`` gets the response's status when the server has closed."""
        self._done = done
        self._watcher = gevent.get_hub().loop.io(self._ours.fileno(), READ)
        self._watcher.start(self._readable)

    def finish(self) -> int | None:
        """Read what is there, close, and return the response's status, None if there was none."""
        self._read()
        self._close()
        return self._status

    def _readable(self) -> None:
        if self._read():
            self._close()
            done, self._done = self._done, None
            if done is not None:
                done(self._status)

    def _read(self) -> bool:
        """Read all that is there; whether the server has closed its end."""
        try:
            while True:
                data = self._ours.recv(READ_SIZE)
                if not data:
                    return True
                match = _STATUS.match(data) if self._status is None else None
                if match:
                    self._status = int(match.group(1))
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
        self._ours.close()
