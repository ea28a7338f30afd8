"""How long a client waits before it connects again: longer each time, and at random."""

from __future__ import annotations

from random import uniform
from time import monotonic
from typing import Callable

import gevent.event

__all__ = ["Backoff"]


class Backoff:
    """Delays of ``first`` seconds, then twice that, and so on up to ``most``.

    Each is cut by up to a half at random, so that the clients of a server that was
    restarted do not come back in one wave. A connection that lasted longer than
    ``most`` seconds begins anew.
    """

    def __init__(
        self,
        first: float,
        most: float,
        *,
        random: Callable[[float, float], float] = uniform,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._first = first
        self._most = most
        self._random = random
        self._clock = clock
        # gevent's events may be set from any thread.
        self._stopped = gevent.event.Event()
        self._sleep = sleep or self._stopped.wait
        self._failures = 0
        self._opened_at: float | None = None

    def stop(self) -> None:
        """Wait no more; any thread may call this."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return bool(self._stopped.is_set())

    def opened(self) -> None:
        """A connection has opened."""
        self._opened_at = self._clock()

    def reset(self) -> None:
        """Begin anew, with the first delay."""
        self._failures = 0

    def wait(
        self,
        tell: Callable[[float], object] = lambda delay: None,
        asked: float | None = None,
    ) -> None:
        """Wait before the next attempt; ``tell`` is called first, with the seconds.

        ``asked`` is the first delay that the server has asked for. What follows from it is
        lengthened by up to a half, and not cut.
        """
        if self._opened_at is not None and self._clock() - self._opened_at >= self._most:
            self._failures = 0
        self._opened_at = None
        first = self._first if asked is None else asked
        # 2 ** 64 is beyond any delay, and below what a float holds.
        delay = min(self._most, first * 2 ** min(self._failures, 64))
        self._failures += 1
        least, most = (delay / 2, delay) if asked is None else (delay, delay * 1.5)
        delay = self._random(least, most)
        tell(delay)
        self._sleep(delay)
