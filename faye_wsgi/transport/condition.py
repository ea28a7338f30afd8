"""Waiting until something about a connection has changed: its room, its opening, its end.

Greenlets of the connection's own thread wait in ``wait_for``. The hub cannot switch to a greenlet
of another thread: greenlet raises an error. So other threads leave a function in ``tell_when``,
which the hub calls instead, and wait in ``crossing.wait_elsewhere``.

It has the methods of ``threading.Condition``, without a lock. All of it runs in one thread, where
a greenlet is interrupted only where it waits.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

import gevent
from greenlet import getcurrent

__all__ = ["Condition"]

Predicate = Callable[[], bool]
Tell = Callable[[], object]


class Condition:
    """Lets greenlets wait until a predicate holds; ``notify_all`` says that it may hold now."""

    __slots__ = ("_elsewhere", "_hub", "_waiting")

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._waiting: list[Tell] = []  # the ``switch`` of each greenlet that waits
        self._elsewhere: list[tuple[Predicate, Tell]] = []  # for waiting threads

    def wait_for(self, predicate: Predicate, timeout: float | None) -> bool:
        """Block the calling greenlet until ``predicate()`` holds; False after ``timeout``."""
        wake = getcurrent().switch
        with gevent.Timeout.start_new(timeout) as expiry:
            try:
                while not predicate():
                    self._waiting.append(wake)
                    self._hub.switch()
            except gevent.Timeout as error:
                if error is not expiry:
                    raise
                return False
            finally:
                if wake in self._waiting:
                    self._waiting.remove(wake)
        return True

    def tell_when(self, predicate: Predicate, tell: Tell) -> None:
        """Call ``tell`` as soon as ``predicate()`` holds, which may be now."""
        if predicate():
            tell()
        else:
            self._elsewhere.append((predicate, tell))

    def withdraw(self, tell: Tell) -> None:
        """Take ``tell_when`` back."""
        self._elsewhere = [pair for pair in self._elsewhere if pair[1] is not tell]

    def notify_all(self) -> None:
        """Let all waiting greenlets look at their predicates again. Only the hub may call this."""
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            try:
                wake()
            except BaseException:
                # A plain greenlet (not gevent's) that dies raises into its parent, the hub. That
                # must not keep the greenlets behind it from waking up, so it is only reported.
                self._hub.handle_error(wake, *sys.exc_info())
        elsewhere, self._elsewhere = self._elsewhere, []
        for predicate, tell in elsewhere:
            self.tell_when(predicate, tell)

    def forget(self) -> object:
        """In the child of a fork: greenlets that wait here never wake up; returned, to be kept."""
        kept = self._waiting, self._elsewhere
        self._waiting, self._elsewhere = [], []
        return kept
