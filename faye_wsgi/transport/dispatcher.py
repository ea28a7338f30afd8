"""The jobs of listeners: messages, events, and the callbacks of pongs.

Listeners run one at a time, in order, never in the hub: they may block. They run in a greenlet
of their own, which exists only while there are jobs. Making a greenlet costs more than most
listeners do. So one greenlet for each hub rests between two jobs, in a list that all connections
of the hub share, and ends with the hub's last connection.

An error in a listener is logged and closes its connection with 1011. That includes SystemExit,
GreenletExit and gevent's Timeout. The danger: SystemExit would stop the worker and all its other
connections, and the others would end the greenlet, so that no listener were called any more.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, Callable, Protocol, Union

from gevent.monkey import get_original
from greenlet import getcurrent, greenlet

from faye_wsgi.driver.events import Data, Event, EventType, MessageEvent
from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.errors import is_end_of
from faye_wsgi.transport.inbox import Backlog

__all__ = ["Dispatcher", "Sink"]

log = logging.getLogger("faye_wsgi")

_allocate_lock = get_original("_thread", "allocate_lock")

Job = Union[Data, Event, Callable[[], object]]  # data is that of a message

_EMPTY: Any = ()  # stands for a queue that was never needed: a deque takes 600 bytes


def _no_hint(error: BaseException) -> str:
    return ""


# Returns what to do about the error of a listener, or ''. ``wsgi.hints`` puts its own here.
find_hint = _no_hint


class Sink(Protocol):
    """The object that the user holds, and that has the listeners."""

    def has_listeners(self, type: EventType) -> bool:
        """Whether there are listeners for ``type``."""

    def sole_listener(self, type: EventType) -> Callable[[Any], object] | None:
        """The listener that may be called instead of ``dispatch``, with ``event.target`` set."""

    def dispatch(self, event: Event) -> None:
        """Run the listeners; may block, and may raise what they raise."""


class Dispatcher:
    """The jobs of one connection's listeners."""

    __slots__ = (
        "_backlog",
        "_connection",
        "_has_failed",
        "_hub",
        "_idle",
        "_is_forgotten",
        "_is_paused",
        "_is_running",
        "_jobs",
        "_listener",
        "_switch",
        "_telling",
        "gets_messages",
        "sink",
    )

    def __init__(self, connection: Any, hub: Any, backlog: Backlog, sink: Sink) -> None:
        self._connection = connection
        self._hub = hub
        self._backlog = backlog
        self.sink = sink  # the object that has the listeners
        # greenlet's own ``switch``: that of gevent's hub is slower, since it looks for hooks.
        self._switch = greenlet.switch.__get__(hub)
        self._jobs: Any = _EMPTY
        self._listener: Callable[[Any], object] | None = None  # the only one for messages
        self._idle: list[Any] | None = None
        self._is_running = False  # a greenlet runs jobs
        self._is_paused = False  # messages are held back
        self._has_failed = False  # a listener has raised
        self._is_forgotten = False  # in the child of a fork
        # A lock, as soon as no hub runs for this connection. Then threads run the jobs, and two
        # of them must not run listeners at the same time.
        self._telling: Any = None
        self.gets_messages = False  # there are listeners for messages

    def use_idle(self, idle: list[Any] | None) -> None:
        """Let greenlets rest in ``idle``, the list of the hub; with None they end."""
        self._idle = idle

    @property
    def is_busy(self) -> bool:
        """Whether listeners run, or have jobs."""
        return self._is_running or bool(self._jobs)

    @property
    def is_telling(self) -> bool:
        """``is_busy``, without the messages that ``pause`` holds back."""
        return self._is_running or (bool(self._jobs) and not self._is_held)

    @property
    def _is_held(self) -> bool:
        return self._is_paused and type(self._jobs[0]) in (str, bytes)

    # From the connection, in the hub

    def put(self, message: Data) -> None:
        """Keep a message; ``deliver`` is called when all messages of a read are kept."""
        self._append(message, self._backlog.size_of(message))

    def tell(self, event: Event) -> None:
        """Call the listeners for this event, if there are any, after the earlier jobs."""
        if self.sink.has_listeners(event.type):
            self.run(event)

    def run(self, job: Job) -> None:
        """Dispatch an event, or call a function, after the earlier jobs and never in the hub."""
        self._append(job, 0)
        self._connection.call_soon(self.deliver)

    def put_last(self, events: Iterable[Event]) -> None:
        """Keep the last events; ``deliver`` is called later."""
        for event in events:
            if self.sink.has_listeners(event.type):
                self._append(event, 0)

    def deliver(self) -> None:
        """Let a greenlet run the jobs, unless one does already."""
        if not self._jobs or self._is_running or self._is_held:
            return
        if self._idle:
            runner = self._idle.pop()
            self._is_running = True
            runner.switch(self)
        else:
            runner = greenlet(_run_jobs, self._hub)
            self._is_running = True
            runner.switch(self, self._switch, self._idle)

    def listeners_changed(self) -> None:
        """There may be listeners for messages now, or none any more."""
        self.gets_messages = self.sink.has_listeners("message")
        self._listener = self.sink.sole_listener("message")

    def pause(self) -> None:
        """Hold messages back, and all jobs behind them, until ``resume``."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._is_paused = False
        self._connection.call_soon(self.deliver)

    def adopt(self, messages: Iterable[Data]) -> None:
        """Take messages that waited for a view, and that the backlog has counted."""
        if self._jobs is _EMPTY:
            self._jobs = deque()
        self._jobs.extend(messages)
        self._connection.call_soon(self.deliver)

    # When no hub runs for the connection any more

    @property
    def has_hub(self) -> bool:
        """Whether a hub still runs the jobs."""
        return self._telling is None and self._hub.loop is not None

    def leave_hub(self) -> None:
        """No hub runs for this connection any more."""
        if self._telling is None:
            self._telling = _allocate_lock()

    def tell_here(self) -> None:
        """Run the jobs in the caller's thread, which may be any."""
        with self._telling:
            self.run_all()

    def leave_to_thread(self, events: Iterable[Event]) -> bool:
        """Add the last events. Returns whether a thread must call ``tell_here`` now."""
        self.put_last(events)
        self._backlog.is_awaited = False
        if self._jobs:
            self._is_running = True  # so that ``deliver`` does nothing if the hub still runs
        return bool(self._jobs)

    def forget(self) -> object:
        """In the child of a fork: drop the jobs; returned, to be kept."""
        kept = list(self._jobs)
        self._is_forgotten = True
        self.gets_messages = False
        if self._jobs:
            # In place: the greenlet that forked may be in the middle of ``run_all``.
            self._jobs.clear()
        return kept

    def _append(self, job: Job, size: int) -> None:
        if self._is_forgotten:
            return
        if self._jobs is _EMPTY:
            self._jobs = deque()
        self._jobs.append(job)
        self._backlog.add(size)

    # In the greenlet that is made for it

    def run_all(self) -> None:
        """Run all jobs that may run now."""
        jobs = self._jobs
        try:
            while jobs:
                if self._is_paused and self._is_held:
                    break
                job = jobs.popleft()
                if type(job) is str or type(job) is bytes:
                    # Before the listener runs: it may encode the text, and CPython stores the
                    # UTF-8 beside it, so that its size grows.
                    size = self._backlog.size_of(job)
                    self._run(MessageEvent(job))
                    self._backlog.remove(size)
                else:
                    self._run(job)
                    self._backlog.remove(0)
        finally:
            self._is_running = False
        if self._backlog.is_awaited:
            self._connection.closing.consumed()

    def _run(self, job: Any) -> None:
        try:
            if type(job) is MessageEvent and self._listener is not None:  # the usual case
                job.target = self.sink
                self._listener(job)
            elif isinstance(job, Event):
                self.sink.dispatch(job)
            else:
                job()
        except BaseException as error:  # GreenletExit, gevent's Timeout and SystemExit, too
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if is_end_of(self.sink, error):
            return  # the peer has closed meanwhile, which the close event reports
        hint = find_hint(error)
        text = "a listener raised: 1011 closes %r" + (". %s" if hint else "%s")
        # Once: the rest of what has arrived is still delivered, which may be a thousand messages.
        level = logging.DEBUG if self._has_failed else logging.ERROR
        self._has_failed = True
        log.log(level, text, self.sink, hint, exc_info=error)
        self._connection.close(CloseCode.INTERNAL_ERROR, "")
        if isinstance(error, KeyboardInterrupt):
            self._pass_on(error)

    def _pass_on(self, error: BaseException) -> None:
        """Raise Ctrl-C in the main greenlet, too; this one goes on when the hub runs again."""
        if getcurrent().parent is not self._hub:
            raise error  # in a thread without a hub, which has nowhere to pass it on to
        self._hub.handle_system_error(type(error), error, error.__traceback__)


def _run_jobs(
    dispatcher: Dispatcher | None, switch: Callable[[], Any], idle: list[Any] | None
) -> None:
    me = getcurrent()
    while dispatcher is not None:
        dispatcher.run_all()
        if idle is None or idle:
            return
        idle.append(me)
        me.gr_context = None  # other listeners must not see these context variables
        dispatcher = None  # a reference here would keep an ended connection in memory
        try:
            dispatcher = switch()
        except BaseException:  # a listener has kept this greenlet, and killed it later
            if me in idle:
                idle.remove(me)
            return
