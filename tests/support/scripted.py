"""Servers and proxies that do what a test says, in the hub of the test's own thread.

A script is a function of a gevent socket and of the server. For real servers see servers.py.
"""

from __future__ import annotations

import contextlib
import gc
import os
import ssl
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import gevent.socket
import gevent.ssl
from gevent.server import StreamServer

from . import frames
from .certs import Certificates

Script = Callable[[Any], object]


class Scripted:
    """A running server; `heads` are the requests that it has read."""

    def __init__(self, server: StreamServer, scheme: str) -> None:
        self.host, self.port = "127.0.0.1", server.server_port
        self.scheme = scheme
        self.connections = 0
        self.heads: list[bytes] = []

    def url(self, path: str = "/") -> str:
        return f"{self.scheme}://{self.host}:{self.port}{path}"


def server_context(
    certificates: Certificates, ask_for_certificate: bool = False
) -> gevent.ssl.SSLContext:
    """A context whose handshakes do not stop the hub."""
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    if ask_for_certificate:
        context.load_verify_locations(certificates.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextlib.contextmanager
def scripted(
    script: Callable[..., object],
    tls: gevent.ssl.SSLContext | None = None,
    scheme: str = "ws",
    timeout: float = 10.0,
) -> Iterator[Scripted]:
    """Run `script(sock, server)` for each connection, which is closed after it."""

    def handle(sock: Any, address: Any) -> None:
        sock.settimeout(timeout)
        running.connections += 1
        with contextlib.suppress(OSError, EOFError), sock:
            script(sock, running)
            with contextlib.suppress(OSError):  # FIN, and not RST for what was not read
                sock.shutdown(gevent.socket.SHUT_WR)
                while sock.recv(65536):
                    pass

    options = {} if tls is None else {"ssl_context": tls}
    server = StreamServer(("127.0.0.1", 0), handle, **options)
    server.start()
    running = Scripted(server, scheme + ("s" if tls else ""))
    try:
        yield running
    finally:
        server.stop(timeout=1)


def read_head(sock: Any) -> bytes:
    """A request's head, and not a byte more."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += frames.read_exactly(sock, 1)
    return data


def header(head: bytes, name: str) -> str | None:
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def good_answer(head: bytes, *more: str) -> bytes:
    accept = frames.accept(header(head, "Sec-WebSocket-Key") or "")
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def says(answer: bytes | Callable[[bytes], bytes]) -> Callable[..., None]:
    """The script of a server that reads one request and says this."""

    def script(sock: Any, server: Scripted) -> None:
        head = read_head(sock)
        server.heads.append(head)
        sock.sendall(answer(head) if callable(answer) else answer)

    return script


def echo(sock: Any, server: Scripted) -> None:
    """The script of a whole server: it sends back what it gets, until a close frame."""
    head = read_head(sock)
    server.heads.append(head)
    sock.sendall(good_answer(head))
    while True:
        frame = frames.read_frame(sock)
        sock.sendall(frames.frame(frame.opcode, frame.payload, mask=None))
        if frame.opcode == frames.CLOSE:
            return


def proxy(
    answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n", piece: int = 1 << 20
) -> Callable[..., None]:
    """The script of a proxy: it answers in pieces, and connects where it said 200."""

    def script(sock: Any, server: Scripted) -> None:
        head = read_head(sock)
        server.heads.append(head)
        for start in range(0, len(answer), piece):
            sock.sendall(answer[start : start + piece])
            gevent.sleep(0.001)
        if answer.split(b" ", 2)[1].startswith(b"2"):
            host, _, port = head.split()[1].decode().rpartition(":")
            with gevent.socket.create_connection((host.strip("[]"), int(port))) as onward:
                forward = gevent.spawn(pump, sock, onward)
                pump(onward, sock)
                forward.kill()

    return script


def pump(source: Any, destination: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            destination.sendall(data)
    with contextlib.suppress(OSError):
        destination.shutdown(gevent.socket.SHUT_WR)


# What is left


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def greenlets() -> int:
    gc.collect()
    return sum(
        1
        for thing in gc.get_objects()
        if issubclass(type(thing), gevent.Greenlet) and not thing.dead
    )
