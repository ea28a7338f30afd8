"""Threads and their hubs: which connections a hub serves, and how both end.

A connection belongs to the hub of the thread that made it. In a main greenlet, or under
monkey patching, that hub runs for the whole process. On threaded servers it is the hub of the
view's thread, and lives as long as something is served in it: gevent would leave its
descriptors behind, so it is destroyed here. A view that raises, or that returns another
response than its WebSocket's, leaves its connection without a thread: it is ended when the
server lets go of the request. What a client has made in a thread ends with the thread.

Nothing tells a connection that its process stops. While a hub serves connections, one timer of
it asks ``find_stop_sign``'s answer. An ``atexit`` hook would be too late in a thread, and is
``wsgi.worker``'s.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Callable, Protocol

import gevent
from gevent.exceptions import HubDestroyed, LoopExit
from gevent.monkey import get_original
from greenlet import getcurrent

from faye_wsgi.driver.frames import CloseCode

__all__ = [
    "Member",
    "abandon",
    "end_alone",
    "end_in_thread",
    "forget",
    "go_away",
    "is_alone",
    "join",
    "leave",
    "members",
    "release",
    "release_hub",
    "reserve",
    "tell_in_thread",
    "watch_thread",
]

get_ident = get_original("_thread", "get_ident")
_start_new_thread = get_original("_thread", "start_new_thread")

POLL_INTERVAL = 0.25  # seconds between two looks at the process


class Member(Protocol):
    """The end of a live connection (``closing.Closing``), as its hub sees it."""

    @property
    def dispatcher(self) -> Any:
        """Runs its listeners; ``tell_here`` does so in the caller's thread."""

    @property
    def is_over(self) -> bool:
        """Whether it needs the hub no more."""

    def go_away(self) -> None:
        """The process stops: begin the closing handshake with 1001, in the hub's next turn."""

    def abandon(self, code: int) -> bool:
        """End at once, whatever thread this is; whether listeners must be told of it."""


def _no_stop_sign() -> Callable[[], bool] | None:
    return None


# Gives a function that tells whether this process is about to stop; ``wsgi.worker`` knows one.
find_stop_sign = _no_stop_sign


class _Registry:
    """The connections of one hub."""

    def __init__(self, hub: Any) -> None:
        self.members: set[Member] = set()
        self.idle: list[Any] = []  # the greenlet that rests between jobs
        self._hub = hub
        self._poll = hub.loop.timer(POLL_INTERVAL, POLL_INTERVAL, ref=False)
        self._is_stopping = find_stop_sign()
        if self._is_stopping is not None:
            self._poll.start(self._look)

    def _look(self) -> None:
        if self._is_stopping is not None and self._is_stopping():
            self._poll.stop()
            self.go_away()

    def go_away(self) -> None:
        for member in list(self.members):
            member.go_away()

    def close(self) -> None:
        resting = self.idle[:]
        self.idle[:] = [None]  # so that nobody else comes to rest here
        for greenlet in resting:
            self._hub.loop.run_callback(greenlet.switch, None)
        self.stop()

    def stop(self) -> None:
        """Look at the process no more."""
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


def go_away(hub: Any) -> None:
    """The process stops: 1001 for all connections that ``hub`` serves."""
    registry = _registries.get(hub)
    if registry is not None:
        registry.go_away()


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


# Threads whose hub ends with them


def abandon(member: Member, code: int) -> None:
    """End a connection whose thread serves it no more; its listeners hear of it elsewhere."""
    if member.abandon(code):
        # Not here: this may run in the collection of garbage, whose thread may hold any lock.
        tell_in_thread(member.dispatcher)


def tell_in_thread(dispatcher: Any) -> None:
    """Tell listeners what waits for them in a new thread: no hub runs that could."""
    _start_new_thread(_tell, (dispatcher,))


def _tell(dispatcher: Any) -> None:
    dispatcher.tell_here()
    release_hub()


class _ThreadEnd:
    """Ends with a thread, and with it the hub that was made there.

    gevent would leave the hub's descriptors behind.
    """

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.process = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.process:
            return  # in the child of a fork, which has but one thread: ours did not end
        for member in members(self.hub):
            abandon(member, CloseCode.GOING_AWAY)
        loop, self.hub.loop = self.hub.loop, None  # so that nothing more is asked of it
        if loop is not None:
            loop.destroy()


_here = get_original("_thread", "_local")()


def watch_thread() -> None:
    """End with this thread what is about to be made in it, its hub included."""
    if gevent._hub_local.get_hub_if_exists() is None:
        hub = gevent.get_hub()
        if not hub.loop.default:
            _here.end = _ThreadEnd(hub)


def is_alone() -> bool:
    """Whether the caller is no greenlet of a hub's, which thus runs only while it waits."""
    return getcurrent().parent is None


def end_in_thread(connection: Any) -> None:
    """Wait for the end of a connection whose thread is about to leave it."""
    connection.closing.wait_told()
    gevent.sleep(0)  # for what other threads have asked of the hub
    connection.dispatcher.leave_hub()
    release_hub()


def end_alone(connection: Any) -> None:
    """The same for one that is being closed, where the caller alone runs its hub."""
    if is_alone() and not connection.is_elsewhere:
        connection.closing.wait_told()
        gevent.sleep(0)
        end, hub = getattr(_here, "end", None), gevent.get_hub()
        if end is not None and end.hub is hub and not hub.loop.activecnt:
            release_hub()


def release_hub() -> None:
    """Destroy this thread's hub (it holds descriptors), unless it still serves something."""
    try:
        hub = gevent._hub_local.get_hub_if_exists()
    except AttributeError:
        return  # the thread ends, and what was local to it has gone
    if hub is None or getcurrent() is hub:
        return
    if threading.current_thread() is not threading.main_thread() and release(hub):
        _destroy(hub)


def _destroy(hub: Any) -> None:
    pool, hub.threadpool = hub._threadpool, None
    if pool is not None:
        pool.kill()  # which needs the hub to run
    # The first throw ends the hub's loop, and leaves it suspended in the raising of a LoopExit
    # that holds it and the frames of whoever called, out of the garbage collector's sight. The
    # second one, in destroy(), lets it end.
    try:
        hub.throw(HubDestroyed(True))
    except LoopExit:
        pass
    hub.destroy(destroy_loop=True)
