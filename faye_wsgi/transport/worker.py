"""The live connections of this process, and learning that it is about to stop.

Nothing tells a connection that its worker stops: gunicorn's worker only turns its
``alive`` to False. While there are connections, one timer a hub looks at it, and an
``atexit`` hook serves for the ends that leave no time to look (SIGQUIT).
"""

from __future__ import annotations

import atexit
import signal
import weakref
from typing import Any, Callable, Protocol

import gevent
from gevent.monkey import get_original
from greenlet import getcurrent

__all__ = ['Member', 'forget', 'join', 'leave', 'members', 'release', 'reserve']

get_ident = get_original('_thread', 'get_ident')

POLL_INTERVAL = 0.25  # seconds
EXIT_TIMEOUT = 0.5  # seconds that the hook at exit gives the close frames


class Member(Protocol):
    """A live connection, as the registry sees it."""

    is_over: bool

    def go_away(self) -> None:
        """The process stops: begin the closing handshake with 1001."""

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function in the next turn of the hub; what it raises ends this member."""

    def abandon(self, code: int) -> bool:
        """End at once, whatever thread this is; whether listeners must be told of it."""

    def tell_here(self) -> None:
        """Tell the listeners what waits for them, in the caller's thread."""


class _Registry:
    """The connections of one hub."""

    def __init__(self, hub: Any) -> None:
        self.members: set[Member] = set()
        self.idle: list[Any] = []  # the greenlet that rests between jobs
        self._hub = hub
        self._poll = hub.loop.timer(POLL_INTERVAL, POLL_INTERVAL, ref=False)
        self._worker = _gunicorn_worker()
        if self._worker is not None:
            self._poll.start(self._look)

    def _look(self) -> None:
        if self._worker is not None and not self._worker.alive:
            self._poll.stop()
            self.go_away()

    def go_away(self) -> None:
        for member in list(self.members):
            member.call_soon(member.go_away)  # where one raises, the others go all the same

    def close(self) -> None:
        resting = self.idle[:]
        self.idle[:] = [None]  # so that nobody else comes to rest here
        for greenlet in resting:
            self._hub.loop.run_callback(greenlet.switch, None)
        self.stop()

    def stop(self) -> None:
        """Look at the worker no more."""
        self._poll.stop()
        self._poll.close()


_registries: dict[Any, _Registry] = {}


def join(hub: Any, member: Member) -> list[Any]:
    """Enter a connection that ``hub`` serves; returns where the hub's greenlets rest."""
    registry = _registries.get(hub)
    if registry is None:
        registry = _registries[hub] = _Registry(hub)
    registry.members.add(member)
    return registry.idle


def leave(hub: Any, member: Member) -> None:
    """Remove a connection that has ended; the last one takes the timer with it."""
    registry = _registries.get(hub)
    if registry is None:
        return
    registry.members.discard(member)
    if not registry.members:
        del _registries[hub]
        registry.close()


# Connections that are being made in threads without a running hub, which must not be
# destroyed under them.
_reserved: weakref.WeakKeyDictionary[Any, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()


# Threads that are about to reserve their hub: garbage collection may call ``release`` then.
_reserving: set[int] = set()


def reserve(member: Member) -> Any:
    """The hub of this thread, kept for a connection that has not been entered yet."""
    thread = get_ident()
    _reserving.add(thread)
    try:
        hub = gevent.get_hub()
        if getcurrent().parent is None:  # else it runs, and nobody destroys it
            _reserved.setdefault(hub, weakref.WeakSet()).add(member)
        return hub
    finally:
        _reserving.discard(thread)


def members(hub: Any) -> list[Member]:
    """The live connections that ``hub`` serves."""
    registry = _registries.get(hub)
    return [] if registry is None else list(registry.members)


def release(hub: Any) -> bool:
    """Give up ``hub``, if no connection needs it; whether that is so."""
    reserved = _reserved.get(hub, ())
    if get_ident() in _reserving:
        return False
    if members(hub) or not all(member.is_over for member in reserved):
        return False
    _reserved.pop(hub, None)
    return True


def forget(hub: Any) -> object:
    """In the child of a fork, where only ``hub`` runs: none of these is its own."""
    kept = dict(_registries)
    if hub in kept:
        kept[hub].stop()
    _registries.clear()
    _reserved.clear()
    _reserving.clear()
    return kept


def _gunicorn_worker() -> Any | None:
    # gunicorn's worker answers SIGTERM with a method of its own.
    worker = getattr(signal.getsignal(signal.SIGTERM), '__self__', None)
    return worker if isinstance(getattr(worker, 'alive', None), bool) else None


@atexit.register
def _at_exit() -> None:
    registry = _registries.get(gevent.get_hub()) if _registries else None
    if registry is None:
        return
    registry.go_away()
    with gevent.Timeout(EXIT_TIMEOUT, False):
        while registry.members:
            gevent.sleep(0.01)
