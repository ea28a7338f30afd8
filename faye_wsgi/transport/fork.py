"""A fork: the child drops its parent's connections, and the parent goes on with them.

After a fork(2) both processes hold descriptors of the same sockets and, where a greenlet has
forked, of the same epoll set. The dangers: bytes that the child reads, the parent never gets;
bytes that the child writes come between the parent's frames, and break its TLS session. So in the
child all connections are CLOSED before the fork returns: nothing is written, no listener runs.

- A descriptor is only closed. shutdown(2) acts on the open file, which is the parent's too.
- The hub of the thread that forked gets an epoll set of its own first. Closing a descriptor does
  not change the parent's set, but stopping a watcher may. libev stops it in the next turn of the
  loop, when the set has been replaced; libuv calls epoll_ctl at once, on the parent's set.
- The hubs of other threads never run again, and the fork may have come in the middle of what
  they did: their watchers and timers are not touched.
- Greenlets that wait for a connection never wake up, and are kept in ``_kept``. Garbage collection
  would throw GreenletExit into them, and ``finally`` blocks of the parent's views would run here.
- A lock that another thread held stays locked in the child. So the locks of the process are made
  anew.

A child that starts another program (``subprocess``) does not inherit the descriptors at all: they
close on exec(2).
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any, Protocol

import gevent

from faye_wsgi.transport import crossing, hubs

__all__ = ["Inherited", "watch"]

log = logging.getLogger("faye_wsgi")


class Inherited(Protocol):
    """An object that a child process inherits, and must not use."""

    def forget(self, hub: Any) -> object:
        """Drop it, in the child, where only ``hub`` still runs; returns what must be kept.

        ``hub`` is None if the thread that forked has no hub.
        """


_live: weakref.WeakSet[Any] = weakref.WeakSet()
_kept: list[object] = []  # in a child: objects of the parent that must never be collected


def watch(thing: Inherited) -> None:
    """Have a child process forget ``thing``."""
    _live.add(thing)


def _after_fork_in_child() -> None:
    # Where ``os`` is patched gevent does this itself, but only after this function has run.
    gevent.reinit()
    hub = gevent._hub_local.get_hub_if_exists()
    things = list(_live)
    _live.clear()
    _kept.extend((things, hubs.forget(hub)))
    crossing.renew_lock()
    for thing in things:
        try:
            _kept.append(thing.forget(hub))
        except Exception:
            log.exception("a child process could not forget %r", thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
