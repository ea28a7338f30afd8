"""Waiting until something about a connection has changed: its room, its opening, its end.

Greenlets of the connection's own thread wait in ``wait_for``. Other threads cannot be switched
to; they leave a function that is called instead (see ``crossing.wait_elsewhere``).
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
    """What the predicates of those that wait depend on; ``notify_all`` says that it changed."""

    __slots__ = ("_elsewhere", "_hub", "_waiting")

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._waiting: list[Tell] = []  # the switches of greenlets of this thread
        self._elsewhere: list[tuple[Predicate, Tell]] = []  # other threads

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
        """Let all that wait look at their predicates again. From the hub, which switches."""
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            try:
                wake()
            except BaseException:
                # A greenlet of greenlet's own kind raises into the hub that switched to it.
                # That is its own affair, and must not cost the others their turn.
                self._hub.handle_error(wake, *sys.exc_info())
        elsewhere, self._elsewhere = self._elsewhere, []
        for predicate, tell in elsewhere:
            self.tell_when(predicate, tell)

    def forget(self) -> object:
        """In the child of a fork: those that wait wait for ever, and are returned to be kept."""
        kept = self._waiting, self._elsewhere
        self._waiting, self._elsewhere = [], []
        return kept
