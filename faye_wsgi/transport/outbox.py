"""What is sent and has not gone out yet: before open, between fragments, from other threads.

Beside these, ``send`` builds a message's frame and writes it to the stream at once, and
then blocks its caller while more than the high-water mark waits for the peer. No lock is
needed: everything but the hand-over from other threads happens in the thread of the hub.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from collections.abc import Iterable as IterableType
from time import monotonic
from typing import Any, Callable, Protocol, Union

import gevent
from gevent.monkey import get_original
from greenlet import getcurrent

from faye_wsgi.driver.base import Driver, ReadyState
from faye_wsgi.driver.events import Data
from faye_wsgi.driver.frames import CloseCode, Opcode
from faye_wsgi.errors import ConnectionClosed, ExtensionError
from faye_wsgi.transport.crossing import Crossing, wait_elsewhere
from faye_wsgi.transport.settings import LARGE
from faye_wsgi.transport.stream import Stream

__all__ = ["Outbox", "Owner", "Sendable"]

_Piece = Union[str, bytes, bytearray, memoryview]
Sendable = Union[_Piece, Iterable[_Piece]]

_get_ident = get_original("_thread", "get_ident")
_allocate_lock = get_original("_thread", "allocate_lock")
_counting = _allocate_lock()  # += of several threads

_OPEN = ReadyState.OPEN
_EMPTY: Any = ()  # stands for a queue that was never needed
_NOT_SENT = "the peer did not read in time: the message was not sent"
_GIVEN_UP = "the peer did not read in time: the message was given up"

TURN_INTERVAL = 0.05  # seconds
FLOOD = 0.002  # seconds: who is done with a turn so soon is likely to send on and on


def renew_lock() -> None:
    """In the child of a fork: a thread that is not there may hold it."""
    global _counting
    _counting = _allocate_lock()


class Owner(Protocol):
    """Whose outbox it is: the connection."""

    driver: Driver | None
    stream: Stream | None

    @property
    def state(self) -> ReadyState:
        """The state of the connection."""

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake."""

    def closed_error(self) -> ConnectionClosed:
        """What a call on a closing or closed connection raises."""

    def guard(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function for the hub; what it raises ends the connection."""

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """``guard``, in the next turn of the hub."""


class Outbox:
    """The sending side of one connection."""

    __slots__ = (
        "_build",
        "_crossed",
        "_crossing",
        "_deferred",
        "_fragments",
        "_handed_over",
        "_high_water",
        "_hub",
        "_owner",
        "_plain",
        "_stream",
        "_thread",
        "_turned_at",
        "_unsent",
        "_waiting",
        "_waiting_elsewhere",
        "is_alone",
    )

    def __init__(self, hub: Any, owner: Owner, high_water: int) -> None:
        self._thread = _get_ident()
        self._crossed: Any = _EMPTY  # what other threads have asked for, and must come first
        self._stream: Any = None
        self._plain: Driver | None = None  # where there is more to do than this, None
        self._build: Any = None  # the driver's
        self._hub = hub
        self._crossing: Crossing | None = None  # made when another thread first calls
        self.is_alone = getcurrent().parent is None  # the hub runs only while we wait
        self._turned_at = monotonic()
        self._owner = owner
        self._high_water = high_water
        self._unsent: list[Any] = []  # before open
        self._handed_over = 0  # bytes on their way from other threads
        self._fragments: int | None = None  # that a message has sent which is not complete:
        self._deferred: list[bytes] = []  # these frames must not come between
        self._waiting: list[Callable[[], object]] = []  # whom ``wake`` wakes
        self._waiting_elsewhere: list[Callable[[], object]] = []  # the same in other threads

    @property
    def buffered(self) -> int:
        """Bytes accepted for sending that the kernel has not taken."""
        stream = self._owner.stream
        total = self._handed_over + (stream.buffered if stream is not None else 0)
        for waiting in (self._unsent, self._deferred):
            total += sum(map(len, waiting))
        return total

    @property
    def has_room(self) -> bool:
        """Whether ``send`` would not block."""
        return self.buffered <= self._high_water or self._owner.state == ReadyState.CLOSED

    def set_stream(self, driver: Driver, stream: Stream) -> None:
        """From now on messages go to ``stream``."""
        self._stream = stream
        self._build = driver.message
        self._plain = None if self.is_alone else driver

    def send(self, message: Any, timeout: float | None = None) -> None:
        """Send a message; blocks while more than the high-water mark waits for the peer."""
        driver = self._plain
        if (
            driver is None
            or driver.state is not _OPEN
            or timeout is not None
            or self._crossed
            or (type(message) is not str and type(message) is not bytes)
            or len(message) >= LARGE
            or _get_ident() != self._thread
        ):
            self._send(message, timeout)
            return
        try:
            frame: bytes = self._build(message)
        except Exception as error:
            self._not_built(error)
            raise
        if self._stream.write(frame):
            self._hold_back()

    def send_shared(self, message: Data, shared: dict[Any, Any]) -> bool:
        """Send one that goes to many, without waiting; False: too much waits already."""
        driver = self._owner.driver
        if driver is not None and not driver.features.binary and not isinstance(message, str):
            return True
        driver = self._plain
        if driver is None or driver.state is not _OPEN or _get_ident() != self._thread:
            return self._offer(message)
        if self._stream.is_blocked and not self.has_room:
            return False
        try:
            self._stream.write(driver.shared_message(message, shared))
        except ExtensionError as error:
            self._not_built(error)
        return True

    def _send(self, message: Any, timeout: float | None) -> None:
        if self.is_alone:
            self.give_turn()
        message = _sendable(message)
        self._check_state()  # before an iterable is asked for anything
        is_elsewhere = _get_ident() != self._thread
        if not is_elsewhere:
            self.run_crossed()
        if not isinstance(message, (str, bytes)):
            driver: Any = self._owner.driver
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
        state = self._owner.state
        if state not in (ReadyState.CONNECTING, _OPEN):
            raise self._owner.closed_error()
        return state

    def _check(self, message: Data) -> None:
        # What is sent later fails where nobody hears of it.
        driver = self._owner.driver
        if isinstance(message, str):
            message.encode()
        elif driver is not None and not driver.features.binary:
            driver.message(message)

    def _offer(self, message: Data) -> bool:
        state = self._owner.state
        if state not in (ReadyState.CONNECTING, _OPEN):
            return True
        if not self.has_room:
            return False
        if _get_ident() != self._thread:
            self._check(message)
            self._pass_on(message)
        elif state == _OPEN:
            self._write(message)
        else:
            self._keep_unsent(message)
        return True

    def give_turn(self) -> None:
        """Let the hub run, if it has not for a while and nobody else lets it."""
        # A loop of sends and native sleeps would never learn that the peer has gone.
        now = monotonic()
        if (
            now - self._turned_at > TURN_INTERVAL
            and _get_ident() == self._thread
            and getcurrent().parent is None
        ):
            self._turned_at = now
            gevent.sleep(1e-6)  # 0 would leave timers out

    def _write(self, message: str | bytes) -> bool:
        """Build and write a message's frame; whether something waits for the kernel now."""
        driver: Any = self._owner.driver
        stream: Any = self._owner.stream
        if len(message) >= LARGE and self._fragments is None:
            large = driver.large_message(message)
            if large is not None:
                return stream.write_large(*large)  # type: ignore[no-any-return]
        try:
            frame = self._build(message)
        except ExtensionError as error:
            self._not_built(error)
            raise
        if self._fragments is not None:
            self._deferred.append(frame)
            return True
        return stream.write(frame)  # type: ignore[no-any-return]

    def _not_built(self, error: Exception) -> None:
        if isinstance(error, ExtensionError):
            self._owner.close(error.code)

    def _hold_back(self, waits: bool = True) -> None:
        self._stream.flush()
        if waits and self.buffered > self._high_water:
            self.wait_until(lambda: self.has_room, None)
        elif self._stream.is_turn_over and getcurrent() is not self._hub:
            # Who sends without ever waiting would be the only one to be served.
            is_flood = not self.is_alone and monotonic() - self._turned_at < FLOOD
            gevent.sleep(0)
            self._stream.begin_turn(is_flood)
            self._turned_at = monotonic()

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
        if self._owner.state == _OPEN:
            try:
                self._write(message)
            except ExtensionError:
                pass  # it closes the connection, which tells of it

    # Waiting

    def wait_until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait for a condition that changes only where ``wake`` is called; False: in vain."""
        wake = getcurrent().switch
        with gevent.Timeout.start_new(timeout) as expiry:
            try:
                while not condition():
                    self._waiting.append(wake)
                    self._hub.switch()
            except gevent.Timeout as error:
                if error is not expiry:
                    raise
                return False
            finally:
                if wake in self._waiting:
                    self._waiting.remove(wake)
        return True

    def wake(self) -> None:
        """Something has changed: let those who wait look at it. From the hub."""
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            try:
                wake()
            except BaseException:  # it is the waiter's own, and must not cost the others their turn
                self._hub.handle_error(wake, *sys.exc_info())
        elsewhere, self._waiting_elsewhere = self._waiting_elsewhere, []
        for tell in elsewhere:
            self._tell_of_room(tell)

    def _wait_for_room_first(self, timeout: float) -> None:
        # A sender with little time would otherwise leave a message behind each time.
        if not self.wait_until(lambda: self.has_room, timeout):
            raise TimeoutError(_NOT_SENT)

    # A message in fragments

    def _send_fragments(self, pieces: Iterator[Data], timeout: float | None) -> None:
        # RFC 6455 §5.4: only control frames may come between the fragments of a message.
        if not self.wait_until(lambda: self._fragments is None, timeout):
            raise TimeoutError(_NOT_SENT)
        self._fragments = 0
        plain, self._plain = self._plain, None
        try:
            self._write_fragments(pieces, timeout)
        except BaseException:
            if self._fragments:
                self._owner.close(CloseCode.INTERNAL_ERROR, "a message could not be completed")
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
        driver, stream = self._owner.driver, self._owner.stream
        if driver is None or stream is None or driver.state != _OPEN:
            raise self._owner.closed_error()
        data = piece.encode() if isinstance(piece, str) else piece
        if timeout is not None and not self.wait_until(self._has_room_for_fragment, timeout):
            raise TimeoutError(_GIVEN_UP if self._fragments else _NOT_SENT)
        must_look = stream.write(driver.fragment(data, opcode, fin))
        self._fragments += 1  # type: ignore[operator]
        if must_look:
            stream.flush()
            if timeout is None:
                self.wait_until(self._has_room_for_fragment, None)
            self._hold_back(False)

    def _has_room_for_fragment(self) -> bool:
        # What is deferred until this message ends must not hold this message back.
        stream = self._stream
        return bool(stream.buffered <= self._high_water or stream.closed)

    def _write_deferred(self) -> None:
        driver, stream = self._owner.driver, self._owner.stream
        deferred, self._deferred = self._deferred, []
        if deferred and driver is not None and driver.state == _OPEN and stream is not None:
            stream.write(b"".join(deferred))
        self._owner.call_soon(self.wake)

    # From other threads

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` in the thread of the hub, in its turn; from any thread."""
        with _counting:
            if self._crossing is None:
                self._crossing = Crossing(self._hub, self._owner.guard)
                self._crossed = self._crossing.jobs
        self._crossing.call(function, *args)

    def run_crossed(self) -> None:
        """Do first what other threads have asked for; in the connection's own thread."""
        if self._crossing is not None:
            self._crossing.run()

    def _hand_over(self, message: Data, timeout: float | None) -> None:
        self._check(message)
        if timeout is not None and self.buffered > self._high_water:
            if not wait_elsewhere(self._ask_for_room, self._ask_no_more, timeout):
                raise TimeoutError(_NOT_SENT)
            self._check_state()
        self._pass_on(message)
        if timeout is None and self.buffered > self._high_water:
            wait_elsewhere(self._ask_for_room, self._ask_no_more, None)

    def _pass_on(self, message: Data) -> None:
        with _counting:
            self._handed_over += len(message)
        self.call(self._send_handed_over, message)

    def _send_handed_over(self, message: str | bytes) -> None:
        with _counting:
            self._handed_over -= len(message)
        if self._owner.state == ReadyState.CONNECTING:
            self._unsent.append(message)
        else:
            self._write_late(message)
        self._owner.call_soon(self.wake)

    def _ask_for_room(self, tell: Callable[[], object]) -> None:
        self.call(self._tell_of_room, tell)
        # A hub that has ended runs nothing: its connection was closed before.
        if self._owner.state == ReadyState.CLOSED:
            tell()

    def _ask_no_more(self, tell: Callable[[], object]) -> None:
        self.call(self._withdraw, tell)

    def _tell_of_room(self, tell: Callable[[], object]) -> None:
        if self.has_room:
            tell()
        else:
            self._waiting_elsewhere.append(tell)

    def _withdraw(self, tell: Callable[[], object]) -> None:
        if tell in self._waiting_elsewhere:
            self._waiting_elsewhere.remove(tell)

    def forget(self) -> object:
        """In the child of a fork: nothing goes out, and those who wait wait for ever."""
        waiting = self._waiting, self._waiting_elsewhere
        self._waiting, self._waiting_elsewhere = [], []
        self._crossing, self._crossed = None, ()
        self._plain = None
        self._unsent = []
        self._deferred = []
        self._handed_over = 0
        return waiting


def _sendable(message: Any) -> Any:
    """A message as ``str``, ``bytes``, or an iterable of them; else TypeError."""
    if isinstance(message, (str, bytes)):
        return message
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    if isinstance(message, IterableType) and not isinstance(message, (Mapping, Set)):
        return message
    raise TypeError(f"a message is str, bytes, or an iterable of them, not {type(message)}")


def _whole(message: Iterable[Any]) -> Any:
    """All pieces in one; None where there are none."""
    pieces: list[Any] = list(_pieces(message))
    return pieces[0][:0].join(pieces) if pieces else None


def _pieces(message: Iterable[Any]) -> Iterator[Data]:
    """What a message is made of; TypeError where that is not all of one kind."""
    kind = None
    for piece in message:
        data = bytes(piece) if isinstance(piece, (bytearray, memoryview)) else piece
        if kind is None:
            kind = str if isinstance(data, str) else bytes
        if not isinstance(data, kind):
            raise TypeError("the pieces of a message are all str, or all bytes")
        yield data
