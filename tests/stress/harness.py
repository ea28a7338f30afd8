"""Many clients in one process: greenlets, each with a raw socket and bounded waits."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any, Callable

import gevent
import gevent.pool
import gevent.socket

from ..support import frames
from ..support.servers import Server

APP = "tests.stress.app:application"
TIMEOUT = 20.0
# The messages at which tests/stress/failing.py has no memory left.
IN_A_READ = "no memory in a read"
IN_A_PONG = b"no memory in a pong"
NO_MASK = b"\0\0\0\0"  # a masking key as good as any, and cheap for large payloads


class Client:
    """One raw connection; what it reads ahead it keeps."""

    def __init__(self, server: Server, timeout: float = TIMEOUT) -> None:
        self.server = server
        self.sock = gevent.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(server.address)
        self.ahead = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def request(self, path: str, headers: frames.Headers | None = None, **options: Any) -> int:
        """Sends a handshake; the status of the answer."""
        host = self.server.host_header
        self.send(frames.handshake(path, host=host, headers=headers, **options))
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65536)
            if not piece:
                raise EOFError(f"no answer to a handshake: {data!r}")
            data += piece
        head, _, self.ahead = data.partition(b"\r\n\r\n")
        return int(head.split()[1])

    def open(self, path: str, **options: Any) -> Client:
        status = self.request(path, **options)
        assert status == 101, status
        return self

    def recv(self, size: int, /) -> bytes:
        if self.ahead:
            data, self.ahead = self.ahead[:size], self.ahead[size:]
            return data
        data = self.sock.recv(size)
        return data

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def text(self, message: str) -> None:
        self.send(frames.text(message, mask=NO_MASK if len(message) > 1000 else frames.MASK))

    def read(self) -> frames.Frame:
        return frames.read_frame(self)

    def echo(self, message: str = "hello") -> None:
        self.text(message)
        assert self.read().text == message

    def read_close(self) -> int | None:
        """The code of the close frame, which must come; messages before it are skipped."""
        while (frame := self.read()).opcode != frames.CLOSE:
            pass
        return frame.close_code

    def read_eof(self) -> None:
        try:
            while self.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def finish(self, code: int = 1000) -> None:
        self.send(frames.close(code))
        assert self.read_close() == code
        self.read_eof()
        self.close()

    def reset(self) -> None:
        """RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.sock.close()


def huge_frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """A frame with a key of zeros, built without a pass over its payload."""
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += b"\xfe" + struct.pack("!H", len(payload))
    else:
        head += b"\xff" + struct.pack("!Q", len(payload))
    return head + NO_MASK + payload


def run_all(
    jobs: Iterable[Callable[[], Any]], at_once: int = 100, timeout: float = 60.0
) -> list[Any]:
    """The results of all jobs; what one raises is raised."""
    pool = gevent.pool.Pool(at_once)
    with gevent.Timeout(timeout, AssertionError(f"not done within {timeout} s")):
        greenlets = [pool.spawn(job) for job in jobs]
        return [greenlet.get() for greenlet in greenlets]


def get_json(server: Server, path: str) -> dict[str, int]:
    status, body = server.get(path)
    assert status == 200, body
    found: dict[str, int] = json.loads(body)
    return found


def stats(server: Server) -> dict[str, int]:
    return get_json(server, "/stats")


HELD = ("descriptors", "greenlets", "watchers", "timers", "threads", "served")


def held(server: Server) -> dict[str, int]:
    """What must come back to where it was."""
    numbers = stats(server)
    return {name: numbers[name] for name in HELD}


def wait_for_held(server: Server, before: dict[str, int], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while (now := held(server)) != before:
        assert time.monotonic() < deadline, f"left behind: {now}, before: {before}"
        gevent.sleep(0.1)


def settled(server: Server) -> dict[str, int]:
    """What it holds once nothing changes any more."""
    last = held(server)
    for _ in range(50):
        gevent.sleep(0.3)
        now = held(server)
        if now == last:
            return now
        last = now
    raise AssertionError(f"it does not come to rest: {last}")


def ends(server: Server) -> dict[str, int]:
    return get_json(server, "/ends")
