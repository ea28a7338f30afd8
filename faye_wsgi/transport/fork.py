"""A fork: the child lets go of its parent's connections, and the parent goes on with them.

After a fork(2) both processes hold descriptors of the same sockets and, where a greenlet has
forked, of the same epoll set. What the child read there, the parent would never see; what it
wrote would come between the parent's frames, and break TLS. So in the child all connections
are CLOSED before the fork returns, in silence: nothing is written, and no listener runs.

- A descriptor is only closed. shutdown(2) acts on the open file, which is the parent's too.
- The hub of the thread that forked gets an epoll set of its own first. Closing a descriptor
  leaves the parent's set alone, but stopping a watcher may not: libev only makes a note of
  it, and has replaced the set before it acts on that; libuv calls epoll_ctl at once.
- The hubs of other threads never run again, and the fork may have come in the middle of what
  they did: their watchers and timers are not touched.
- Greenlets that wait for a connection wait for ever, and are kept. Garbage collection would
  throw GreenletExit into them, and the ``finally`` of the parent's views would run here.
- A lock that another thread held stays locked in the child: those of the process are made
  anew.

A child that begins another program (``subprocess``) does not even inherit the descriptors:
all of them close on exec(2).
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
    """What a child process inherits, and must not use."""

    def forget(self, hub: Any) -> object:
        """Let go of it, in the child, where only ``hub`` still runs; returns what to keep.

        ``hub`` is None where the thread that forked has none.
        """


_live: weakref.WeakSet[Any] = weakref.WeakSet()
_kept: list[object] = []  # of the parent's, in a child


def watch(thing: Inherited) -> None:
    """Have a child process forget ``thing``."""
    _live.add(thing)


def _after_fork_in_child() -> None:
    # Where ``os`` is patched gevent does this itself, but after us.
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
