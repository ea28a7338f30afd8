"""A raw WebSocket client: the bytes on the wire, sent and read by hand.

Every wait is bounded: the socket has a timeout from the start. It reads the exact number of
bytes each time, so what it has not asked for is still in the kernel.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import NamedTuple

from . import frames
from .servers import Server

TIMEOUT = 10.0


class Head(NamedTuple):
    """The head of an HTTP response."""

    status: int
    reason: str
    fields: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        values = self.get_all(name)
        return ", ".join(values) if values else None

    def get_all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name.lower()]


class Peer:
    """One connection. `Peer(server).open('/echo')` is an open WebSocket."""

    def __init__(
        self,
        server: Server | None = None,
        *,
        sock: socket.socket | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        if sock is None:
            if server is None:
                raise TypeError("a Peer needs a server or a socket")
            sock = server.connect(timeout)
        self.server = server
        self.sock = sock
        self.sock.settimeout(timeout)
        self.head: Head | None = None

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # The opening handshake

    def request(
        self,
        path: str = "/",
        headers: frames.Headers | None = None,
        first: bytes = b"",
        **options: object,
    ) -> Head:
        """Sends a handshake, with `first` in the same segment, and reads the answer's head."""
        options.setdefault("host", self.server.host_header if self.server else "127.0.0.1")
        self.send(frames.handshake(path, headers=headers, **options) + first)  # type: ignore[arg-type]
        return self.read_head()

    def open(
        self,
        path: str = "/",
        headers: frames.Headers | None = None,
        first: bytes = b"",
        key: str | None = None,
        **options: object,
    ) -> Peer:
        """A handshake that must succeed."""
        key = key or frames.new_key()
        head = self.request(path, headers, first, key=key, **options)
        assert head.status == 101, f"{head} {self.read_available()!r}"
        assert head.get("Sec-WebSocket-Accept") == frames.accept(key)
        return self

    def read_head(self) -> Head:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += frames.read_exactly(self.sock, 1)
        first, *lines = data[:-4].decode("latin-1").split("\r\n")
        _, status, reason = (first + " ").split(" ", 2)
        fields = [(name, value.strip()) for name, _, value in (x.partition(":") for x in lines)]
        self.head = Head(int(status), reason.strip(), fields)
        return self.head

    def read_body(self) -> bytes:
        """The body of an ordinary response: by its length, or up to the end."""
        length = self.head.get("Content-Length") if self.head else None
        return (
            self.read_available() if length is None else frames.read_exactly(self.sock, int(length))
        )

    # Frames

    def send(self, data: bytes, step: int | None = None) -> None:
        """Sends bytes as they are; with `step`, in pieces of that many."""
        if step is None:
            self.sock.sendall(data)
            return
        for start in range(0, len(data), step):
            self.sock.sendall(data[start : start + step])

    def send_frame(self, opcode: int, payload: bytes | str = b"", **options: object) -> None:
        self.send(frames.frame(opcode, payload, **options))  # type: ignore[arg-type]

    def send_text(self, message: str, **options: object) -> None:
        self.send_frame(frames.TEXT, message, **options)

    def send_binary(self, message: bytes, **options: object) -> None:
        self.send_frame(frames.BINARY, message, **options)

    def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        self.send(frames.close(code, reason))

    def read_frame(self, timeout: float | None = None) -> frames.Frame:
        """The next frame, which no server may mask (RFC 6455 5.1)."""
        if timeout is not None:
            self.sock.settimeout(timeout)
        frame = frames.read_frame(self.sock)
        assert frame.mask is None, "a server masked a frame"
        return frame

    def read_text(self) -> str:
        frame = self.read_frame()
        assert frame.opcode == frames.TEXT, frame
        return frame.text

    def read_close(self) -> frames.Frame:
        """The close frame, which must be next."""
        frame = self.read_frame()
        assert frame.opcode == frames.CLOSE, frame
        return frame

    # The end

    def read_available(self) -> bytes:
        """Everything up to the end of the stream."""
        chunks = []
        try:
            while chunk := self.sock.recv(65536):
                chunks.append(chunk)
        except OSError:
            pass
        return b"".join(chunks)

    def read_eof(self) -> None:
        """The stream must end now, without another byte."""
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return
        assert data == b"", f"bytes after the close frame: {data!r}"

    def finish(self, code: int = 1000) -> frames.Frame:
        """Our side of the closing handshake: a close frame, its answer, the end of the stream."""
        self.send_close(code)
        answer = self.read_close()
        assert answer.close_code == code, answer
        self.read_eof()
        return answer

    def close(self) -> None:
        self.sock.close()
