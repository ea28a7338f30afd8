"""The timers of a connection: pings and their pongs, the sign of life, the deadlines.

The driver knows what is expected, and this file knows when it is too late. Any received byte is a
sign of life. What happens often, a message that arrives in part or a kernel without room, only
notes the time. Its timer is left alone, and looks at the note when it fires. The time that the hub
was late is not counted against the peer (``lateness``).

Every timer calls its function through ``Connection.guard``: gevent drops a timer whose callback
raises, and the connection would lose its deadline.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Callable, NamedTuple

from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.transport import tally
from faye_wsgi.transport.checks import Ask, Check
from faye_wsgi.transport.closing import Phase
from faye_wsgi.transport.lateness import Deadline

__all__ = ["Callback", "Keepalive"]

MAX_PINGS = 64  # pings that are remembered until their pongs come
LATE_MESSAGE = "a message was not completed in time"

Callback = Callable[[], object]


class _Ping(NamedTuple):
    data: bytes
    sent_at: float
    callback: Callback | None


class Keepalive:
    """The timers and pings of one connection."""

    __slots__ = (
        "_arriving",
        "_check",
        "_connection",
        "_deadline",
        "_ending",
        "_loop",
        "_pings",
        "_room_at",
        "_sending",
        "_step",
        "_step_at",
        "_ticker",
        "latency",
    )

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._loop = connection.hub.loop
        self._pings: list[_Ping] = []
        self._ticker: Any | None = None
        self._check: Check | None = None
        self._deadline: Any | None = None
        self._ending: Any | None = None
        self._arriving: Any | None = None  # the timer of a message that has arrived in part
        self._step = 0  # ``Driver.unfinished``, and when it became that
        self._step_at = 0.0
        self._sending: Any | None = None  # the timer of bytes that wait for the kernel
        self._room_at = 0.0  # when it last took some
        self.latency: float | None = None  # seconds from the last answered ping to its pong

    # Pings

    def ping_every(self, seconds: float) -> None:
        """Ping at an interval."""
        self._loop.update_now()  # its clock stands still while the hub does not run
        self._ticker = self._loop.timer(seconds, seconds)
        self._ticker.start(self._connection.guard, self._tick)

    def _tick(self) -> None:
        # Not while the last ping still waits for a sign of life.
        if self._deadline is None or self._connection.heard:
            _stop(self._deadline)
            self._deadline = None
            self._connection.ping(b"")

    def sent_ping(self, data: bytes, callback: Callback | None) -> None:
        """Remember a ping until its pong comes, and expect a sign of life."""
        self._pings.append(_Ping(data, perf_counter(), callback))
        del self._pings[:-MAX_PINGS]
        seconds = self._connection.settings.ping_timeout
        # The first of several pings sets the deadline: a later one does not move it.
        if seconds and self._deadline is None:
            self._connection.heard = False
            self._deadline = self._expect(seconds, self._check_life)

    def match_pong(self, data: bytes) -> list[Callback]:
        """The callbacks of the pings that a pong answers: its own and those before it."""
        # RFC 6455 §5.5.3: a peer may answer only the latest of several pings.
        for index in range(len(self._pings) - 1, -1, -1):
            if self._pings[index].data == data:
                answered = self._pings[: index + 1]
                del self._pings[: index + 1]
                self.latency = perf_counter() - answered[-1].sent_at
                life = self._connection.closing.life
                if life is not None:
                    life.count(tally.PINGS, self.latency)
                return [ping.callback for ping in answered if ping.callback is not None]
        return []

    # The application's check

    def ask_every(self, seconds: float, ask: Ask) -> None:
        """Call ``ask`` at an interval, in a greenlet, until the connection ends."""
        self._check = Check(self._connection, seconds, ask)

    @property
    def is_asking(self) -> bool:
        """Whether the application is being asked now."""
        return self._check is not None and self._check.is_asking

    # Deadlines

    def _check_life(self) -> None:
        _stop(self._deadline)
        self._deadline = None
        connection, stream = self._connection, self._connection.stream
        # While reading is paused, no sign of life can be seen. And after a busy time of the hub the
        # timer may come before the bytes that have arrived: they are read first.
        if connection.heard or stream is None or not stream.is_reading:
            return
        stream.readable()
        if not connection.heard and not stream.closed:
            connection.closing.lose("the peer gave no sign of life")

    def expect_message(self, step: int) -> None:
        """A message has arrived in part. The deadline moves when ``step`` is another number."""
        seconds = self._connection.settings.message_timeout
        if step != self._step and seconds is not None:
            self._step = step
            self._step_at = perf_counter()
            if self._arriving is None:
                self._arriving = self._expect(seconds, self._check_message)

    def excuse_message(self) -> None:
        """Reading goes on after a pause of ours: the deadline begins anew."""
        self._step_at = perf_counter()

    def _check_message(self) -> None:
        _stop(self._arriving)
        self._arriving = None
        connection, stream = self._connection, self._connection.stream
        seconds = connection.settings.message_timeout
        if not stream.is_reading:
            self.excuse_message()
        elif self._step_at + seconds <= perf_counter():
            stream.readable()  # as in ``_check_life``
        if connection.closing.phase is not Phase.OPEN:
            return
        step = connection.driver.unfinished
        rest = self._step_at + seconds - perf_counter()
        if not step:
            self._step = 0
        elif step == self._step and rest <= 0 and stream.is_reading:
            connection.give_up(CloseCode.POLICY_VIOLATION, LATE_MESSAGE)
        elif self._arriving is None:
            self._arriving = self._expect(rest, self._check_message)

    def expect_room(self) -> None:
        """Bytes wait for the kernel."""
        seconds = self._connection.settings.send_timeout
        self.note_room()
        if self._sending is None and seconds is not None:
            self._sending = self._expect(seconds, self._check_sending)

    def note_room(self) -> None:
        """The kernel has taken some of them."""
        self._room_at = perf_counter()

    def _check_sending(self) -> None:
        _stop(self._sending)
        self._sending = None
        connection, stream = self._connection, self._connection.stream
        if not stream.is_blocked:
            return
        rest = self._room_at + connection.settings.send_timeout - perf_counter()
        # After a busy time of the hub the timer may come before the kernel's room.
        if rest <= 0 and not stream.writable():
            connection.closing.lose("the peer has read nothing in time")
        elif stream.is_blocked and self._sending is None:
            self._sending = self._expect(rest, self._check_sending)

    def expect_end(self, seconds: float, end: Callback) -> None:
        """Call ``end`` in ``seconds``; a later call replaces an earlier one."""
        _stop(self._ending)
        self._ending = self._expect(seconds, end)

    def forget_end(self) -> None:
        """Take ``expect_end`` back."""
        _stop(self._ending)
        self._ending = None

    def stop(self) -> None:
        """Stop and free all timers."""
        if self._check is not None:
            self._check.stop()
        _stop(self._ticker, self._deadline, self._ending, self._arriving, self._sending)
        if self._ticker is not None:
            self._ticker.close()
        self._ticker = self._deadline = self._ending = self._arriving = self._sending = None

    def _expect(self, seconds: float, end: Callback) -> Deadline:
        return Deadline(self._connection.hub, seconds, end, self._connection.guard)


def _stop(*timers: Any) -> None:
    for timer in timers:
        if timer is not None:
            timer.stop()
