"""A stream through a WSGI iterable, for servers whose socket cannot be taken.

It has the methods of a Connection that EventSource calls. But the server asks for the next piece
when it likes, and the end of the peer is noticed only when something is sent.

The server may run on threads or on greenlets. It iterates in one of them while others send. So all
shared attributes are changed under one ``threading.Condition``, which is gevent's where that module
is patched. Listeners are called without it: they may send, and wait for room.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any, Callable

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.events import CloseEvent, DrainEvent, Event, OpenEvent
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport import checks, fork, served, tally
from faye_wsgi.transport.dispatcher import Sink
from faye_wsgi.transport.settings import Settings

__all__ = ["Body", "IterableStream"]

log = logging.getLogger("faye_wsgi")

_OPEN = ReadyState.OPEN
MAX_EARLY = 2**20  # bytes kept for a view that sends before it returns the response


class IterableStream:
    """Iterating it gives what is sent, and a comment after every ``ping`` seconds of silence."""

    def __init__(self, sink: Sink, settings: Settings, comment: bytes) -> None:
        self.sink = sink
        self._settings = settings
        self._comment = comment
        self._changed = threading.Condition()
        self._pieces: list[bytes] = []
        self.buffered = 0
        self.state = ReadyState.CONNECTING
        self.close_event: CloseEvent | None = None
        self._is_dispatching_close = False
        self._askers: list[Callable[[], object]] = []  # for ``ask_for_room``
        self._ask: Callable[[], object] | None = None  # the application's check
        self._ask_every = self._ask_at = math.inf
        self._is_forgotten = False  # in the child of a fork
        self.life: tally.Life | None = None  # what metrics know of it, where they are on
        self._sent = self._bytes_out = 0
        fork.watch(self)

    @property
    def has_room(self) -> bool:
        """Whether ``send`` would not block."""
        return self.buffered <= self._settings.high_water

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """Send encoded bytes; blocks above the high-water mark once the server iterates."""
        with self._changed:
            if self.state > ReadyState.OPEN:
                raise self.closed_error()
            if self.state == ReadyState.CONNECTING and self.buffered + len(data) > MAX_EARLY:
                raise RuntimeError(
                    "this server sends a stream only after the view has returned its "
                    "response: send from another greenlet or thread"
                )
            if timeout is not None and self.state == ReadyState.OPEN:
                self._wait_for_room(timeout)
                if self.state > ReadyState.OPEN:
                    raise self.closed_error()
            self._keep(data)
            if timeout is not None or self.state != ReadyState.OPEN:
                return
            is_taken = self._is_taken_in(self._settings.send_timeout)
        if not is_taken:  # the server is still busy with what it took before
            self._finish()
            raise self.closed_error()

    def send_shared(self, data: bytes, shared: dict[Any, Any]) -> bool:
        """Send what goes to many, without waiting; False: too many bytes wait here."""
        with self._changed:
            if self.state <= ReadyState.OPEN:
                if not self.has_room:
                    return False
                self._keep(data)
            return True

    def _keep(self, data: bytes) -> None:
        self._pieces.append(data)
        self.buffered += len(data)
        self._sent += 1
        self._bytes_out += len(data)
        self._changed.notify_all()

    def ask_for_room(self, tell: Callable[[], object]) -> None:
        """Have ``tell`` called, in any thread, when there is room or it is closed."""
        with self._changed:
            if not self.has_room and self.state <= ReadyState.OPEN:
                self._askers.append(tell)
                return
        tell()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the stream after what was sent."""
        with self._changed:
            if self.state <= ReadyState.OPEN:
                self.state = ReadyState.CLOSING
                self._changed.notify_all()

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the server has ended the response; TimeoutError after ``timeout``."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.state == ReadyState.CLOSED, timeout):
                raise TimeoutError("the stream was not closed in time")

    def closed_error(self) -> ConnectionClosed:
        """What a call on a closed stream raises."""
        error = ConnectionClosed()
        error.target = self.sink
        return error

    def __iter__(self) -> Iterator[bytes]:
        """The response's body, for the server."""
        with self._changed:
            if self.state == ReadyState.CONNECTING:
                self.state = ReadyState.OPEN
        self._dispatch(OpenEvent())
        try:
            piece = self._next_piece()
            while piece:
                yield piece
                piece = self._next_piece()
        finally:
            self._finish()

    def end_unread(self) -> None:
        """The server has ended the response, maybe without iterating it."""
        self._finish()

    def forget(self, hub: Any) -> None:
        """In the child of a fork: the parent's server sends the response."""
        self._is_forgotten = True
        # Another one: a thread of the parent, which is not in the child, may hold the lock.
        self._changed = threading.Condition()
        self.state = ReadyState.CLOSED
        self.close_event = CloseEvent(None, None)
        self._pieces, self.buffered = [], 0

    def _next_piece(self) -> bytes:
        self._wait_for_pieces()
        with self._changed:
            if self._is_forgotten:
                # In the child of a fork: the server's greenlet goes on here, too. It would write
                # the next piece to the connection, between the pieces of the parent. So it must
                # never get one.
                threading.Event().wait()
            pieces, self._pieces = self._pieces, []
            was_full = not self.has_room
            self.buffered = 0
            self._changed.notify_all()
            ending = self.state != ReadyState.OPEN
        self._tell_askers()
        if was_full:
            self._dispatch(DrainEvent())
        return b"".join(pieces) or (b"" if ending else self._comment)

    def _wait_for_pieces(self) -> None:
        """Wait until something is to be sent: pieces, the end, or a comment."""
        ping_at = monotonic() + (self._settings.ping or math.inf)
        is_due = False
        while not is_due and monotonic() < ping_at:
            if self._ask is not None and monotonic() >= self._ask_at:
                self._ask_now(self._ask)
            rest = min(ping_at, self._ask_at) - monotonic()
            with self._changed:
                is_due = self._changed.wait_for(self._is_due, None if rest == math.inf else rest)

    def ask_every(self, seconds: float, ask: Callable[[], object]) -> None:
        """Call ``ask`` at an interval, in the server's thread or greenlet that iterates."""
        self._ask, self._ask_every = ask, seconds
        self._ask_at = monotonic() + checks.delay(seconds)

    def _ask_now(self, ask: Callable[[], object]) -> None:
        try:
            ask()
        except BaseException as error:  # GreenletExit and SystemExit, too
            checks.failed(error, self.sink)
            if isinstance(error, KeyboardInterrupt):
                raise
        self._ask_at = monotonic() + checks.delay(self._ask_every)

    def _is_due(self) -> bool:
        return bool(self._pieces) or self.state != ReadyState.OPEN

    def _finish(self) -> None:
        with self._changed:
            if self.state == ReadyState.CLOSED:
                return
            self.state = ReadyState.CLOSED
            self.close_event = CloseEvent(None, None)
            self._pieces, self.buffered = [], 0
            self._changed.notify_all()
        served.leave(self)
        self._tell_askers()
        self._dispatch_close()

    def _tell_askers(self) -> None:
        askers, self._askers = self._askers, []
        for tell in askers:
            tell()

    def _dispatch_close(self) -> None:
        """Call the listeners for ``close``, one thread at a time, until none is left."""
        while self._may_dispatch_close():
            try:
                self._dispatch(CloseEvent(None, None))
            finally:
                self._is_dispatching_close = False

    def _may_dispatch_close(self) -> bool:
        with self._changed:
            if self._is_dispatching_close or not self.sink.has_listeners("close"):
                return False
            self._is_dispatching_close = True
            return True

    def _dispatch(self, event: Event) -> None:
        if self.sink.has_listeners(event.type):
            try:
                self.sink.dispatch(event)
            except BaseException as error:  # GreenletExit and SystemExit, too
                log.exception("a listener raised: its stream is closed")
                self.close()
                if isinstance(error, KeyboardInterrupt):
                    raise

    def _is_taken_in(self, seconds: float | None) -> bool:
        if self.has_room:
            return True
        began = monotonic()
        try:
            return self._changed.wait_for(lambda: self.has_room or self.state > _OPEN, seconds)
        finally:
            if self.life is not None:
                self.life.count(tally.BLOCKED, monotonic() - began)

    def _wait_for_room(self, timeout: float | None) -> None:
        if not self._is_taken_in(timeout):
            raise TimeoutError("the peer did not read in time: the message was not sent")

    # The parts of a Connection that an EventSource uses: this object stands for all of them.

    @property
    def outbox(self) -> IterableStream:
        """``send``, ``send_shared``, ``ask_for_room``, ``has_room``, ``buffered`` and so on."""
        return self

    @property
    def clock(self) -> IterableStream:
        """``ask_every``."""
        return self

    @property
    def dispatcher(self) -> IterableStream:
        """``sink``."""
        return self

    @property
    def closing(self) -> IterableStream:
        """``is_over``."""
        return self

    @property
    def numbers(self) -> tally.Numbers:
        """Messages in and out, and bytes in and out, for ``tally``."""
        return 0, self._sent, 0, self._bytes_out

    @property
    def code_label(self) -> str:
        """HTTP has no close codes."""
        return "none"

    def give_turn(self) -> None:
        """Nothing to do: no hub is needed here."""

    @property
    def is_over(self) -> bool:
        """Whether the server has ended the response."""
        return self.state == ReadyState.CLOSED

    def listeners_changed(self) -> bool:
        """Call a listener for ``close`` that comes after the end, in a greenlet or thread."""
        if self.is_over and not self._is_forgotten and self.sink.has_listeners("close"):
            threading.Thread(target=self._dispatch_close, daemon=True).start()
        return False


class Body:
    """The iterable of the response; its ``close`` ends the stream.

    PEP 3333: the server calls ``close`` in any case, even if it has never begun to iterate.
    """

    def __init__(self, stream: IterableStream) -> None:
        self._stream = stream
        self._iterator: Any = None

    def __iter__(self) -> Iterator[bytes]:
        self._iterator = iter(self._stream)
        return self._iterator  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the stream, whether it was iterated or not."""
        if self._iterator is not None:
            self._iterator.close()
        self._stream.end_unread()
