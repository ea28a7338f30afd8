"""What a process holds: the numbers that must come back to where they were."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from pathlib import Path

from faye_wsgi.transport import served


def stats() -> dict[str, int]:
    """Counted after a collection. The request that asks is in the numbers too."""
    for _ in range(3):
        gc.collect()
    greenlets, watchers, timers = _gevent_objects()
    return {
        "pid": os.getpid(),
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
        "greenlets": greenlets,
        "watchers": watchers,
        "timers": timers,
        "threads": threading.active_count(),
        "served": served.count(),
        "rss": _resident(),
    }


def stats_json() -> str:
    return json.dumps(stats())


def _gevent_objects() -> tuple[int, int, int]:
    """Live gevent greenlets, active watchers of any kind, and the timers among them."""
    if "gevent" not in sys.modules:
        return 0, 0, 0
    from gevent import Greenlet, _hub_local, get_hub

    had_hub = _hub_local.get_hub_if_exists() is not None
    timer = get_hub().loop.timer(0)
    timer_type, watcher_type = type(timer), type(timer).__mro__[-2]
    timer.close()
    if not had_hub:  # a threaded server's thread: asking must leave nothing either
        get_hub().destroy(destroy_loop=True)
    greenlets = watchers = timers = 0
    for thing in gc.get_objects():
        greenlets += issubclass(type(thing), Greenlet)
        if issubclass(type(thing), watcher_type) and thing.active:
            watchers += 1
            timers += isinstance(thing, timer_type)
    return greenlets, watchers, timers


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
