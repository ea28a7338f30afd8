"""What has arrived and not been consumed: messages for a view, or jobs for listeners.

One consumer: messages go to the greenlets that wait in ``take``, in their order, or,
where somebody listens for them, to the sink. Listeners run one at a time in a greenlet
that exists only while there is something to deliver.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Callable, Protocol

from greenlet import getcurrent, greenlet

from faye_wsgi.driver.events import Data, Event, EventType, MessageEvent
from faye_wsgi.errors import ConnectionClosed
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
        '_idle',
        '_is_listened_to',
        '_jobs',
        '_messages',
        '_owner',
        '_paused',
        '_serving',
        '_settings',
        '_sink',
        '_switch',
        '_waiters',
        'is_awaited',
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
        self._paused = False
        self._ended = False
        self._is_listened_to = False
        self._idle: list[Any] | None = None
        self._switch = hub.switch
        self.is_awaited = False  # the owner wants to hear of ``consumed``

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

    @property
    def is_telling(self) -> bool:
        """Whether listeners run, or have something to hear."""
        return self._dispatching or (bool(self._jobs) and not self._is_held)

    @property
    def _is_held(self) -> bool:
        return self._paused and type(self._jobs[0]) is MessageEvent

    # From the connection, in the hub

    def hand_out(self, messages: Sequence[Data]) -> bool:
        """Take messages that arrived, and deliver them; whether reading must stop now."""
        waiters = self._waiters
        if waiters and len(messages) == 1 and not self._messages:
            waiters.popleft().switch(messages[0])  # the usual case, and the shortest way
            return False
        for data in messages:
            self.put(data)
        self.deliver()
        return self.is_full

    def put(self, data: Data) -> None:
        """Take a message that arrived; ``deliver`` comes later."""
        self._bytes += len(data)
        if self._is_listened_to:
            self._append_job(MessageEvent(data))
        else:
            if self._messages is _EMPTY:
                self._messages = deque()
            self._messages.append(data)

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
        if self._jobs and not self._dispatching and not self._is_held:
            self._dispatching = True
            if self._idle:
                self._idle.pop().switch(self._dispatch_all)
            else:
                greenlet(_run_jobs, self._hub).switch(self._hub, self._idle, self._dispatch_all)

    def end(self) -> None:
        """Nothing more will come: whoever waits is told."""
        self._ended = True
        while self._waiters:
            self._waiters.popleft().switch(None)

    def set_sink(self, sink: Sink) -> None:
        """Tell somebody else from now on."""
        self._sink = sink
        self.listeners_changed()

    def set_idle(self, idle: list[Any] | None) -> None:
        """Where a greenlet rests between the jobs of all inboxes of the hub; None: nowhere."""
        self._idle = idle

    def pause(self) -> None:
        """Hold messages back from listeners, and whatever came after them, until ``resume``."""
        self._paused = True

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._paused = False
        self._hub.loop.run_callback(self.deliver)

    def listeners_changed(self) -> None:
        """Messages that wait for a view go to the listeners, if there are any now."""
        self._is_listened_to = self._sink.has_listeners('message')
        if self._messages and self._is_listened_to:
            for data in self._messages:
                self._append_job(MessageEvent(data))
            self._messages.clear()
            self._hub.loop.run_callback(self.deliver)

    def _append_job(self, job: Any) -> None:
        if self._jobs is _EMPTY:
            self._jobs = deque()
        self._jobs.append(job)

    # From the view

    def take(self, timeout: float | None = None) -> Data | None:
        """The next message, None at the end; TimeoutError after ``timeout`` seconds."""
        waiters = self._waiters
        if self._messages and not waiters:
            return self._pop_message()
        if self._ended:
            return None
        # The rest is the wait; a timeout, and others that wait before us, are rare.
        if waiters is _EMPTY:
            waiters = self._waiters = deque()
        waiter = getcurrent()
        waiters.append(waiter)
        self._serving = True
        if self._messages:
            self._hub.loop.run_callback(self.deliver)
        elif self.is_awaited:
            self._owner.consumed()
        timer = None if timeout is None else self._start_timer(timeout, waiter)
        try:
            message = self._switch()
        except BaseException:
            if waiter in waiters:
                waiters.remove(waiter)
            raise
        finally:
            if timer is not None:
                timer.stop()
                timer.close()
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

    def _start_timer(self, timeout: float, waiter: Any) -> Any:
        loop = self._hub.loop
        loop.update_now()  # its clock stood still if nothing has waited for a while
        timer = loop.timer(max(timeout, 0))
        timer.start(self._time_out, waiter)
        return timer

    def _time_out(self, waiter: Any) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            waiter.switch(_TIMED_OUT)

    # For listeners

    def _dispatch_all(self) -> None:
        try:
            while self._jobs and not self._is_held:
                job = self._jobs.popleft()
                self._dispatch(job)
                if type(job) is MessageEvent:
                    self._count_out(job.data)
        finally:
            self._dispatching = False
        if self.is_awaited:
            self._owner.consumed()

    def _dispatch(self, job: Any) -> None:
        try:
            if isinstance(job, Event):
                self._sink.dispatch(job)
            else:
                job()
        except Exception as error:
            if isinstance(error, ConnectionClosed) and error.target is self._sink:
                return  # the peer was faster: the close event says so
            log.exception('a listener raised: its connection is closed with 1011')
            self._owner.listener_failed()


def _run_jobs(hub: Any, idle: list[Any] | None, job: Callable[[], object] | None) -> None:
    # A new greenlet costs more than many a job: one rests between two of them.
    while job is not None:
        job()
        if idle is None or idle:
            return
        idle.append(getcurrent())
        getcurrent().gr_context = None  # the next job's listeners are others
        job = hub.switch()
