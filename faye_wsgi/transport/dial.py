"""Connecting: name look-up, TCP or a Unix socket, the proxy, TLS, the opening handshake.

All of it runs in the greenlet that ``begin`` makes, which waits through gevent's hub, within one
deadline. The danger is a descriptor that is never closed: an error, the deadline or a kill may stop
the greenlet at any place where it waits. So each function closes what it has opened, in an
``except BaseException`` or a ``finally``. The protocols themselves are sans-I/O, in
``faye_wsgi.driver`` and ``faye_wsgi.http``.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, TypeVar

import gevent
import gevent.event
import gevent.socket
from greenlet import getcurrent

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.client_handshake import Opened
from faye_wsgi.errors import HandshakeError
from faye_wsgi.http.proxy import ProxyHandshake
from faye_wsgi.http.url import Url
from faye_wsgi.transport import fork
from faye_wsgi.transport.connection import Connection
from faye_wsgi.transport.lateness import Deadline
from faye_wsgi.transport.stream import READ_SIZE, WRITE, PlainSocket, tune
from faye_wsgi.transport.tls import BioSocket, ClientTls

__all__ = [
    "Proxy",
    "begin",
    "dial",
    "exchange",
    "is_unknown",
    "is_unreachable",
    "is_unverified",
    "open_socket",
    "receive",
    "shake_hands",
    "within",
]

log = logging.getLogger("faye_wsgi")

HEAD_START = 0.25  # RFC 8305 §5: seconds that an address has before the next is tried too
BODY_TIMEOUT = 1.0  # seconds to wait for the next piece of a refusal's body

_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EINTR)
Address = tuple[Any, ...]
Result = TypeVar("Result")
Attempt = Callable[[], "tuple[Any, Opened]"]


@dataclass(frozen=True, repr=False)
class Proxy:
    """An HTTP proxy, which is asked with CONNECT; ``tls`` is for a proxy with an https URL."""

    url: Url
    headers: tuple[tuple[str, str], ...] = ()
    tls: ClientTls | None = None


# The greenlet


def begin(
    connection: Connection,
    attempt: Attempt,
    timeout: float | None,
    opened: Callable[[Opened], object],
    failed: Callable[[HandshakeError], object],
) -> None:
    """Run ``attempt`` in a greenlet of its own, and open ``connection`` with its result.

    ``opened`` is called before that, or ``failed`` instead. If the connection is closed before it
    is open, the greenlet is killed.
    """
    greenlet = gevent.spawn(_run, connection, attempt, timeout, opened, failed)
    connection.cancel = lambda: greenlet.kill(block=False)


def _run(
    connection: Connection,
    attempt: Attempt,
    timeout: float | None,
    opened: Callable[[Opened], object],
    failed: Callable[[HandshakeError], object],
) -> None:
    try:
        sock, result = within(timeout, attempt)
    except HandshakeError as error:
        failed(error)
        return
    if connection.state == ReadyState.CLOSED:  # closed meanwhile: the kill comes too late
        sock.close()
        return
    opened(result)
    connection.open(result.driver, sock, b"", result.left)


def within(timeout: float | None, attempt: Callable[[], Result]) -> Result:
    """The result of ``attempt``; HandshakeError when the time is up, too."""
    expiry = gevent.Timeout()  # which is not started: the deadline throws it
    deadline = None
    if timeout is not None:
        deadline = Deadline(gevent.get_hub(), timeout, partial(getcurrent().throw, expiry))
    try:
        return attempt()
    except gevent.Timeout as error:
        if error is not expiry:
            raise
        reason = f"the connection did not open within {timeout} seconds"
        raise HandshakeError(reason, code=1006) from None
    except HandshakeError:
        raise
    except Exception as error:  # a bug of ours: without this, ``receive`` would wait for ever
        log.exception("a connection could not be opened")
        raise HandshakeError(f"{type(error).__name__}: {error}", code=1006) from error
    finally:
        if deadline is not None:
            deadline.stop()


# What OpenSSL says where the answer is no TLS at all; which one depends on its version.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")


# The way to the server


def dial(url: Url, tls: Callable[[], ClientTls], proxy: Proxy | None = None) -> Any:
    """A non-blocking socket to the server of ``url``, through ``proxy``, with TLS for wss."""
    sock: Any = open_socket(url if proxy is None else proxy.url)
    try:
        if proxy is not None:
            if proxy.url.secure:
                assert proxy.tls is not None
                sock = _start_tls(sock, proxy.tls, proxy.url, "the proxy")
            exchange(sock, ProxyHandshake(proxy.url, url, proxy.headers))
        if url.secure:
            sock = _start_tls(sock, tls(), url, "the server")
    except BaseException:
        sock.close()
        raise
    return sock


def shake_hands(sock: Any, handshake: Any) -> Any:
    """The opening handshake on a new socket, which is closed if it fails; its result."""
    try:
        return exchange(sock, handshake)
    except BaseException:
        sock.close()
        raise


def exchange(sock: Any, step: Any) -> Any:
    """Send ``step.request``, and pass the answer to the step until it has its result."""
    try:
        _send_all(sock, step.request)
    except OSError as error:
        raise _io_error("the request could not be sent", error) from None
    while True:
        try:
            data = receive(sock, BODY_TIMEOUT if step.is_refused else None)
        except OSError as error:
            if step.is_refused:
                raise step.receive_eof() from None
            raise _io_error("there was no answer", error) from None
        if not data:
            raise step.receive_eof()
        result = step.receive_data(data)
        if result is not None:
            return result


def _start_tls(sock: Any, tls: ClientTls, url: Url, peer: str) -> BioSocket:
    host = tls.server_hostname or url.host.partition("%")[0]
    try:
        session = BioSocket(sock, tls.context, host)
        _wait_for(session, session.do_handshake, None)
        return session
    except (OSError, ValueError) as error:
        if getattr(error, "reason", None) in _NO_TLS:
            reason = f"{peer} does not speak TLS at {url.authority}: write {_plain(url)}://"
            raise HandshakeError(reason, code=1006) from None
        cause = error if isinstance(error, ssl.SSLError) else None
        raise _io_error(f"TLS with {peer} failed", error) from cause


def _plain(url: Url) -> str:
    return url.scheme[:-1]


# Why there was no answer is known by the cause of the error.


def is_unknown(error: HandshakeError) -> bool:
    """Whether the name of the server or proxy was not found."""
    return isinstance(error.__cause__, socket.gaierror)


def is_unreachable(error: HandshakeError) -> bool:
    """Whether there was no connection to the server or proxy."""
    cause = error.__cause__
    return isinstance(cause, OSError) and not isinstance(cause, (socket.gaierror, ssl.SSLError))


def is_unverified(error: HandshakeError) -> bool:
    """Whether the certificate of the server or proxy was refused."""
    return isinstance(error.__cause__, ssl.SSLCertVerificationError)


def _send_all(sock: Any, data: bytes) -> None:
    send = sock.send
    while data:
        data = data[_wait_for(sock, partial(send, data), None, writing=True) :]


def receive(sock: Any, timeout: float | None) -> bytes:
    """The next bytes, b'' at the end; OSError, also after ``timeout`` seconds."""
    data: bytes = _wait_for(sock, partial(sock.recv, READ_SIZE), timeout)
    return data


def _wait_for(
    sock: Any, call: Callable[[], Result], timeout: float | None, writing: bool = False
) -> Result:
    """Repeat a non-blocking call until it does not raise that it would block; its result."""
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            gevent.socket.wait_read(sock.fileno(), timeout)
        except ssl.SSLWantWriteError:
            gevent.socket.wait_write(sock.fileno(), timeout)
        except (BlockingIOError, InterruptedError):
            wait = gevent.socket.wait_write if writing else gevent.socket.wait_read
            wait(sock.fileno(), timeout)


def _io_error(what: str, error: Exception) -> HandshakeError:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"the certificate is not valid: {error.verify_message}"
    elif isinstance(error, ssl.SSLEOFError):
        why = "the other side ended the connection"
    else:
        why = getattr(error, "strerror", None) or str(error)
    return HandshakeError(f"{what}: {why}", code=1006)


# The socket


def open_socket(url: Url) -> PlainSocket:
    """A connected, non-blocking socket to the host (or Unix socket) of ``url``."""
    if url.path:
        return _race([(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", url.path)], url.path)
    try:
        found = gevent.socket.getaddrinfo(url.host, url.port, 0, socket.SOCK_STREAM)
    except OSError as error:
        raise _io_error(f"the host {url.host} was not found", error) from error
    return _race(_interleave(found), url.authority)


def _interleave(addresses: Iterable[Address]) -> list[Address]:
    """IPv6 and IPv4 in turns, in the resolver's order (RFC 8305 §4)."""
    families: dict[int, deque[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], deque()).append(address)
    mixed: list[Address] = []
    while families:
        for family in list(families):
            mixed.append(families[family].popleft())
            if not families[family]:
                del families[family]
    return mixed


def _race(addresses: list[Address], name: str) -> PlainSocket:
    """The first socket that connects; a slow address does not delay the next (RFC 8305)."""
    waiting = deque(addresses)
    runners: list[_Runner] = []
    changed = gevent.event.Event()
    last = errno.EADDRNOTAVAIL
    try:
        while waiting or runners:
            if waiting:
                runners.append(_Runner(waiting.popleft(), changed.set))
            changed.wait(HEAD_START if waiting else None)
            changed.clear()
            for runner in [runner for runner in runners if runner.error is not None]:
                runners.remove(runner)
                if runner.error == 0:
                    return runner.take()
                last = runner.error or 0
                runner.close()
    finally:
        for runner in runners:
            runner.close()
    cause = OSError(last, os.strerror(last))
    raise _io_error(f"{name} could not be connected to", cause) from cause


class _Runner:
    """An attempt at one address; ``error`` is None while it lasts, 0 once it is connected."""

    def __init__(self, address: Address, tell: Callable[[], object]) -> None:
        family, kind, protocol, _, place = address
        self.error: int | None = None
        self._tell = tell
        self._socket: PlainSocket | None = None
        self._watcher: Any = None
        try:
            self._socket = PlainSocket(family, kind, protocol)
            fork.watch(self._socket)
            self._socket.setblocking(False)
            self._start(self._socket.connect_ex(place))
        except OSError as error:  # no such family here, or too many descriptors
            self._end(error.errno or errno.EINVAL)

    def _start(self, error: int) -> None:
        assert self._socket is not None
        if error not in _IN_PROGRESS:
            self._end(error)
            return
        loop = gevent.get_hub().loop
        self._watcher = loop.io(self._socket.fileno(), WRITE)
        self._watcher.start(self._writable)

    def _writable(self) -> None:
        assert self._socket is not None
        self._watcher.stop()
        self._end(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _end(self, error: int) -> None:
        self.error = error
        self._tell()

    def take(self) -> PlainSocket:
        """The socket, connected."""
        sock, self._socket = self._socket, None
        self.close()
        assert sock is not None
        tune(sock)
        return sock

    def close(self) -> None:
        """Close the watcher, and the socket unless it was taken."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
