"""What has arrived and not been consumed: messages for a view, or jobs for listeners.

One consumer: messages go to the greenlets that wait in ``take``, in their order, or,
where somebody listens for them, to the sink. Listeners run one at a time in a greenlet
that exists only while there is something to deliver.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Protocol, Union

from greenlet import getcurrent, greenlet

from faye_wsgi.driver.events import Data, Event, EventType, MessageEvent
from faye_wsgi.driver.frames import stored_size
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport.settings import Settings

__all__ = ["Inbox", "Owner", "Sink"]

log = logging.getLogger("faye_wsgi")

Job = Union[Data, Event, Callable[[], object]]  # data is that of a message

_EMPTY: Any = ()  # stands for a queue that was never needed: a deque takes 600 bytes
_TIMED_OUT = object()


class Sink(Protocol):
    """Who is told of events: the object that the user holds."""

    def has_listeners(self, type: EventType) -> bool:
        """Whether anybody listens for ``type``."""

    def sole_listener(self, type: EventType) -> Callable[[Any], object] | None:
        """Who may be called instead of ``dispatch``, with an event whose target is set."""

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

    def guard(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function for the hub; what it raises ends the connection."""

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """``guard``, in the next turn of the hub."""


class Inbox:
    """The queues of one connection."""

    __slots__ = (
        "_bytes",
        "_dispatching",
        "_ended",
        "_full",
        "_hub",
        "_idle",
        "_is_forgotten",
        "_is_listened_to",
        "_jobs",
        "_listener",
        "_messages",
        "_next_waiters",
        "_owner",
        "_paused",
        "_serving",
        "_settings",
        "_sink",
        "_switch",
        "_waiter",
        "expected",
        "is_awaited",
    )

    def __init__(self, hub: Any, owner: Owner, sink: Sink, settings: Settings) -> None:
        self._hub = hub
        self._switch = greenlet.switch.__get__(hub)  # the hub's own looks for hooks first
        self._messages: Any = _EMPTY
        self._bytes = 0  # that the messages that wait take in memory
        self._full = False  # reading has stopped
        self._waiter: Any = None  # the greenlet that gets the next message,
        self._next_waiters: Any = _EMPTY  # and those that came after it
        self._serving = False  # a view has taken a message
        self._ended = False  # there will be no more
        self._jobs: Any = _EMPTY  # messages, and more, for listeners
        self._listener: Callable[[Any], object] | None = None  # the only one for messages
        self._paused = False  # messages are held back from listeners
        self.is_awaited = False  # the owner wants to hear of ``consumed``
        self._owner = owner
        self._sink = sink
        self._settings = settings
        self.expected = 0  # bytes that the message which is arriving may take
        self._dispatching = False
        self._is_forgotten = False  # in the child of a fork
        self._is_listened_to = False
        self._idle: list[Any] | None = None

    @property
    def is_full(self) -> bool:
        """Whether reading must stop until half of it has been consumed.

        The message that is arriving counts, but an empty queue takes any message: else a
        large one would never be read to its end.
        """
        self._full = (
            bool(self._bytes and self._bytes + self.expected > self._settings.max_queue_bytes)
            or len(self._messages) + len(self._jobs) >= self._settings.max_queue
        )
        return self._full

    @property
    def room(self) -> int:
        """How many bytes of messages may still come before it is full; may be less than 0."""
        return self._settings.max_queue_bytes - self._bytes

    @property
    def is_busy(self) -> bool:
        """Whether the consumer has still to deal with something that arrived."""
        if self._messages or self._jobs or self._dispatching:
            return True
        return self._serving and self._waiter is None

    @property
    def is_telling(self) -> bool:
        """Whether listeners run, or have something to hear."""
        return self._dispatching or (bool(self._jobs) and not self._is_held)

    @property
    def _is_held(self) -> bool:
        return self._paused and type(self._jobs[0]) in (str, bytes)

    # From the connection, in the hub

    def hand_out(self, messages: Sequence[Data]) -> bool:
        """Take messages that arrived, and deliver them; whether reading must stop now."""
        waiter = self._waiter
        if waiter is not None and len(messages) == 1 and not self._messages:
            self._waiter = self._next_waiters.pop(0) if self._next_waiters else None
            waiter.switch(messages[0])
            return False
        return self._hand_out(messages)

    def take(self, timeout: float | None = None) -> Data | None:
        """The next message, None at the end; TimeoutError after ``timeout`` seconds."""
        if self._waiter is None:
            if self._messages:
                data: Data = self._messages.popleft()
                self._bytes -= stored_size(data)
                self._serving = True
                if self._full:
                    self._check_relief()
                return data
            if timeout is None and self._serving and not (self._ended or self.is_awaited):
                waiter = getcurrent()
                if waiter is not self._hub:
                    self._waiter = waiter
                    try:
                        return self._switch()  # type: ignore[no-any-return]
                    except BaseException:
                        self._forget(waiter)
                        raise
        return self._take(timeout)

    def tell_messages(self) -> None:
        """Tell the only listener of the messages that come next, until something else does."""
        jobs = self._jobs
        while jobs and self._listener is not None and not self._paused:
            data = jobs.popleft()
            if type(data) is not str and type(data) is not bytes:
                jobs.appendleft(data)
                return
            size = stored_size(data)  # now: a listener may put its UTF-8 beside a text
            event = MessageEvent(data)
            event.target = self._sink
            try:
                self._listener(event)
            except BaseException as error:  # GreenletExit, gevent's Timeout and SystemExit, too
                self._failed(error)
            self._bytes -= size
            if self._full:
                self._check_relief()

    def _hand_out(self, messages: Sequence[Data]) -> bool:
        if not self._is_listened_to:
            self.put(messages)
            self.deliver()
            return self.is_full
        self._bytes += (
            stored_size(messages[0]) if len(messages) == 1 else sum(map(stored_size, messages))
        )
        if self._jobs is _EMPTY:
            self._jobs = deque()
        self._jobs.extend(messages)
        if not self._dispatching and not self._paused:
            self._start_dispatching()
        return (self._dispatching or self._paused) and self.is_full

    def put(self, messages: Sequence[Data]) -> None:
        """Take messages that arrived; ``deliver`` comes later."""
        self._bytes += sum(map(stored_size, messages))
        if self._is_listened_to:
            self._append_jobs(messages)
        else:
            if self._messages is _EMPTY:
                self._messages = deque()
            self._messages.extend(messages)

    def tell(self, event: Event) -> None:
        """Tell listeners, if there are any for this event."""
        if self._sink.has_listeners(event.type):
            self.run(event)

    def put_last(self, events: Sequence[Event]) -> None:
        """Take what listeners are told at the end; ``deliver`` comes later."""
        self._append_jobs([event for event in events if self._sink.has_listeners(event.type)])

    def leave_to_thread(self, events: Iterable[Event]) -> bool:
        """The hub runs no more: whether a thread must call ``dispatch_all``."""
        jobs = [event for event in events if self._sink.has_listeners(event.type)]
        if jobs:
            self._append_jobs(jobs)
        self.is_awaited = False
        if self._jobs:
            self._dispatching = True  # should the hub run after all, it keeps off
        return bool(self._jobs)

    def run(self, job: Job) -> None:
        """Dispatch an event, or call a function, in its turn and never in the hub."""
        self._append_jobs((job,))
        self._owner.call_soon(self.deliver)

    def deliver(self) -> None:
        """Switch to who waits, until nothing is left or nobody waits."""
        while self._messages and self._waiter is not None:
            message = self._pop_message()  # first: where this raises, the waiter still waits
            self._next_waiter().switch(message)
        if self._jobs and not self._dispatching and not self._is_held:
            self._start_dispatching()

    def end(self) -> None:
        """Nothing more will come: whoever waits is told."""
        self._ended = True
        while self._waiter is not None:
            self._next_waiter().switch(None)

    def forget(self) -> object:
        """In the child of a fork: nothing is told, and those who wait wait for ever."""
        kept = (self._waiter, self._next_waiters, list(self._jobs))
        self._waiter, self._next_waiters = None, _EMPTY
        self._ended = self._is_forgotten = True
        self._is_listened_to = self._full = self.is_awaited = False
        self._messages = _EMPTY
        if self._jobs:
            self._jobs.clear()  # in place: the greenlet that runs them may be the one that forked
        return kept

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
        self._owner.call_soon(self.deliver)

    def listeners_changed(self) -> None:
        """Messages that wait for a view go to the listeners, if there are any now."""
        self._is_listened_to = self._sink.has_listeners("message")
        self._listener = self._sink.sole_listener("message")
        if self._messages and self._is_listened_to:
            self._append_jobs(self._messages)
            self._messages.clear()
            self._owner.call_soon(self.deliver)

    def _append_jobs(self, jobs: Iterable[Job]) -> None:
        if self._is_forgotten:
            return
        if self._jobs is _EMPTY:
            self._jobs = deque()
        self._jobs.extend(jobs)

    # From the view

    def _take(self, timeout: float | None) -> Data | None:
        if self._ended:
            return None
        self._serving = True
        waiter = self._add_waiter()
        timer = None
        try:
            # Whatever raises here, no message goes to a greenlet that does not wait for it.
            if self._messages:
                self._owner.call_soon(self.deliver)
            elif self.is_awaited:
                self._owner.consumed()
            if timeout is not None:
                timer = self._start_timer(timeout, waiter)
            message: Data | None = self._switch()
        except BaseException:
            self._forget(waiter)
            raise
        finally:
            if timer is not None:
                timer.stop()
                timer.close()
        if message is _TIMED_OUT:
            raise TimeoutError("no message arrived in time")
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
        """Whose turn it is; the one after it moves up."""
        waiter, self._waiter = self._waiter, None
        if self._next_waiters:
            self._waiter = self._next_waiters.pop(0)
        return waiter

    def _forget(self, waiter: Any) -> bool:
        """Let ``waiter`` wait no more; whether it still did."""
        if waiter is self._waiter:
            self._next_waiter()
        elif self._next_waiters and waiter in self._next_waiters:
            self._next_waiters.remove(waiter)
        else:
            return False
        return True

    def _pop_message(self) -> Data:
        data: Data = self._messages.popleft()
        self._bytes -= stored_size(data)
        self._serving = True
        if self._full:
            self._check_relief()
        return data

    def _check_relief(self) -> None:
        # At the latest when the queue is empty, whatever is expected.
        if (
            self._bytes * 2 <= self._settings.max_queue_bytes
            and (not self._bytes or self._bytes + self.expected <= self._settings.max_queue_bytes)
            and (len(self._messages) + len(self._jobs)) * 2 <= self._settings.max_queue
        ):
            self._full = False
            self._owner.relieved()

    def _start_timer(self, timeout: float, waiter: Any) -> Any:
        loop = self._hub.loop
        loop.update_now()  # its clock stood still if nothing has waited for a while
        timer = loop.timer(max(timeout, 0))
        timer.start(self._owner.guard, self._time_out, waiter)
        return timer

    def _time_out(self, waiter: Any) -> None:
        if self._forget(waiter):
            waiter.switch(_TIMED_OUT)

    # For listeners

    def _start_dispatching(self) -> None:
        if self._idle:
            dispatcher = self._idle.pop()
            self._dispatching = True
            dispatcher.switch(self)
        else:
            dispatcher = greenlet(_dispatch_for, self._hub)
            self._dispatching = True
            dispatcher.switch(self, self._switch, self._idle)

    def dispatch_all(self) -> None:
        """Run all jobs that may run, in the greenlet that is made for it."""
        jobs = self._jobs
        try:
            while True:
                self.tell_messages()
                if not jobs or self._is_held:
                    break
                job = jobs.popleft()
                is_message = type(job) is str or type(job) is bytes
                size = stored_size(job) if is_message else 0
                try:
                    if is_message:
                        self._sink.dispatch(MessageEvent(job))
                    else:
                        self._run(job)
                except BaseException as error:
                    self._failed(error)
                self._bytes -= size
                if self._full:
                    self._check_relief()
        finally:
            self._dispatching = False
        if self.is_awaited:
            self._owner.consumed()

    def _run(self, job: Any) -> None:
        if isinstance(job, Event):
            self._sink.dispatch(job)
        else:
            job()

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, ConnectionClosed) and error.target is self._sink:
            return  # the peer was faster: the close event says so
        log.error("a listener raised: 1011 closes %r", self._sink, exc_info=error)
        self._owner.listener_failed()
        if isinstance(error, KeyboardInterrupt):
            self._pass_on(error)

    def _pass_on(self, error: BaseException) -> None:
        """Raise Ctrl-C in the main greenlet, too; this one goes on when the hub runs again."""
        if getcurrent().parent is not self._hub:
            raise error  # another thread tells the listeners: there is no hub to take it
        self._hub.handle_system_error(type(error), error, error.__traceback__)


def _dispatch_for(inbox: Inbox | None, switch: Callable[[], Any], idle: list[Any] | None) -> None:
    # A new greenlet costs more than many a job: one rests between two of them.
    me = getcurrent()
    while inbox is not None:
        inbox.dispatch_all()
        if idle is None or idle:
            return
        idle.append(me)
        me.gr_context = None  # the next job's listeners are others
        inbox = None  # which may go while we rest
        try:
            inbox = switch()
        except BaseException:  # a listener had kept this greenlet, and it was killed
            if me in idle:
                idle.remove(me)
            return
