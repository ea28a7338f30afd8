"""How often a peer may send: token buckets, and the pauses of a connection whose are empty.

A ``Bucket`` has the arithmetic, without a clock. A ``Meter`` counts what one connection receives.
Where too much has come it stops reading for a while (TCP slows the peer down), or fails the
connection. It also bounds each read, by the shortest message that there is: so that one read does
not bring a thousand messages where ten are allowed.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.transport.settings import Rate

__all__ = ["Bucket", "Meter"]

SHORTEST = 6  # bytes of an empty message of a client, in RFC 6455
PAUSE = 0.05  # seconds: a pause is no shorter, unless the bucket is full before
SLACK = 0.001  # seconds: a pause that is too short by a rounding would be followed by another one
TOO_OFTEN = "more messages were sent than are allowed"
TOO_MUCH = "more bytes were sent than are allowed"


class Bucket:
    """``burst`` tokens at once, and ``rate`` a second after that."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._filled = now

    def fill(self, now: float) -> float:
        """How many tokens there are now; below 0 if more were spent than there were."""
        self._left = min(self._burst, self._left + (now - self._filled) * self._rate)
        self._filled = now
        return self._left

    def wait(self, cost: float, now: float) -> float:
        """Seconds until there are tokens for ``cost``; nothing is spent."""
        return max(0.0, (cost - self.fill(now)) / self._rate)

    def spend(self, cost: float, now: float) -> float:
        """Spend ``cost``; returns the seconds until there would have been tokens for it."""
        seconds = self.wait(cost, now)
        self._left -= cost
        return seconds

    def pause(self, now: float) -> float:
        """Seconds to pause, until there are some tokens; 0 where there is one."""
        some = min(self._burst, max(1.0, PAUSE * self._rate))
        return self.wait(some, now) if self.wait(1, now) else 0.0


class Meter:
    """Counts what a connection receives, by its options ``rate`` and ``rate_bytes``."""

    __slots__ = ("_bytes", "_closes", "_connection", "_messages", "_timer", "is_resting")

    def __init__(self, connection: Any) -> None:
        settings, now = connection.settings, perf_counter()
        self._connection = connection
        self._messages = _make_bucket(settings.rate, now)
        self._bytes = _make_bucket(settings.rate_bytes, now)
        self._closes = settings.rate_policy == "close"
        self._timer: Any | None = None
        self.is_resting = False  # reading has stopped until there are tokens

    def allow(self, size: int) -> int:
        """How many bytes to read where ``size`` could be read; at least 1."""
        if self._closes or self._connection.state != ReadyState.OPEN:
            return size
        now = perf_counter()
        if self._messages is not None:
            # The rest of a frame that is arriving is one message, however long it is.
            missing = self._connection.driver.missing
            others = self._messages.fill(now) - bool(missing)
            size = min(size, missing + SHORTEST * int(others))
        if self._bytes is not None:
            size = min(size, int(self._bytes.fill(now)))
        return max(1, size)

    def count(self, items: list[Any], size: int) -> None:
        """``size`` bytes have come, and with them ``items``: messages, pings and pongs.

        Where the connection is failed for it, those that are too many are taken out of ``items``.
        """
        if self._connection.state != ReadyState.OPEN:
            return  # behind our close frame all is dropped
        now = perf_counter()
        seconds = 0.0
        if self._messages is not None:
            left = int(self._messages.fill(now))
            self._messages.spend(len(items), now)
            if self._closes and len(items) > left:
                del items[left:]
                self._fail(items, TOO_OFTEN)
            seconds = self._messages.pause(now)
        if self._bytes is not None:
            if self._bytes.spend(size, now) and self._closes:
                self._fail(items, TOO_MUCH)
            seconds = max(seconds, self._bytes.pause(now))
        if seconds and not self._closes:
            self._rest(seconds + SLACK)

    def _fail(self, items: list[Any], message: str) -> None:
        items += self._connection.driver.fail(CloseCode.POLICY_VIOLATION, message)

    def _rest(self, seconds: float) -> None:
        self.stop()
        self.is_resting = True
        self._connection.stream.pause_reading()
        loop = self._connection.hub.loop
        loop.update_now()  # its clock stands still while the hub does not run
        self._timer = loop.timer(seconds)
        self._timer.start(self._connection.guard, self._go_on)

    def _go_on(self) -> None:
        self.stop()
        # Else the backlog makes the connection read on, when it has room.
        if not self._connection.backlog.check_full():
            self._connection.read_on()

    def stop(self) -> None:
        """End the pause, and free its timer."""
        self.is_resting = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()


def _make_bucket(rate: Rate | None, now: float) -> Bucket | None:
    return None if rate is None else Bucket(rate[0], rate[1], now)
