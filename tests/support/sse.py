"""An HTTP client for event streams: the head by hand, the events by sseclient-py.

Every wait is bounded by the socket's timeout.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import sseclient

from . import frames
from .peer import TIMEOUT, Head, Peer
from .servers import Server


class EventReader:
    """One request for an event stream: `head`, then `next()` for each event."""

    def __init__(
        self,
        server: Any,
        path: str,
        headers: frames.Headers | None = None,
        *,
        version: str = "HTTP/1.1",
        method: str = "GET",
        timeout: float = TIMEOUT,
        **query: object,
    ) -> None:
        target = f"{path}?{urlencode(query)}" if query else path
        fields = [("Host", server.host_header), ("Accept", "text/event-stream")]
        lines = [f"{method} {target} {version}"]
        lines += [f"{name}: {value}" for name, value in fields + frames.pairs(headers)]
        self.peer = Peer(server, timeout=timeout)
        self.sock = self.peer.sock
        self.peer.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        self._head: Head | None = None
        self._events: Iterator[Any] | None = None

    def __enter__(self) -> EventReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def head(self) -> Head:
        if self._head is None:
            self._head = self.peer.read_head()
        return self._head

    @property
    def is_chunked(self) -> bool:
        return (self.head.get("Transfer-Encoding") or "").lower() == "chunked"

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes."""
        chunked = self.is_chunked
        while True:
            piece = self._chunk() if chunked else self.sock.recv(65536)
            if not piece:
                return
            yield piece

    def _chunk(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            line += frames.read_exactly(self.sock, 1)
        size = int(line, 16)
        return frames.read_exactly(self.sock, size + 2)[:-2]

    def body(self) -> bytes:
        """All of it, up to the end."""
        return b"".join(self.pieces())

    def start(self, size: int) -> bytes:
        """So many bytes of the body, where it is not chunked."""
        assert not self.is_chunked
        return frames.read_exactly(self.sock, size)

    def __iter__(self) -> Iterator[Any]:
        if self._events is None:
            self._events = sseclient.SSEClient(self.pieces()).events()
        return self._events

    def next(self) -> Any:
        """The next event, with `event`, `data`, `id` and `retry`."""
        return next(iter(self))

    def close(self) -> None:
        self.sock.close()


class Acknowledgements:
    """Signals for the views that wait for them: files, since these reach any process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="faye_wsgi-acks-")
        self.path = os.path.join(self._folder.name, "ack")

    def __enter__(self) -> Acknowledgements:
        return self

    def __exit__(self, *details: object) -> None:
        self._folder.cleanup()

    def give(self, number: int) -> None:
        Path(f"{self.path}.{number}").touch()


def read_one_by_one(reader: EventReader, acks: Acknowledgements, count: int) -> None:
    """Each event must be here before the next one is sent."""
    for number in range(count):
        event = reader.next()
        assert (event.event, event.data, event.id) == ("step", f"event {number}", str(number))
        acks.give(number)


def notes(server: Server, key: str) -> list[Any]:
    """What the application has written down under that key."""
    found: list[Any] = json.loads(server.get(f"/es/notes?{urlencode({'key': key})}")[1])
    return found
