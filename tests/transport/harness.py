"""A connection made by hand on one end of a socket pair, and its peer on the other.

Everything runs in the hub of the test's own thread. The peer's end is a gevent socket, so
that reading from it lets the hub go on; every wait is bounded.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket

from faye_wsgi.driver.events import CloseEvent, Event
from faye_wsgi.driver.hybi import Hybi
from faye_wsgi.endpoint import Endpoint, EventTarget
from faye_wsgi.transport.connection import Connection
from faye_wsgi.transport.settings import Settings
from faye_wsgi.transport.stream import PlainSocket

from ..support.peer import Peer

TIMEOUT = 5.0
NOTHING_FOR = 0.05  # how long a test waits for what must not happen


class Sink(EventTarget):
    """The object that the user holds, with all events written down."""

    EVENTS = Endpoint.EVENTS
    connection: Connection

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Event] = []

    def record(self, *types: Any) -> None:
        for type in types:
            self.on(type, self.seen.append)

    @property
    def names(self) -> list[str]:
        return [event.type for event in self.seen]

    @property
    def close_event(self) -> CloseEvent:
        (event,) = (event for event in self.seen if isinstance(event, CloseEvent))
        return event

    def _listeners_changed(self) -> None:
        if hasattr(self, "connection"):
            self.connection.listeners_changed()


class Pair:
    """`connection` talks to `peer`; `sink` is told of its events."""

    def __init__(
        self, settings: Settings | None = None, *, buffers: int = 0, **driver: Any
    ) -> None:
        ours, theirs = socket.socketpair()
        if buffers:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        self.fd = ours.fileno()
        sock = PlainSocket(fileno=ours.detach())
        sock.setblocking(False)
        self.peer = Peer(sock=gevent.socket.socket(fileno=theirs.detach()), timeout=TIMEOUT)
        self.sink = Sink()
        self.connection = Connection(self.sink, settings or Settings())
        self.sink.connection = self.connection
        self.connection.open(Hybi(**driver), sock, b"")

    def finish(self) -> None:
        """Ends it, whatever its state."""
        self.peer.close()
        with contextlib.suppress(TimeoutError):
            self.connection.wait_closed(TIMEOUT)

    @property
    def descriptor_is_open(self) -> bool:
        return is_open(self.fd)


@contextlib.contextmanager
def pair(settings: Settings | None = None, **options: Any) -> Iterator[Pair]:
    made = Pair(settings, **options)
    try:
        yield made
    finally:
        made.finish()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def turn(times: int = 3) -> None:
    """Lets the hub do what it has to do now."""
    for _ in range(times):
        gevent.sleep(0)


def until(condition: Any, timeout: float = TIMEOUT, what: str = "") -> None:
    """Waits, in the hub, until the condition holds."""
    with gevent.Timeout(timeout, AssertionError(f"not within {timeout} s: {what or condition}")):
        while not condition():
            gevent.sleep(0.002)
