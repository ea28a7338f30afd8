"""TLS with the interface of a non-blocking socket.

``_ssl`` objects raise "want read" and "want write" where a socket raises BlockingIOError. The
danger is that they may hold decrypted bytes: the kernel has no more to read then, so that the hub
never calls the watcher, and the bytes would wait for ever. So the stream asks ``pending``.

``TlsSocket`` goes on with a session that a server has begun. ``BioSocket`` begins a session for
a client, between memory buffers, so that it works on any socket below: a native one, or another
``BioSocket`` (TLS through a proxy that speaks TLS itself).
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Union

from faye_wsgi.transport.stream import READ_SIZE

__all__ = ["BioSocket", "ClientTls", "TlsOption", "TlsSocket", "make_client_tls"]

_WOULD_BLOCK = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_AT_END = (ssl.SSLZeroReturnError, ssl.SSLEOFError)


class TlsSocket:
    """A native socket with the TLS session on it (``_ssl._SSLSocket``)."""

    __slots__ = ("_session", "_socket")

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
        except OSError as error:
            # Python 3.9 raises an OSError with number 0 for an end without close_notify.
            if not pieces and error.errno:
                raise
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

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

    def sendmsg(self, parts: Sequence[bytes]) -> int:
        """``send`` of several pieces, one after the other."""
        return _send_parts(self, parts)

    def pending(self) -> bool:
        """Whether decrypted bytes wait here, of which the kernel does not know."""
        return bool(self._session.pending())

    def shutdown_write(self) -> None:
        """Send close_notify and FIN; the other direction stays open."""
        self._notify_close()
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Send close_notify as far as the kernel takes it, and close the descriptor."""
        self._notify_close()
        self._socket.close()

    def forget(self, hub: Any) -> None:
        """In the child of a fork: close the descriptor, and leave the connection alone."""
        self._socket.close()

    def _notify_close(self) -> None:
        try:
            self._session.shutdown()
        except (OSError, ValueError):
            pass  # the peer's own close_notify is not waited for


class BioSocket:
    """A client's TLS session on a non-blocking socket, by way of memory buffers.

    ``send`` counts bytes as taken only when the kernel has taken their records. The caller must
    send the rest again, as the stream does: that pushes out the records that wait here.
    """

    __slots__ = ("_drained", "_encrypted", "_incoming", "_outgoing", "_session", "_socket", "_wire")

    def __init__(self, sock: Any, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._socket = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._wire = b""  # records that the socket has not taken
        self._encrypted = 0  # how many bytes of the user are in them, not yet counted as taken
        self._drained = True  # everything that was received has been decrypted and read

    def fileno(self) -> int:
        """The descriptor of the socket below."""
        fd: int = self._socket.fileno()
        return fd

    def do_handshake(self) -> None:
        """A step of the handshake; SSLWantReadError or SSLWantWriteError until it is done."""
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                self._flush_handshake()
                try:
                    self._fill()
                except BlockingIOError:
                    raise ssl.SSLWantReadError from None
            except ssl.SSLError:
                self._flush()  # the alert, from which the peer learns why
                raise
            else:
                self._drained = False  # what follows the handshake may be here already
                return self._flush_handshake()

    def _flush_handshake(self) -> None:
        if not self._flush():
            raise ssl.SSLWantWriteError

    def recv(self, size: int = READ_SIZE) -> bytes:
        """Decrypted bytes, as many records as are there up to ``size``; b'' at the end."""
        pieces: list[bytes] = []
        while size > 0:
            try:
                data = self._session.read(size)
            except ssl.SSLWantReadError:
                self._drained = True
                if pieces:
                    break
                self._fill()
            except _AT_END:
                break
            except OSError:
                if not pieces:
                    raise
                break
            else:
                if not data:
                    break
                pieces.append(data)
                size -= len(data)
                self._drained = False
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def send(self, data: bytes | bytearray) -> int:
        """Encrypt and send; how much of ``data`` was taken. The rest must be sent next."""
        taken = 0
        with memoryview(data) as view:
            while self._flush():
                taken += self._encrypted
                self._encrypted = 0
                if taken >= len(view):
                    return taken
                try:
                    with view[taken : taken + READ_SIZE] as piece:
                        self._encrypted = self._session.write(piece)
                except _WOULD_BLOCK:
                    break
        if not taken:
            raise BlockingIOError
        return taken

    def sendmsg(self, parts: Sequence[bytes]) -> int:
        """``send`` of several pieces, one after the other."""
        return _send_parts(self, parts)

    def pending(self) -> bool:
        """Whether bytes may wait here, of which the kernel does not know."""
        return not self._drained or bool(self._socket.pending())

    def shutdown_write(self) -> None:
        """Send close_notify and FIN; the other direction stays open."""
        self._notify_close()
        self._socket.shutdown_write()

    def close(self) -> None:
        """Send close_notify as far as the kernel takes it, and close the descriptor."""
        self._notify_close()
        self._socket.close()

    def forget(self, hub: Any) -> None:
        """In the child of a fork: close the descriptor, and leave the connection alone."""
        self._socket.forget(hub)

    def _fill(self) -> None:
        """Move what has arrived to the session; BlockingIOError if nothing has."""
        data = self._socket.recv(READ_SIZE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> bool:
        """Move records to the socket; whether all of them went."""
        try:
            while self._wire or self._outgoing.pending:
                self._wire = self._wire or self._outgoing.read()
                sent = self._socket.send(self._wire)
                self._wire = self._wire[sent:]
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def _notify_close(self) -> None:
        try:
            self._session.unwrap()
        except (OSError, ValueError):
            pass  # the peer's own close_notify is not waited for
        try:
            self._flush()
        except OSError:
            pass


TlsOption = Union[ssl.SSLContext, Mapping[str, Any], None]

_OPTIONS = frozenset(("ca", "cert", "key", "server_hostname", "verify"))


@dataclass(frozen=True)
class ClientTls:
    """How a client speaks TLS; ``server_hostname`` replaces the name in the URL."""

    context: ssl.SSLContext
    server_hostname: str | None = None


def make_client_tls(option: TlsOption = None) -> ClientTls:
    """The option ``tls``: certificates and names are verified, unless it says otherwise.

    TypeError or ValueError for a wrong value, OSError for files that cannot be read.
    """
    if isinstance(option, ssl.SSLContext):
        return ClientTls(option)
    if option is not None and not isinstance(option, Mapping):
        raise TypeError("tls is an ssl.SSLContext or a dict")
    options = dict(option or {})
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise TypeError(f"tls has no option {sorted(unknown)[0]!r}")
    hostname = options.pop("server_hostname", None)
    return ClientTls(_make_context(**options) if options else _default_context(), hostname)


@lru_cache(maxsize=1)
def _default_context() -> ssl.SSLContext:
    # Reading the system's certificates takes tens of milliseconds.
    return ssl.create_default_context()


def _make_context(
    ca: Any = None, cert: Any = None, key: Any = None, verify: bool = True
) -> ssl.SSLContext:
    if ca is None:
        context = ssl.create_default_context()
    elif isinstance(ca, str) and "-----BEGIN" in ca:
        context = ssl.create_default_context(cadata=ca)
    elif os.path.isdir(ca):
        context = ssl.create_default_context(capath=ca)
    else:
        context = ssl.create_default_context(cafile=ca)
    if cert is not None:
        context.load_cert_chain(cert, key)
    elif key is not None:
        raise ValueError("a key needs its cert")
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _send_parts(sock: Any, parts: Sequence[bytes]) -> int:
    taken = 0
    for part in parts:
        try:
            sent = sock.send(part)
        except BlockingIOError:
            if not taken:
                raise
            sent = 0
        taken += sent
        if sent < len(part):
            break
    return taken
