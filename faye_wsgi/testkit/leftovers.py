"""What a test's requests have left behind: connections, greenlets, threads and descriptors.

The process is looked at when the first of the live requests begins, and again when the last one
has ended: between the two nothing can tell whose a descriptor is. A greenlet counts if the
application has spawned it, or one of its greenlets has.
"""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import gevent
from gevent.lock import RLock
from greenlet import getcurrent

from faye_wsgi.testkit.request import Request, wait_until
from faye_wsgi.transport import hubs

__all__ = ["KINDS", "begin", "end"]

KINDS = ("connections", "greenlets", "threads", "descriptors")
PATIENCE = 1.0  # seconds that what is ending has
_FDS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"

_lock = RLock()
_live: set[Request] = set()
_spawned: list[Any] = []
_before: _Look | None = None


class _Look:
    """What this process holds now."""

    def __init__(self) -> None:
        self.connections = {id(one): one for one in hubs.members(gevent.get_hub())}
        self.threads = {id(one): one for one in threading.enumerate()}
        self.descriptors = _descriptors()

    def new_since(self, before: _Look) -> dict[str, list[str]]:
        connections = [
            repr(getattr(one.dispatcher, "sink", one))
            for key, one in self.connections.items()
            if key not in before.connections
        ]
        threads = [repr(one) for key, one in self.threads.items() if key not in before.threads]
        descriptors = [
            f"{fd} ({name})"
            for fd, name in self.descriptors.items()
            if fd not in before.descriptors
        ]
        greenlets = [repr(one) for one in _spawned if not one.dead]
        return dict(zip(KINDS, (connections, greenlets, threads, descriptors)))


def _descriptors() -> dict[int, str]:
    found = {}
    try:
        names = os.listdir(_FDS)
    except OSError:  # there is no list of them on this platform
        return {}
    for name in names:
        try:
            # Also for the descriptor of listdir itself, which is closed by now.
            found[int(name)] = os.readlink(f"{_FDS}/{name}") if _FDS[1] == "p" else "open"
        except OSError:
            pass
    return found


def _note_spawned(greenlet: Any) -> None:
    if getcurrent() in _spawned or any(request.is_current() for request in list(_live)):
        _spawned.append(greenlet)


def look() -> None:
    """Look at the process, if no other request is live; before the request is made."""
    global _before
    with _lock:
        if not _live:
            gevent.get_hub()  # it has descriptors of its own
            _before = _Look()
            gevent.Greenlet.add_spawn_callback(_note_spawned)


def begin(request: Request) -> None:
    """A request begins."""
    with _lock:
        _live.add(request)


def end(request: Request, keeps: tuple[str, ...] = ()) -> list[str]:
    """A request has ended: what is left behind, in words, but for the kinds in ``keeps``."""
    with _lock:
        _live.discard(request)
        if _live or _before is None:
            return []
        gevent.Greenlet.remove_spawn_callback(_note_spawned)
        before = _before

        def is_clean() -> bool:
            new = _Look().new_since(before)
            return not any(new[kind] for kind in KINDS if kind not in keeps)

        if not is_clean() and not wait_until(is_clean, PATIENCE / 4):
            gc.collect()  # what only a cycle of references keeps is not left behind
            wait_until(is_clean, PATIENCE)
        new = _Look().new_since(before)
        _spawned.clear()
    return [f"{kind}: {', '.join(new[kind])}" for kind in KINDS if new[kind] and kind not in keeps]
