"""Received messages that wait for the view, and greenlets that wait for messages.

The hub puts messages in. A view takes them in ``take``, and where there is none its greenlet
waits: the next message is switched to it at once, from the hub, without a turn of the loop in
between. Several greenlets are served in the order in which they came.

The danger of such a switch: the greenlet runs the user's code inside the hub's callback, and comes
back here only when it waits again. It may have closed the connection meanwhile, or received the
next message. So everything is in order before each switch: the message is out of the queue, and the
waiter is no longer a waiter. And a greenlet that is killed while it waits must be removed, since a
message that is switched to it would be lost (``_stop_waiting``).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable

from greenlet import getcurrent, greenlet

from faye_wsgi.driver.events import Data
from faye_wsgi.driver.frames import stored_size

__all__ = ["Backlog", "Inbox"]

_EMPTY: Any = ()  # a queue that was not needed yet: a deque takes 600 bytes
_TIMED_OUT = object()


class Backlog:
    """Counts what has arrived and waits for a view or for listeners; says when reading must stop.

    Messages count with the bytes that they take in memory. Reading stops at either bound, and
    goes on (``relieved`` is called) when half of it has been consumed.
    """

    __slots__ = (
        "_bytes",
        "_count",
        "_is_full",
        "_max_bytes",
        "_max_count",
        "_relieved",
        "arriving",
        "is_awaited",
    )

    def __init__(self, max_count: int, max_bytes: int, relieved: Callable[[], object]) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._relieved = relieved
        self._count = 0
        self._bytes = 0
        self._is_full = False
        self.is_awaited = False  # the end of the connection waits until the backlog is empty
        self.arriving = 0  # how many bytes the message that is arriving may take at most

    def size_of(self, message: Data) -> int:
        """The bytes that a message takes in memory: ``stored_size``, fast for bytes and ASCII."""
        if type(message) is str:
            text = message
            return len(text) if text.isascii() else stored_size(text)
        return len(message)

    def add(self, size: int) -> None:
        """A message has come, or another job of the listeners."""
        self._count += 1
        self._bytes += size

    def remove(self, size: int) -> None:
        """A message or job has been dealt with."""
        self._count -= 1
        self._bytes -= size
        if self._is_full:
            self._check_relief()

    @property
    def room(self) -> int:
        """How many bytes of messages may still come before it is full; may be less than 0."""
        return self._max_bytes - self._bytes

    def check_full(self) -> bool:
        """Whether reading must stop now.

        The message that is arriving counts, but an empty backlog takes any message: else a
        large one would never be read to its end.
        """
        self._is_full = (
            self._bytes > 0 and self._bytes + self.arriving > self._max_bytes
        ) or self._count >= self._max_count
        return self._is_full

    def _check_relief(self) -> None:
        # An empty backlog always has room, even for a large message that is arriving.
        if (
            self._bytes * 2 <= self._max_bytes
            and (self._bytes == 0 or self._bytes + self.arriving <= self._max_bytes)
            and self._count * 2 <= self._max_count
        ):
            self._is_full = False
            self._relieved()

    def forget(self) -> None:
        """In the child of a fork: nothing waits here."""
        self._count = self._bytes = 0
        self._is_full = self.is_awaited = False


class Inbox:
    """The messages that wait for a view, and the greenlets that wait for messages."""

    __slots__ = (
        "_backlog",
        "_connection",
        "_ended",
        "_hub",
        "_messages",
        "_next_waiters",
        "_serving",
        "_switch",
        "_waiter",
    )

    def __init__(self, connection: Any, hub: Any, backlog: Backlog) -> None:
        self._connection = connection
        self._hub = hub
        self._backlog = backlog
        # greenlet's own ``switch``: that of gevent's hub is slower, since it looks for hooks.
        self._switch = greenlet.switch.__get__(hub)
        self._messages: Any = _EMPTY
        self._waiter: Any = None  # the greenlet that gets the next message,
        self._next_waiters: Any = _EMPTY  # and those that came after it
        self._serving = False  # a view has taken a message
        self._ended = False  # there will be no more

    @property
    def is_busy(self) -> bool:
        """Whether messages wait for the view, or the view is busy with one."""
        return bool(self._messages) or (self._serving and self._waiter is None)

    # From the connection, in the hub

    def hand_over(self, item: object) -> bool:
        """Switch to the waiting greenlet with a message: the usual case. False: ``put`` it."""
        waiter = self._waiter
        if waiter is None or self._messages:
            return False
        if type(item) is not str and type(item) is not bytes:
            return False
        self._waiter = self._next_waiters.pop(0) if self._next_waiters else None
        waiter.switch(item)
        return True

    def put(self, message: Data) -> None:
        """Keep a message; ``deliver`` is called when all messages of a read are kept."""
        if self._messages is _EMPTY:
            self._messages = deque()
        self._messages.append(message)
        self._backlog.add(self._backlog.size_of(message))

    def deliver(self) -> None:
        """Switch to waiting greenlets until no message is left, or no greenlet waits."""
        while self._messages and self._waiter is not None:
            message = self._pop_message()  # first: where this raises, the waiter still waits
            self._next_waiter().switch(message)

    def take_all(self) -> list[Data]:
        """Give all messages to listeners; the backlog goes on counting them."""
        messages, self._messages = self._messages, _EMPTY
        return list(messages)

    def end(self) -> None:
        """No more messages will come: wake up the greenlets that wait."""
        self._ended = True
        while self._waiter is not None:
            self._next_waiter().switch(None)

    def forget(self) -> object:
        """In the child of a fork: greenlets that wait here never wake up; returned, to be kept."""
        kept = self._waiter, self._next_waiters
        self._waiter, self._next_waiters = None, _EMPTY
        self._messages = _EMPTY
        self._ended = True
        return kept

    # From the view

    def receive(self, timeout: float | None = None) -> Data:
        """The next message; ConnectionClosed at the end, TimeoutError after ``timeout``."""
        self._connection.check_thread("receive")
        message = self.take(timeout)
        if message is None:
            raise self._connection.closing.error()
        return message

    def take(self, timeout: float | None = None) -> Data | None:
        """The next message, None at the end; TimeoutError after ``timeout`` seconds."""
        if self._waiter is None:
            if self._messages:
                return self._pop_message()
            if timeout is None and self._serving and not (self._ended or self._backlog.is_awaited):
                waiter = getcurrent()
                if waiter is not self._hub:
                    self._waiter = waiter
                    try:
                        return self._switch()  # type: ignore[no-any-return]
                    except BaseException:
                        self._stop_waiting(waiter)
                        raise
        return self._take_in_turn(timeout)

    def _take_in_turn(self, timeout: float | None) -> Data | None:
        """``take`` in the rare cases: other waiters, the first call, a timeout, the end."""
        if self._ended:
            return None
        self._serving = True
        waiter = self._add_waiter()
        timer = None
        try:
            # If anything raises here, the greenlet is removed: a message must not be switched to a
            # greenlet that does not wait for it.
            if self._messages:
                self._connection.call_soon(self.deliver)
            elif self._backlog.is_awaited:
                self._connection.closing.consumed()
            if timeout is not None:
                timer = self._start_timer(timeout, waiter)
            message: Data | None = self._switch()
        except BaseException:
            self._stop_waiting(waiter)
            raise
        finally:
            if timer is not None:
                timer.stop()
                timer.close()
        if message is _TIMED_OUT:
            raise TimeoutError("no message arrived in time")
        return message

    def _pop_message(self) -> Data:
        message: Data = self._messages.popleft()
        self._serving = True
        self._backlog.remove(self._backlog.size_of(message))
        return message

    def _add_waiter(self) -> Any:
        waiter = getcurrent()
        if waiter is self._hub:
            raise RuntimeError("a callback of the hub cannot wait for messages")
        if self._waiter is None:
            self._waiter = waiter
        elif self._next_waiters:
            self._next_waiters.append(waiter)
        else:
            self._next_waiters = [waiter]
        return waiter

    def _next_waiter(self) -> Any:
        """Remove the first waiting greenlet, and return it."""
        waiter, self._waiter = self._waiter, None
        if self._next_waiters:
            self._waiter = self._next_waiters.pop(0)
        return waiter

    def _stop_waiting(self, waiter: Any) -> bool:
        """Remove ``waiter``; returns whether it was still waiting."""
        if waiter is self._waiter:
            self._next_waiter()
        elif self._next_waiters and waiter in self._next_waiters:
            self._next_waiters.remove(waiter)
        else:
            return False
        return True

    def _start_timer(self, timeout: float, waiter: Any) -> Any:
        loop = self._hub.loop
        loop.update_now()  # the loop's clock stands still while the hub does not run
        timer = loop.timer(max(timeout, 0))
        timer.start(self._connection.guard, self._time_out, waiter)
        return timer

    def _time_out(self, waiter: Any) -> None:
        if self._stop_waiting(waiter):
            waiter.switch(_TIMED_OUT)
