"""Finding the code that blocks a hub.

Code that waits without gevent's knowledge, or computes for long, stops all connections of its hub,
and nothing else tells where it is. A timer of the hub sets a counter back, and a thread of the
interpreter increments it. When the timer has not run for ``PATIENCE`` ticks of that thread, the
thread takes the stack of the hub's thread; the hub logs it when it runs again. Ticks, and not a
clock: a process that was stopped as a whole (SIGSTOP) has missed none.

The danger is in logging from that thread: under monkey patching the locks of ``logging`` are
gevent's, and the code that blocks may hold one. So the thread only collects text.

gevent has a monitoring thread, too (``GEVENT_MONITOR_THREAD_ENABLE``). It is not used here: it
traces each switch of greenlets, which then takes five times as long, it writes to standard error,
and its threshold is a setting of the whole process, which belongs to the application.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

from gevent.monkey import get_original

from faye_wsgi.transport import fork, hubs, lateness

__all__ = ["Watchdog", "watch"]

log = logging.getLogger("faye_wsgi")

_start_new_thread = get_original("_thread", "start_new_thread")
_sleep = get_original("time", "sleep")
_monotonic = get_original("time", "monotonic")

INTERVAL = 0.25  # seconds between two turns of the timer, and two ticks of the thread
PATIENCE = 4  # ticks without a turn after which the stack is taken

_watchdogs: dict[Any, Watchdog] = {}


def watch(hub: Any) -> None:
    """Log what blocks ``hub`` for more than a second, from now on; in the thread of the hub.

    The log has one WARNING each time, with the stack of the code that blocks. Nothing is logged
    while the hub serves no connections. Nothing happens if the hub is watched already.
    """
    if hub not in _watchdogs:
        watchdog = _watchdogs[hub] = Watchdog(hub)
        fork.watch(watchdog)
        watchdog.start()


class Watchdog:
    """Watches one hub until the hub is destroyed, or its thread ends."""

    def __init__(self, hub: Any) -> None:
        self.stack: list[str] = []  # what blocks the hub, and is not logged yet
        self._hub = hub
        self._pace = lateness.pace_of(hub)
        self._missed = 0
        self._last_turn = _monotonic()
        self._timer: Any = None
        self._is_stopped = False

    def start(self) -> None:
        """Start the timer and the thread."""
        self._pace.is_watched = True
        self._timer = self._hub.loop.timer(INTERVAL, INTERVAL, ref=False)
        self._timer.start(self.turn)
        _start_new_thread(self._run, ())

    def stop(self) -> None:
        """Stop both; in the thread of the hub."""
        self._timer.stop()
        self._timer.close()
        self._end()

    def forget(self, hub: Any) -> object:
        """In the child of a fork: the thread is the parent's, and so are other threads' hubs."""
        if hub is self._hub:
            self.stop()
        else:
            self._end()
        return self

    # In the hub

    def turn(self) -> None:
        """The hub runs: log what has blocked it."""
        now = _monotonic()
        stack, self.stack = self.stack, []
        if stack and self._missed >= PATIENCE:  # else it was taken when the hub ran again already
            log.warning(
                "the hub was blocked for %.1f s: no connection of it was served meanwhile. Let "
                "this code wait in gevent (monkey.patch_all()), or move it to "
                "gevent.get_hub().threadpool (most recent call last):\n%s",
                now - self._last_turn,
                "".join(stack).rstrip(),
            )
        self._last_turn = now
        self._missed = 0

    # In the thread

    def _run(self) -> None:
        while not self._is_stopped:
            _sleep(INTERVAL)
            self.tick()

    def tick(self) -> None:
        """Take the stack if the hub has not run for too long, once until it runs again."""
        if self._hub.loop is None:  # destroyed, and the timer with it
            self._end()
            return
        self._missed += 1  # this may undo a turn at the same time, and the next one corrects it
        if self._missed < PATIENCE or self.stack or not hubs.members(self._hub):
            return
        frame = sys._current_frames().get(self._hub.thread_ident)
        if frame is None:
            self._end()
            return
        self.stack = traceback.format_stack(frame)

    def _end(self) -> None:
        self._pace.is_watched = False
        self._is_stopped = True
        _watchdogs.pop(self._hub, None)
