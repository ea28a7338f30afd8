"""Threads and their hubs: which connections a hub serves, and how both end.

A connection belongs to the hub of the thread that made it. In the main thread, or under
monkey patching, that hub runs for the whole process. On threaded servers it is the hub of the
view's thread, and it lives as long as a connection is served in it. gevent does not close the
descriptors of a hub whose thread ends, so the hub is destroyed here.

The danger is a connection without a thread: its hub never runs again, and its peer waits for
ever. Three cases are handled. A view that raises, or that returns another response than its
WebSocket's, loses the thread: the connection is ended when the server drops the request
(``wsgi.handover``). A client that was made in a thread ends with that thread (``watch_thread``).
And a hub is not destroyed while a connection is being made in its thread (``reserve``).

No event tells a connection that its process stops. So each hub that serves connections has one
timer, which calls the function that ``find_stop_sign`` has returned. Where that tells nothing,
an ``atexit`` hook of ``wsgi.worker`` calls ``go_away``. It comes too late for threads that are
not daemons, for the interpreter waits for these first.

Where there is time (``Stop.left``), each look at the process closes a share of the connections, by
lot. So no connection needs a timer of its own, the hubs of a process need not agree, and what is
accepted meanwhile has the rest of the time.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from contextlib import suppress
from random import random
from time import perf_counter
from typing import Any, Callable, NamedTuple, Protocol

import gevent
from gevent.exceptions import HubDestroyed, LoopExit
from gevent.monkey import get_original
from greenlet import getcurrent

from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.transport import checks, lateness, memory, served, tally

__all__ = [
    "Member",
    "Stop",
    "abandon",
    "call_in_turn",
    "end_alone",
    "end_in_thread",
    "forget",
    "get_hub",
    "give_memory_back",
    "go_away",
    "is_alone",
    "join",
    "leave",
    "members",
    "release",
    "release_hub",
    "release_own_hub",
    "reserve",
    "serve_any",
    "tell_in_thread",
    "watch_thread",
]

_close = get_original("os", "close")
get_ident = get_original("_thread", "get_ident")
_start_new_thread = get_original("_thread", "start_new_thread")

POLL_INTERVAL = 0.25  # seconds between two looks at the process
QUIET = 5.0  # seconds without a large message, after which their memory is given back
LEAST_RATE = 100  # connections that a process closes in a second, at least, when it stops


class Member(Protocol):
    """The end of a live connection (``closing.Closing``, ``feed.Feed``), as its hub sees it."""

    @property
    def dispatcher(self) -> Any:
        """The dispatcher, which runs the listeners; ``tell_here`` runs them in this thread."""

    @property
    def is_over(self) -> bool:
        """Whether it no longer needs the hub."""

    def go_away(self, code: int) -> None:
        """The process stops: begin the closing handshake with ``code``, in the hub's next turn.

        It may be called again, also while the connection is not open yet.
        """

    def abandon(self, code: int) -> bool:
        """End at once, from any thread. Returns whether listeners have still to be told."""


class Stop(NamedTuple):
    """The process stops: its connections are closed with ``code``, within ``left`` seconds."""

    code: int = CloseCode.GOING_AWAY
    left: float = 0.0

    def share(self, count: int) -> float:
        """The share of ``count`` connections that one look at the process closes."""
        if self.left <= POLL_INTERVAL or count <= 0:
            return 1.0
        return POLL_INTERVAL * max(1 / self.left, LEAST_RATE / count)


def _no_stop_sign() -> Callable[[], Stop | None] | None:
    return None


# Returns a function that says how this process is about to stop, or None. ``wsgi.worker`` puts its
# own here.
find_stop_sign = _no_stop_sign


class _Registry:
    """The connections of one hub."""

    def __init__(self, hub: Any) -> None:
        self.members: set[Member] = set()
        self.idle: list[Any] = []  # the greenlet that rests between jobs
        self._hub = hub
        self._poll = hub.loop.timer(POLL_INTERVAL, POLL_INTERVAL, ref=False)
        self._pace = lateness.pace_of(hub)
        self._runs_on = not is_alone()
        self._due = perf_counter() + POLL_INTERVAL  # of the next look
        self._find_stop = find_stop_sign()
        if self._find_stop is not None or tally.is_on:
            self._poll.start(self._look)
        self._turns: deque[tuple[Any, ...]] = deque()
        self._turn = hub.loop.timer(0.0)
        self._quiet = hub.loop.timer(QUIET, QUIET, ref=False)
        self._is_quiet = True

    def call_in_turn(self, first: bool, *call: Any) -> None:
        if first:
            self._turns.appendleft(call)
        else:
            self._turns.append(call)
        if not self._turn.active:
            self._turn.start(self._take_turn)

    def _take_turn(self) -> None:
        function, *args = self._turns.popleft()
        if self._turns:
            self._turn.start(self._take_turn)
        function(*args)

    def _look(self) -> None:
        if self._runs_on and tally.is_on:
            tally.count(tally.LAG, (), max(0.0, perf_counter() - self._due))
        late = self._pace.note(self._due)
        self._due = perf_counter() + POLL_INTERVAL
        if self._runs_on:  # else the hub runs only while the view of its one connection waits
            self._pace.warn(late)
        # Again and again: a server may accept connections for a second after its own signal.
        stop = None if self._find_stop is None else self._find_stop()
        if stop is not None:
            self.go_away(stop)

    def give_memory_back(self) -> None:
        self._is_quiet = False
        if not self._quiet.active:
            self._quiet.start(self._look_for_quiet)

    def _look_for_quiet(self) -> None:
        if self._is_quiet:
            self._quiet.stop()
            memory.give_back()
        self._is_quiet = True

    def go_away(self, stop: Stop = Stop()) -> None:  # noqa: B008
        count = served.count()
        share = stop.share(count)
        for member in list(self.members):
            if share >= 1.0:
                member.go_away(stop.code if served.has(member) else CloseCode.GOING_AWAY)
            elif served.has(member) and random() < share:
                member.go_away(stop.code)

    def close(self) -> None:
        resting = self.idle[:]
        # A greenlet rests only in an empty list. With an item in it, a greenlet that has run its
        # jobs ends, instead of resting in a registry that is gone.
        self.idle[:] = [None]
        for greenlet in resting:
            self._hub.loop.run_callback(greenlet.switch, None)
        if self._quiet.active:
            memory.give_back()
        self.stop()

    def stop(self) -> None:
        """Stop looking at the process, and drop the calls that wait for their turn."""
        self._turns.clear()
        for timer in (self._poll, self._turn, self._quiet):
            timer.stop()
            timer.close()


_registries: dict[Any, _Registry] = {}


def join(hub: Any, member: Member) -> list[Any]:
    """Enter a connection that ``hub`` serves; returns the list of the hub's resting greenlets."""
    registry = _registries.get(hub)
    if registry is None:
        registry = _registries[hub] = _Registry(hub)
    registry.members.add(member)
    return registry.idle


def leave(hub: Any, member: Member) -> None:
    """Remove a connection that has ended; the last one takes the timer with it."""
    served.leave(member)
    registry = _registries.get(hub)
    if registry is None:
        return
    registry.members.discard(member)
    if not registry.members:
        del _registries[hub]
        registry.close()


# Connections that are being made in a thread whose hub does not run. A hub without connections
# may be destroyed; these entries protect it until the connection has been entered.
_reserved: weakref.WeakKeyDictionary[Any, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()

# Threads that are inside ``reserve``. The danger: what ``reserve`` creates may start garbage
# collection, which may end another connection and call ``release`` for this very hub, after
# ``reserve`` has got it and before it has entered the reservation.
_reserving: set[int] = set()


def reserve(member: Member) -> Any:
    """The hub of this thread, kept for a connection that has not been entered yet."""
    thread = get_ident()
    _reserving.add(thread)
    try:
        hub = get_hub()
        if getcurrent().parent is None:  # in a greenlet the hub runs, and is not destroyed
            _reserved.setdefault(hub, weakref.WeakSet()).add(member)
        return hub
    finally:
        _reserving.discard(thread)


def get_hub() -> Any:
    """The hub of this thread, made if there is none; OSError without descriptors for it.

    They are tried before: where libev finds none for the pipe of a new loop, it tries again without
    an end, and writes a line to stderr each time.
    """
    if gevent._hub_local.get_hub_if_exists() is None:
        tried: list[int] = []
        try:
            for _ in range(2):
                tried += os.pipe()
        finally:
            for fd in tried:
                _close(fd)
    return gevent.get_hub()


def call_in_turn(hub: Any, first: bool, function: Callable[..., object], *args: Any) -> None:
    """Call ``function`` in a later turn of ``hub``, which makes one such call in each.

    With ``first`` it is the next one, else those come before it that wait already.

    That is for long work. A callback of gevent's loop would not do: the loop runs many of them,
    also those that they add, before it looks at the sockets again. A timer of 0 seconds comes after
    the sockets.
    """
    registry = _registries.get(hub)
    if registry is not None:
        registry.call_in_turn(first, function, *args)


def give_memory_back(hub: Any) -> None:
    """Large messages arrive: give their memory back when no more have come for ``QUIET``."""
    registry = _registries.get(hub)
    if registry is not None:
        registry.give_memory_back()


def members(hub: Any) -> list[Member]:
    """The live connections that ``hub`` serves."""
    registry = _registries.get(hub)
    return [] if registry is None else list(registry.members)


def serve_any() -> bool:
    """Whether there are live connections in this process, in any thread."""
    return bool(_registries)


def go_away() -> None:
    """The process stops: 1001 for all its connections, each in the next turn of its hub."""
    # A copy, which is made at once: other threads may enter and remove connections meanwhile.
    for hub, registry in _registries.copy().items():
        loop = hub.loop
        if loop is not None:
            with suppress(ValueError):  # another thread has just destroyed it
                loop.run_callback_threadsafe(registry.go_away)


def release(hub: Any) -> bool:
    """True if no connection needs ``hub``: then its reservations are dropped."""
    reserved = _reserved.get(hub, ())
    if get_ident() in _reserving:
        return False
    if members(hub) or not all(member.is_over for member in reserved):
        return False
    _reserved.pop(hub, None)
    return True


def forget(hub: Any) -> object:
    """Drop all registries, in the child of a fork, where only ``hub`` still runs.

    Their connections are the parent's. The registries are returned, to be kept.
    """
    kept = dict(_registries)
    if hub in kept:
        kept[hub].stop()
    _registries.clear()
    served.forget()
    checks.forget()
    _reserved.clear()
    _reserving.clear()
    return kept


# Threads whose hub ends with them


def abandon(member: Member, code: int) -> None:
    """End a connection whose thread no longer serves it; a new thread tells its listeners."""
    if member.abandon(code):
        # Listeners must not run here. Garbage collection may have called this in the middle of any
        # code, which may hold a lock that a listener needs: that would be a deadlock.
        tell_in_thread(member.dispatcher)


def tell_in_thread(dispatcher: Any) -> None:
    """Run the listeners' jobs in a new thread, since no hub runs that could do it."""
    _start_new_thread(_tell, (dispatcher,))


def _tell(dispatcher: Any) -> None:
    dispatcher.tell_here()
    release_hub()


class _ThreadEnd:
    """Ends together with its thread, and then ends the hub that was made there.

    gevent does not close the descriptors of a hub whose thread ends. A thread has no hook for its
    end, but its local objects are collected in the thread itself as it ends. So this object is one
    of them, and has a ``__del__``.
    """

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.process = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.process:
            return  # in the child of a fork: the thread still runs, in the parent
        for member in members(self.hub):
            abandon(member, CloseCode.GOING_AWAY)
        loop, self.hub.loop = self.hub.loop, None  # so that other threads leave no more calls
        if loop is not None:
            loop.destroy()


_here = get_original("_thread", "_local")()


def watch_thread() -> None:
    """Let the connections and the hub that are made in this thread end together with it."""
    if gevent._hub_local.get_hub_if_exists() is None:
        hub = get_hub()
        if not hub.loop.default:
            _here.end = _ThreadEnd(hub)


def is_alone() -> bool:
    """Whether the caller is its thread's main greenlet: its hub runs only while it waits."""
    return getcurrent().parent is None


def end_in_thread(connection: Any) -> None:
    """Wait for the end of a connection whose thread is about to leave it."""
    connection.closing.wait_told()
    gevent.sleep(0)  # a turn of the hub, which runs the calls that other threads have left
    connection.dispatcher.leave_hub()
    release_hub()


def end_alone(connection: Any) -> None:
    """``end_in_thread`` for a client that is being closed, if only the caller runs its hub."""
    if is_alone() and not connection.is_elsewhere:
        connection.closing.wait_told()
        gevent.sleep(0)
        release_own_hub()


def release_own_hub() -> None:
    """``release_hub``, if a client has made the hub of this thread, and it has no more to do."""
    end, hub = getattr(_here, "end", None), gevent.get_hub()
    if end is not None and end.hub is hub and not hub.loop.activecnt:
        release_hub()


def release_hub() -> None:
    """Destroy this thread's hub (it holds descriptors), unless it still serves something."""
    try:
        hub = gevent._hub_local.get_hub_if_exists()
    except AttributeError:
        return  # the thread is ending, and its local objects have gone
    if hub is None or getcurrent() is hub:
        return
    if threading.current_thread() is not threading.main_thread() and release(hub):
        _destroy(hub)


def _destroy(hub: Any) -> None:
    pool, hub.threadpool = hub._threadpool, None
    if pool is not None:
        pool.kill()  # first: it needs a hub that runs
    # The first throw ends the hub's loop. But it leaves the hub suspended in the raising of a
    # LoopExit, which refers to the hub and to the caller's frames, and the garbage collector
    # cannot see into a suspended greenlet: that would be a leak. The second throw, which is in
    # destroy(), lets the hub end.
    try:
        hub.throw(HubDestroyed(True))
    except LoopExit:
        pass
    hub.destroy(destroy_loop=True)
