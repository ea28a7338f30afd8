"""TLS with the manners of a non-blocking socket.

``_ssl`` objects say "want read" and "want write" where a socket says that it would
block, and may hold decrypted bytes that the kernel does not tell of.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from faye_wsgi.transport.stream import READ_SIZE

__all__ = ['TlsSocket']

_WOULD_BLOCK = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_AT_END = (ssl.SSLZeroReturnError, ssl.SSLEOFError)


class TlsSocket:
    """A native socket with the TLS session on it (``_ssl._SSLSocket``)."""

    __slots__ = ('_session', '_socket')

    def __init__(self, sock: Any, session: Any) -> None:
        self._socket = sock
        self._session = session

    def fileno(self) -> int:
        """The descriptor of the socket below."""
        fd: int = self._socket.fileno()
        return fd

    def recv(self, size: int = READ_SIZE) -> bytes:
        """Decrypted bytes, as many records as are there up to ``size``; b'' at the end."""
        pieces: list[bytes] = []
        try:
            while size > 0:
                data = self._session.read(size)
                if not data:
                    break
                pieces.append(data)
                size -= len(data)
        except _WOULD_BLOCK:
            if not pieces:
                raise BlockingIOError from None
        except _AT_END:
            pass
        except OSError:
            if not pieces:
                raise
        return b''.join(pieces) if len(pieces) != 1 else pieces[0]

    def send(self, data: bytes | bytearray) -> int:
        """Encrypt and send; how much of ``data`` was taken."""
        taken = 0
        view = memoryview(data)
        try:
            while taken < len(data):  # one record (16 KiB) at a time
                taken += self._session.write(view[taken:])
        except _WOULD_BLOCK:
            if not taken:
                raise BlockingIOError from None
        finally:
            view.release()
        return taken

    def pending(self) -> bool:
        """Whether decrypted bytes wait that the kernel does not tell of."""
        return bool(self._session.pending())

    def shutdown_write(self) -> None:
        """Send close_notify and FIN; the other direction stays open."""
        self._notify_close()
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Send close_notify as far as the kernel takes it, and close the descriptor."""
        self._notify_close()
        self._socket.close()

    def _notify_close(self) -> None:
        try:
            self._session.shutdown()
        except (OSError, ValueError):
            pass  # the peer's own close_notify is not waited for
