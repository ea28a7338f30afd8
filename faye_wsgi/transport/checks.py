"""Asking the application again whether connections may go on: the option ``check``.

The function is the application's, and may wait for a database. So it never runs in the hub. A
connection's timer only puts it into a queue, and one greenlet for each hub calls one after the
other: however many connections there are, the database has one question of a hub at a time. The
greenlet exists while there are questions.

An error of the function ends nothing: a database that is away for a minute must not end all
connections. It is logged, and the connection is asked about again.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from random import uniform
from time import monotonic
from typing import Any, Callable

from greenlet import greenlet

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.errors import is_end_of
from faye_wsgi.transport import dispatcher
from faye_wsgi.transport.settings import check_seconds

__all__ = ["CODE", "REASON", "Ask", "Check", "check_options", "delay", "failed", "forget"]

log = logging.getLogger("faye_wsgi")

CODE = 4401  # as in ``Channels.disconnect``
REASON = "not authorized any more"
LEAST = 0.75  # of the interval: each delay is cut by up to a quarter, at random
TELL_AGAIN = 60.0  # seconds between two entries of the log about checks that raise

# Asks the application, and ends the connection where it refuses. May wait.
Ask = Callable[[], object]

_told_at = [-TELL_AGAIN]


def check_options(check: Any, seconds: Any) -> None:
    """TypeError or ValueError for wrong options ``check`` and ``check_every``."""
    if check is not None and not callable(check):
        raise TypeError("check is a function of the connection, or None")
    check_seconds("check_every", seconds)
    if not seconds:
        raise ValueError("check_every is a number of seconds above 0")


def delay(seconds: float) -> float:
    """Seconds until the next check, so that the checks of many do not come at once."""
    return seconds * uniform(LEAST, 1.0)


class Check:
    """The checks of one connection, from now on until ``stop``."""

    __slots__ = ("_ask", "_connection", "_seconds", "_timer", "is_asking")

    def __init__(self, connection: Any, seconds: float, ask: Ask) -> None:
        self._connection = connection
        self._seconds = seconds
        self._ask = ask
        self._timer: Any | None = None
        self.is_asking = False  # the application is being asked
        self._wait()

    def _wait(self) -> None:
        loop = self._connection.hub.loop
        loop.update_now()  # its clock stands still while the hub does not run
        self._timer = loop.timer(delay(self._seconds))
        self._timer.start(self._connection.guard, self._enqueue)

    def _enqueue(self) -> None:
        self._free_timer()
        hub = self._connection.hub
        queue = _queues.get(hub)
        if queue is not None:
            queue[self] = None
        else:
            queue = _queues[hub] = OrderedDict({self: None})
            greenlet(_run_all, hub).switch(hub, queue)

    def run(self) -> None:
        """Ask now, in the greenlet of all checks."""
        self._connection.guard(self._run)

    def _run(self) -> None:
        connection = self._connection
        if connection.state != ReadyState.OPEN:
            return
        self.is_asking = True
        try:
            self._ask()
        except BaseException as error:  # GreenletExit, gevent's Timeout and SystemExit, too
            if connection.state == ReadyState.OPEN:
                failed(error, connection.dispatcher.sink)
            if isinstance(error, KeyboardInterrupt):
                connection.hub.handle_system_error(type(error), error, error.__traceback__)
        finally:
            self.is_asking = False
        if connection.state == ReadyState.OPEN:
            self._wait()
        else:
            connection.call_soon(connection.changed.notify_all)  # for ``Closing.wait_told``

    def stop(self) -> None:
        """Ask no more."""
        self._free_timer()
        # A function that hangs must not keep those that wait behind it and have ended.
        queue = _queues.get(self._connection.hub)
        if queue is not None:
            queue.pop(self, None)

    def _free_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()


def failed(error: BaseException, sink: Any) -> None:
    """A check has raised: log it, once a minute."""
    if is_end_of(sink, error):
        return  # it has sent something, and the peer has closed meanwhile
    now = monotonic()
    if now - _told_at[0] < TELL_AGAIN:
        log.debug("the check of %r raised", sink, exc_info=error)
        return
    _told_at[0] = now
    hint = dispatcher.find_hint(error)
    text = "the check of %r raised: it goes on, and is asked about again. " + (
        "%s (This is said once a minute)" if hint else "%s(This is said once a minute)"
    )
    log.error(text, sink, hint, exc_info=error)


# The checks that wait for the greenlet of each hub. A hub is here as long as its greenlet runs.
_Queue = OrderedDict[Check, None]
_queues: weakref.WeakKeyDictionary[Any, _Queue] = weakref.WeakKeyDictionary()


def _run_all(hub: Any, queue: _Queue) -> None:
    try:
        while queue:
            queue.popitem(last=False)[0].run()
    finally:
        if _queues.get(hub) is queue:
            del _queues[hub]


def forget() -> None:
    """In the child of a fork: the parent asks about its connections."""
    for queue in _queues.values():
        queue.clear()
    _queues.clear()
