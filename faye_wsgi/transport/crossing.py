"""Calls from other threads: how they reach the thread of a connection, and how they wait.

A connection belongs to one thread, and everything in it runs there: in that thread's hub,
or in a greenlet of it. So another thread changes nothing itself. It leaves a job here and
wakes the hub, which runs the jobs in their order. Where the connection's own thread sends
or closes before the hub has come to that, it runs them first: what was handed over earlier
goes out earlier.

The danger is in waiting. A thread that waits for a connection must block in a way that
suits it. If it has a hub of its own, only the calling greenlet may wait, so an ``async``
watcher wakes it up. If it has none, the thread itself must block: on a lock of ``_thread``
as it was before monkey patching, because gevent's locks need a hub in the waiting thread,
and may raise in the hub that releases them.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable

import gevent
from gevent.monkey import get_original
from greenlet import getcurrent

__all__ = ["Crossing", "renew_lock", "wait_elsewhere"]

_allocate_lock = get_original("_thread", "allocate_lock")
_TIMEOUT_MAX = get_original("_thread", "TIMEOUT_MAX")
_counting = _allocate_lock()

Tell = Callable[[], object]


def renew_lock() -> None:
    """Make the lock anew, in the child of a fork: a thread of the parent may have held it."""
    global _counting
    _counting = _allocate_lock()


class Crossing:
    """The jobs that other threads have left for the thread of one connection."""

    __slots__ = ("_guard", "_hub", "handed_over", "jobs")

    def __init__(self, hub: Any, guard: Callable[..., object]) -> None:
        self._hub = hub
        self._guard = guard  # a job that raises ends the connection, and not the hub
        # An empty tuple, and a deque from the first call on: append and popleft are atomic, so
        # the threads need no lock. The hot path only asks whether it is empty.
        self.jobs: Any = ()
        self.handed_over = 0  # bytes of messages among the jobs

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have ``function`` called in the thread of the hub; from any thread."""
        with _counting:  # two threads must not make two deques
            if not self.jobs and type(self.jobs) is tuple:
                self.jobs = deque()
        self.jobs.append((function, args))
        loop = self._hub.loop
        if loop is not None:  # None: the connection's thread, and its hub, have ended
            loop.run_callback_threadsafe(self._guard, self.run)

    def hand_over(self, send: Callable[[Any], object], message: Any) -> None:
        """Have ``send(message)`` called there, and count the message until it is."""
        self._count(len(message))
        self.call(self._send, send, message)

    def run(self) -> None:
        """Run the jobs in their order; in the thread of the hub, in any of its greenlets."""
        jobs = self.jobs
        while jobs:
            function, args = jobs.popleft()
            function(*args)

    def forget(self) -> None:
        """Drop the jobs, in the child of a fork: the parent runs them."""
        self.jobs = ()
        self.handed_over = 0

    def _send(self, send: Callable[[Any], object], message: Any) -> None:
        self._count(-len(message))
        send(message)

    def _count(self, size: int) -> None:
        with _counting:  # several threads do this, and += is not atomic
            self.handed_over += size


def wait_elsewhere(
    ask: Callable[[Tell], object], withdraw: Callable[[Tell], object], timeout: float | None
) -> bool:
    """Block the caller until ``tell`` is called; False after ``timeout`` seconds.

    ``ask(tell)`` hands ``tell`` over to the thread of a connection, which may call it at any
    time, and more than once. ``withdraw(tell)`` says that the caller has given up.
    """
    hub = gevent._hub_local.get_hub_if_exists()
    if hub is None or getcurrent() is hub:
        return _block_thread(ask, withdraw, timeout)
    return _wait_in_hub(hub, ask, withdraw, timeout)


def _block_thread(
    ask: Callable[[Tell], object], withdraw: Callable[[Tell], object], timeout: float | None
) -> bool:
    lock = _allocate_lock()
    lock.acquire()

    def tell() -> None:
        if lock.locked():
            lock.release()

    ask(tell)
    seconds = -1 if timeout is None else min(max(timeout, 0), _TIMEOUT_MAX)
    is_told = bool(lock.acquire(True, seconds))
    if not is_told:
        withdraw(tell)
    return is_told


def _wait_in_hub(
    hub: Any,
    ask: Callable[[Tell], object],
    withdraw: Callable[[Tell], object],
    timeout: float | None,
) -> bool:
    waker = hub.loop.async_()
    waker.start(getcurrent().switch)
    # ``send`` on a watcher that has been closed would crash the process, and it comes from
    # another thread: one lock decides whether the watcher is still there.
    guard = _allocate_lock()
    waiting = [waker]

    def tell() -> None:
        with guard:
            if waiting:
                waker.send()

    with gevent.Timeout.start_new(timeout) as expiry:
        try:
            ask(tell)
            hub.switch()
            return True
        except gevent.Timeout as error:
            if error is not expiry:
                raise
            return False
        finally:
            with guard:
                waiting.clear()
            waker.stop()
            waker.close()
            withdraw(tell)
