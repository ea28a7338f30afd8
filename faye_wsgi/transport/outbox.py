"""Sending: the usual case, messages that must wait, back-pressure and turns.

``send`` builds a message's frame and writes it to the stream at once. Its caller is blocked
afterwards while more than the high-water mark waits for the peer. What cannot go out at once
waits here: messages before open, and messages while another one goes out in fragments. Messages
of other threads are handed over to the connection's own thread (``crossing.py``). Everything else
happens in the thread of the hub, so that no lock is needed.

There are two dangers in a sender that never waits. In a greenlet, it is the only one that runs: so
it has a *turn*, and after it the hub runs once (``_hold_back``). In a plain thread, the hub never
runs, so that pings are not answered and the peer's end is not noticed: so it runs now and then
(``give_turn``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, Callable, Union

import gevent
from gevent.monkey import get_original
from greenlet import getcurrent

from faye_wsgi.driver.base import Driver, ReadyState
from faye_wsgi.driver.events import Data
from faye_wsgi.driver.frames import CloseCode, Opcode
from faye_wsgi.errors import ExtensionError
from faye_wsgi.transport import tally
from faye_wsgi.transport.crossing import Crossing, wait_elsewhere
from faye_wsgi.transport.settings import LARGE
from faye_wsgi.transport.stream import Stream

__all__ = ["Outbox", "Sendable"]

_Piece = Union[str, bytes, bytearray, memoryview]
Sendable = Union[_Piece, Iterator[_Piece]]

_get_ident = get_original("_thread", "get_ident")

_OPEN = ReadyState.OPEN
_NOT_SENT = "the peer did not read in time: the message was not sent"
_GIVEN_UP = "the peer did not read in time: the message was given up"

TURN_INTERVAL = 0.05  # seconds
FLOOD = 0.002  # seconds: a sender that uses up a turn so fast is likely to go on for long


class Outbox:
    """The sending side of one connection."""

    __slots__ = (
        "_connection",
        "_crossing",
        "_deferred",
        "_fragments",
        "_high_water",
        "_hub",
        "_is_alone",
        "_plain",
        "_stream",
        "_thread",
        "_turned_at",
        "_unsent",
        "sent",
    )

    def __init__(self, connection: Any, hub: Any, high_water: int) -> None:
        self._thread = _get_ident()
        self._connection = connection
        self._crossing: Crossing = connection.crossing
        self._hub = hub
        self.sent = 0  # messages, for metrics
        self._high_water = high_water
        self._stream: Stream | None = None
        # The driver, if a message is just a frame that is written to the stream; else None.
        self._plain: Driver | None = None
        # Made in a thread's main greenlet: the hub runs only while that greenlet waits.
        self._is_alone = getcurrent().parent is None
        self._turned_at = monotonic()
        self._unsent: list[Any] = []  # messages from before open
        self._fragments: int | None = None  # how many fragments of an unfinished message went out
        self._deferred: list[bytes] = []  # frames that must not come between the fragments

    @property
    def buffered(self) -> int:
        """Bytes accepted for sending that the kernel has not taken."""
        total = self._crossing.handed_over
        if self._stream is not None:
            total += self._stream.buffered
        for waiting in (self._unsent, self._deferred):
            total += sum(map(len, waiting))
        return total

    @property
    def has_room(self) -> bool:
        """Whether ``send`` would not block."""
        return self.buffered <= self._high_water or self._connection.state == ReadyState.CLOSED

    def use(self, driver: Driver, stream: Stream) -> None:
        """From now on messages go to ``stream``."""
        self._stream = stream
        self._plain = None if self._is_alone else driver

    def forget(self) -> None:
        """In the child of a fork: nothing goes out."""
        self._plain = None
        self._unsent = []
        self._deferred = []

    # One message

    def send(self, message: Any, timeout: float | None = None) -> None:
        """Send a message; blocks while more than the high-water mark waits for the peer.

        With a ``timeout`` it waits for room first: TimeoutError says that nothing was sent.
        """
        driver = self._plain
        if (
            driver is None
            or driver.state is not _OPEN
            or timeout is not None
            or self._crossing.jobs
            or (type(message) is not str and type(message) is not bytes)
            or len(message) >= LARGE
            or _get_ident() != self._thread
        ):
            self._send_any(message, timeout)
            return
        try:
            frame = driver.message(message)
        except Exception as error:
            self._not_built(error)
            raise
        self.sent += 1
        if self._stream.write(frame):  # type: ignore[union-attr]
            self._hold_back()

    def _send_any(self, message: Any, timeout: float | None) -> None:
        """``send`` for every kind of message, every state and every thread."""
        if self._is_alone:
            self.give_turn()
        message = _sendable(message)
        self._check_state()  # before an iterable is asked for anything
        is_elsewhere = _get_ident() != self._thread
        if not is_elsewhere:
            self._crossing.run()
        if not isinstance(message, (str, bytes)):
            driver: Any = self._connection.driver
            if self._check_state() == _OPEN and not is_elsewhere and driver.features.fragments:
                self._send_fragments(_pieces(message), timeout)
                return
            message = _whole(message)
            if message is None:
                return
        if is_elsewhere:
            self._hand_over(message, timeout)
            return
        if timeout is not None:
            self._wait_for_room_first(timeout)
        if self._check_state() != _OPEN:
            self._keep_unsent(message)
        elif self._write(message):
            self._hold_back(timeout is None)

    def _check_state(self) -> ReadyState:
        """CONNECTING or OPEN; ConnectionClosed after these."""
        state: ReadyState = self._connection.state
        if state not in (ReadyState.CONNECTING, _OPEN):
            raise self._connection.closing.error()
        return state

    def _check(self, message: Data) -> None:
        # A message that cannot be encoded raises now, in ``send``. When it is sent later, no
        # caller is there for the error.
        driver = self._connection.driver
        if isinstance(message, str):
            message.encode()
        elif driver is not None and not driver.features.binary:
            driver.message(message)

    def _write(self, message: str | bytes) -> bool:
        """Build and write a message's frame; returns what ``Stream.write`` does."""
        driver: Any = self._connection.driver
        stream: Any = self._stream
        self.sent += 1
        if len(message) >= LARGE and self._fragments is None:
            large = driver.large_message(message)
            if large is not None:
                return stream.write_large(*large)  # type: ignore[no-any-return]
        try:
            frame = driver.message(message)
        except ExtensionError as error:
            self._not_built(error)
            raise
        if self._fragments is not None:
            self._deferred.append(frame)
            return True
        return stream.write(frame)  # type: ignore[no-any-return]

    def _not_built(self, error: Exception) -> None:
        if isinstance(error, ExtensionError):
            self._connection.close(error.code)

    # One message to many

    def send_shared(self, message: Data, shared: dict[Any, Any]) -> bool:
        """Send a message that goes to many, without waiting; False: too many bytes wait here."""
        driver = self._plain
        if (
            driver is None
            or driver.state is not _OPEN
            or self._crossing.jobs
            or _get_ident() != self._thread
        ):
            return self._offer(message)
        if self._stream.waiting_size and not self.has_room:  # type: ignore[union-attr]
            return False
        self.sent += 1
        try:
            self._stream.write(driver.shared_message(message, shared))  # type: ignore[union-attr]
        except (ExtensionError, TypeError) as error:  # the drafts have no binary messages
            self._not_built(error)
        return True

    def _offer(self, message: Data) -> bool:
        """``send_shared`` for the other states and threads."""
        driver = self._connection.driver
        if driver is not None and not driver.features.binary and not isinstance(message, str):
            return True
        state = self._connection.state
        if state not in (ReadyState.CONNECTING, _OPEN):
            return True
        if not self.has_room:
            return False
        if _get_ident() != self._thread:
            self._check(message)
            self._crossing.hand_over(self._send_handed_over, message)
        elif state != _OPEN:
            self._keep_unsent(message)
        else:
            self._crossing.run()
            self._write_late(message)
        return True

    # Back-pressure, and turns

    def _hold_back(self, waits: bool = True) -> None:
        """Wait if too many bytes wait for the peer; let the hub run if the turn is over."""
        stream: Any = self._stream
        stream.flush()
        if waits and self.buffered > self._high_water:
            self._wait_for_room(lambda: self.has_room)
        elif stream.batch.is_turn_over and getcurrent() is not self._hub:
            # Otherwise a greenlet that never waits would be the only one that runs.
            is_flood = not self._is_alone and monotonic() - self._turned_at < FLOOD
            gevent.sleep(0)
            stream.batch.begin_turn(self._hub.loop, is_flood)
            self._turned_at = monotonic()

    def _wait_for_room(self, has_room: Callable[[], bool]) -> None:
        self._wait(has_room, None)
        self._check_sent()

    def _wait(self, has_room: Callable[[], bool], timeout: float | None) -> bool:
        """Wait for room; False when the time is up."""
        if has_room():  # a send with a timeout asks each time
            return True
        with self._blocked():
            return bool(self._connection.changed.wait_for(has_room, timeout))

    @contextmanager
    def _blocked(self) -> Iterator[None]:
        """The time in this block counts as that of a blocked sender."""
        began = monotonic()
        try:
            yield
        finally:
            life = self._connection.closing.life
            if life is not None:
                life.count(tally.BLOCKED, monotonic() - began)

    def _check_sent(self) -> None:
        if self._connection.state == ReadyState.CLOSED:  # what waited here was dropped
            raise self._connection.closing.error()

    def give_turn(self) -> None:
        """Let the hub run, in a plain thread where it has not run for a while."""
        # A thread that only sends and sleeps (without gevent) would never see the peer's end.
        now = monotonic()
        if (
            self._is_alone
            and now - self._turned_at > TURN_INTERVAL
            and _get_ident() == self._thread
            and getcurrent().parent is None
        ):
            self._turned_at = now
            gevent.sleep(1e-6)  # a sleep of 0 runs callbacks, and no timers

    def _wait_for_room_first(self, timeout: float) -> None:
        # Before the message is written: TimeoutError must mean that it was not sent, so that the
        # caller may send it again.
        if not self._wait(lambda: self.has_room, timeout):
            raise TimeoutError(_NOT_SENT)

    # Before open

    def _keep_unsent(self, message: Data) -> None:
        self._check(message)
        self._unsent.append(message)

    def send_unsent(self) -> None:
        """Send what was kept before open, in its order."""
        unsent, self._unsent = self._unsent, []
        for message in unsent:
            self._write_late(message)

    def _write_late(self, message: Data) -> None:
        if self._connection.state == _OPEN:
            try:
                self._write(message)
            except ExtensionError:
                pass  # ``_write`` has closed the connection, and the close event reports it

    # A message in fragments

    def _send_fragments(self, pieces: Iterator[Data], timeout: float | None) -> None:
        # RFC 6455 5.4: only control frames may come between the fragments of a message.
        changed = self._connection.changed
        if not changed.wait_for(lambda: self._fragments is None, timeout):
            raise TimeoutError(_NOT_SENT)
        self._fragments = 0
        plain, self._plain = self._plain, None
        try:
            self._write_fragments(pieces, timeout)
        except BaseException:
            if self._fragments:
                reason = "a message could not be completed"
                self._connection.close(CloseCode.INTERNAL_ERROR, reason)
            raise
        finally:
            self._fragments = None
            self._plain = plain
            self._write_deferred()

    def _write_fragments(self, pieces: Iterator[Data], timeout: float | None) -> None:
        last = next(pieces, None)
        if last is None:
            return
        opcode = Opcode.TEXT if isinstance(last, str) else Opcode.BINARY
        for piece in pieces:
            self._write_fragment(last, opcode, False, timeout)
            last, opcode = piece, Opcode.CONTINUATION
        self._write_fragment(last, opcode, True, timeout)

    def _write_fragment(self, piece: Data, opcode: int, fin: bool, timeout: float | None) -> None:
        driver, stream = self._connection.driver, self._stream
        if driver is None or stream is None or driver.state != _OPEN:
            raise self._connection.closing.error()
        data = piece.encode() if isinstance(piece, str) else piece
        if timeout is not None and not self._wait(self._has_room_for_fragment, timeout):
            raise TimeoutError(_GIVEN_UP if self._fragments else _NOT_SENT)
        must_look = stream.write(driver.fragment(data, opcode, fin))
        self._fragments += 1  # type: ignore[operator]
        self.sent += fin
        if must_look:
            stream.flush()
            if timeout is None:
                self._wait_for_room(self._has_room_for_fragment)
            self._hold_back(False)

    def _has_room_for_fragment(self) -> bool:
        # Without the deferred frames, which wait for the end of this message themselves.
        stream: Any = self._stream
        return bool(stream.buffered <= self._high_water or stream.closed)

    def _write_deferred(self) -> None:
        driver, stream = self._connection.driver, self._stream
        deferred, self._deferred = self._deferred, []
        if deferred and driver is not None and driver.state == _OPEN and stream is not None:
            stream.write(b"".join(deferred))
        self._connection.call_soon(self._connection.changed.notify_all)

    # From other threads

    def _hand_over(self, message: Data, timeout: float | None) -> None:
        self._check(message)
        if timeout is not None and self.buffered > self._high_water:
            with self._blocked():
                has_room = wait_elsewhere(self.ask_for_room, self._ask_no_more, timeout)
            if not has_room:
                raise TimeoutError(_NOT_SENT)
            self._check_state()
        self._crossing.hand_over(self._send_handed_over, message)
        if timeout is None and self.buffered > self._high_water:
            with self._blocked():
                wait_elsewhere(self.ask_for_room, self._ask_no_more, None)
            self._check_sent()

    def _send_handed_over(self, message: str | bytes) -> None:
        if self._connection.state == ReadyState.CONNECTING:
            self._unsent.append(message)
        else:
            self._write_late(message)
        self._connection.call_soon(self._connection.changed.notify_all)

    def ask_for_room(self, tell: Callable[[], object]) -> None:
        """Have ``tell`` called, in the connection's hub, when there is room or it is closed.

        It may be called more than once, must not block, and must not raise. Any thread may ask.
        """
        changed = self._connection.changed
        self._crossing.call(changed.tell_when, lambda: self.has_room, tell)
        # A hub that has ended makes no more calls. But its connection was closed before that.
        if self._connection.state == ReadyState.CLOSED:
            tell()

    def _ask_no_more(self, tell: Callable[[], object]) -> None:
        self._crossing.call(self._connection.changed.withdraw, tell)


def _sendable(message: Any) -> Any:
    """A message as ``str``, ``bytes``, or an iterator of its pieces; else TypeError."""
    if isinstance(message, (str, bytes)):
        return message
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    if isinstance(message, Iterator):
        return message
    raise TypeError(_not_sendable(message))


def _not_sendable(message: Any) -> str:
    kind = type(message).__name__
    if isinstance(message, (list, tuple)):
        # Its items would arrive as one text without anything between them.
        return (
            f"a message is str or bytes, not {kind}: send_json(...) sends it as JSON, "
            "send(iter(...)) sends its items as the pieces of one message"
        )
    if message is None or isinstance(message, (Mapping, bool, int, float)):
        return f"a message is str or bytes, not {kind}: send_json(...) sends it as JSON"
    return (
        f"a message is str or bytes, or a generator or iterator of the pieces of one message, "
        f"not {kind}"
    )


def _whole(message: Iterator[Any]) -> Any:
    """All pieces joined; None if there are none."""
    pieces: list[Any] = list(_pieces(message))
    return pieces[0][:0].join(pieces) if pieces else None


def _pieces(message: Iterator[Any]) -> Iterator[Data]:
    """The pieces of a message; TypeError unless all are text, or all are bytes."""
    kind = None
    for piece in message:
        data = bytes(piece) if isinstance(piece, (bytearray, memoryview)) else piece
        if kind is None:
            kind = str if isinstance(data, str) else bytes
        if not isinstance(data, kind):
            raise TypeError("the pieces of a message are all str, or all bytes")
        yield data
