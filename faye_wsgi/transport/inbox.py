"""What has arrived and not been consumed: messages for a view, or jobs for listeners.

One consumer: messages go to the greenlets that wait in ``take``, in their order, or,
where somebody listens for them, to the sink. Listeners run one at a time in a greenlet
that exists only while there is something to deliver.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Callable, Protocol

from greenlet import getcurrent, greenlet

from faye_wsgi.driver.events import Data, Event, EventType, MessageEvent
from faye_wsgi.transport.settings import Settings

__all__ = ['Inbox', 'Owner', 'Sink']

log = logging.getLogger('faye_wsgi')

_EMPTY: Any = ()  # stands for a queue that was never needed: a deque takes 600 bytes
_TIMED_OUT = object()


class Sink(Protocol):
    """Who is told of events: the object that the user holds."""

    def has_listeners(self, type: EventType) -> bool:
        """Whether anybody listens for ``type``."""

    def dispatch(self, event: Event) -> None:
        """Run the listeners; may block, and may raise what they raise."""


class Owner(Protocol):
    """Whose inbox it is."""

    def relieved(self) -> None:
        """There is room again."""

    def consumed(self) -> None:
        """The consumer has dealt with all there was; from the hub."""

    def listener_failed(self) -> None:
        """A listener raised; it has been logged."""


class Inbox:
    """The queues of one connection."""

    __slots__ = (
        '_bytes',
        '_dispatching',
        '_ended',
        '_full',
        '_hub',
        '_jobs',
        '_messages',
        '_owner',
        '_serving',
        '_settings',
        '_sink',
        '_waiters',
    )

    def __init__(self, hub: Any, owner: Owner, sink: Sink, settings: Settings) -> None:
        self._hub = hub
        self._owner = owner
        self._sink = sink
        self._settings = settings
        self._messages = _EMPTY
        self._waiters = _EMPTY
        self._jobs = _EMPTY
        self._bytes = 0
        self._full = False
        self._serving = False  # a view has taken a message
        self._dispatching = False
        self._ended = False

    @property
    def is_full(self) -> bool:
        """Whether reading must stop until half of it has been consumed."""
        self._full = (
            self._bytes > self._settings.max_queue_bytes
            or len(self._messages) + len(self._jobs) >= self._settings.max_queue
        )
        return self._full

    @property
    def is_busy(self) -> bool:
        """Whether the consumer has still to deal with something that arrived."""
        if self._messages or self._jobs or self._dispatching:
            return True
        return self._serving and not self._waiters

    # From the connection, in the hub

    def put(self, event: MessageEvent) -> None:
        """Take a message that arrived; ``deliver`` comes next."""
        self._bytes += len(event.data)
        if self._sink.has_listeners('message'):
            self._append_job(event)
        else:
            if self._messages is _EMPTY:
                self._messages = deque()
            self._messages.append(event.data)

    def tell(self, event: Event) -> None:
        """Tell listeners, if there are any for this event."""
        if self._sink.has_listeners(event.type):
            self.run(event)

    def run(self, job: Event | Callable[[], object]) -> None:
        """Dispatch an event, or call a function, in its turn and never in the hub."""
        self._append_job(job)
        self._hub.loop.run_callback(self.deliver)

    def deliver(self) -> None:
        """Switch to who waits, until nothing is left or nobody waits."""
        while self._messages and self._waiters:
            self._waiters.popleft().switch(self._pop_message())
        if self._jobs and not self._dispatching:
            self._dispatching = True
            greenlet(self._dispatch_all, self._hub).switch()

    def end(self) -> None:
        """Nothing more will come: whoever waits is told."""
        self._ended = True
        while self._waiters:
            self._waiters.popleft().switch(None)

    def listeners_changed(self) -> None:
        """Messages that wait for a view go to the listeners, if there are any now."""
        if self._messages and self._sink.has_listeners('message'):
            for data in self._messages:
                self._append_job(MessageEvent(data))
            self._messages.clear()
            self._hub.loop.run_callback(self.deliver)

    def _append_job(self, job: Any) -> None:
        if self._jobs is _EMPTY:
            self._jobs = deque()
        self._jobs.append(job)

    # From the view

    def take(self, timeout: float | None) -> Data | None:
        """The next message, None at the end; TimeoutError after ``timeout`` seconds."""
        if self._messages and not self._waiters:
            return self._pop_message()
        if self._ended:
            return None
        message = self._wait(timeout)
        if message is _TIMED_OUT:
            raise TimeoutError('no message arrived in time')
        return message  # type: ignore[no-any-return]

    def _pop_message(self) -> Data:
        data: Data = self._messages.popleft()
        self._serving = True
        self._count_out(data)
        return data

    def _count_out(self, data: Data) -> None:
        self._bytes -= len(data)
        if self._full and (
            self._bytes * 2 <= self._settings.max_queue_bytes
            and (len(self._messages) + len(self._jobs)) * 2 <= self._settings.max_queue
        ):
            self._full = False
            self._owner.relieved()

    def _wait(self, timeout: float | None) -> Any:
        waiter = getcurrent()
        if self._waiters is _EMPTY:
            self._waiters = deque()
        self._waiters.append(waiter)
        if self._messages:  # others wait before this one: the hub serves all in order
            self._hub.loop.run_callback(self.deliver)
        elif self._serving:
            self._owner.consumed()
        timer = None
        if timeout is not None:
            timer = self._hub.loop.timer(max(timeout, 0))
            timer.start(self._time_out, waiter)
        try:
            return self._hub.switch()
        finally:
            if timer is not None:
                timer.stop()
                timer.close()
            if waiter in self._waiters:  # an exception was thrown into it
                self._waiters.remove(waiter)

    def _time_out(self, waiter: Any) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            waiter.switch(_TIMED_OUT)

    # For listeners

    def _dispatch_all(self) -> None:
        try:
            while self._jobs:
                job = self._jobs.popleft()
                self._dispatch(job)
                if type(job) is MessageEvent:
                    self._count_out(job.data)
        finally:
            self._dispatching = False
        self._owner.consumed()

    def _dispatch(self, job: Any) -> None:
        try:
            if isinstance(job, Event):
                self._sink.dispatch(job)
            else:
                job()
        except Exception:
            log.exception('a listener raised: its connection is closed with 1011')
            self._owner.listener_failed()
