"""A late hub is not a dead peer.

While code blocks the hub, or the process is stopped (SIGSTOP), nothing is read: what the peers have
sent waits in the kernel. So this time is not counted against them. A ``Deadline`` is a timer that
is moved by the time that its hub was late. A ``Pace`` knows that time: each deadline that fires,
and the timer of ``hubs`` that looks at the process, tells it when it should have been called.
"""

from __future__ import annotations

import logging
import weakref
from time import perf_counter
from typing import Any, Callable

__all__ = ["Deadline", "Pace", "pace_of"]

log = logging.getLogger("faye_wsgi")

LATE = 0.25  # seconds: a timer that is so late was not only behind others
ALARMING = 1.0  # seconds without the hub that the operator should know of
WARN_INTERVAL = 60.0  # seconds between two warnings


class Pace:
    """How late one hub has been. To be used in its thread.

    ``lost`` are seconds, all in all. ``is_watched`` says that the watchdog logs what blocks it.
    """

    def __init__(self) -> None:
        self.lost = 0.0
        self.is_watched = False
        self._ran_at = perf_counter()  # the hub is known to have run then
        self._warn_at = self._ran_at

    def note(self, due: float) -> float:
        """A timer that was ``due`` is called. Returns how late, as far as no other has told."""
        now = perf_counter()
        late = now - max(due, self._ran_at)
        self._ran_at = now
        if late < LATE:
            return 0.0
        self.lost += late
        return late

    def warn(self, late: float) -> None:
        """Log that the hub was late, where nothing else tells what has blocked it."""
        now = perf_counter()
        if late < ALARMING or self.is_watched or now < self._warn_at:
            return
        self._warn_at = now + WARN_INTERVAL
        log.warning(
            "gevent's hub did not run for %.1f s, and no connection of this process was served: "
            "code has blocked it, or the process was stopped. With FAYE_WSGI_DEBUG=1 the stack of "
            "such code is logged (this is said once a minute)",
            late,
        )


_paces: weakref.WeakKeyDictionary[Any, Pace] = weakref.WeakKeyDictionary()


def pace_of(hub: Any) -> Pace:
    """The pace of ``hub``."""
    pace = _paces.get(hub)
    if pace is None:
        pace = _paces[hub] = Pace()
    return pace


def _call(function: Callable[..., object], *args: Any) -> None:
    function(*args)


class Deadline:
    """Calls ``end`` in ``seconds`` of ``hub``, and later if the hub was late meanwhile.

    It is moved by no more than ``seconds`` in all. Else peers that keep the hub busy would never
    come to their deadline. ``guard(function)`` calls it for the hub.
    """

    __slots__ = ("_due", "_end", "_grace", "_guard", "_hub", "_lost", "_pace", "_timer")

    def __init__(
        self,
        hub: Any,
        seconds: float,
        end: Callable[[], object],
        guard: Callable[..., object] = _call,
    ) -> None:
        self._hub = hub
        self._end = end
        self._guard = guard
        self._grace = seconds
        self._pace = pace_of(hub)
        self._lost = self._pace.lost
        self._start(seconds)

    def _start(self, seconds: float) -> None:
        loop = self._hub.loop
        loop.update_now()  # the loop's clock stands still while the hub does not run
        self._due = perf_counter() + seconds
        self._timer = loop.timer(max(seconds, 0.0))
        self._timer.start(self._guard, self._expire)

    def _expire(self) -> None:
        self._pace.note(self._due)
        late, self._lost = self._pace.lost - self._lost, self._pace.lost
        moved = min(late, self._grace)
        if moved > 0:
            self._grace -= moved
            self.stop()
            self._start(moved)
        else:
            self._end()

    def stop(self) -> None:
        """Call nothing any more, and free the timer."""
        self._timer.stop()
        self._timer.close()
