"""A connection: a driver on a stream, with an inbox, a dispatcher and an outbox above them.

In: the stream reads (``Stream.readable``) → ``data_received`` → the driver → a message goes to
the greenlet that waits in ``Inbox.take``, or to the listeners by way of the ``Dispatcher``.
Out: ``Outbox.send`` → the driver's frame → ``Stream.write``. The end is in ``closing.py``.

All of it belongs to one thread and to the hub of that thread. Calls from another thread are handed
over (``crossing.py``): the danger is a loop that two threads use at once, which corrupts it.
Everything that the hub calls is guarded: gevent stops a watcher, and drops a timer or a callback,
that raises, and the connection would wait for it for ever.
"""

from __future__ import annotations

from typing import Any, Callable

from gevent.monkey import get_original

from faye_wsgi.driver.base import Driver, ReadyState
from faye_wsgi.driver.events import (
    CloseEvent,
    Data,
    DrainEvent,
    ErrorEvent,
    Event,
    OpenEvent,
    PongEvent,
)
from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.transport import fork, hubs
from faye_wsgi.transport.closing import READY_STATES, Closing, Phase, Signal
from faye_wsgi.transport.condition import Condition
from faye_wsgi.transport.crossing import Crossing
from faye_wsgi.transport.dispatcher import Dispatcher, Sink
from faye_wsgi.transport.inbox import Backlog, Inbox
from faye_wsgi.transport.keepalive import Callback, Keepalive
from faye_wsgi.transport.outbox import Outbox, Sendable
from faye_wsgi.transport.rates import Meter
from faye_wsgi.transport.settings import MAX_WORK, Settings
from faye_wsgi.transport.stream import Stream

__all__ = ["Connection", "Sendable"]

_get_ident = get_original("_thread", "get_ident")

OPEN_TIMEOUT = 10.0  # seconds for what a handshake has after its head


class Connection:
    """One connection, from before its opening handshake to after its end."""

    __slots__ = (
        "_inflates",
        "_thread",
        "backlog",
        "bytes_in",
        "cancel",
        "changed",
        "closing",
        "crossing",
        "dispatcher",
        "driver",
        "heard",
        "hub",
        "inbox",
        "keepalive",
        "meter",
        "outbox",
        "received",
        "settings",
        "stream",
    )

    def __init__(self, sink: Sink, settings: Settings) -> None:
        self._thread = _get_ident()
        self.cancel: Callback | None = None  # stops a client's attempt to connect
        self.settings = settings
        self.closing = Closing(self)
        self.hub = hub = hubs.reserve(self.closing)
        self.driver: Driver | None = None  # until it is opened
        self.stream: Stream | None = None
        self.keepalive: Keepalive | None = None  # until a timer is needed
        self.meter: Meter | None = None  # where there is a rate
        self._inflates = False  # an extension may make messages longer than the bytes of a read
        self.received = self.bytes_in = 0  # messages and bytes, for metrics
        self.heard = False  # bytes have come since the ping that waits for a sign of life
        self.changed = Condition(hub)  # notified of room, of the opening, of the end
        self.crossing = Crossing(hub, self.guard)
        self.backlog = Backlog(settings.max_queue, settings.max_queue_bytes, self.read_on)
        self.inbox = Inbox(self, hub, self.backlog)
        self.dispatcher = Dispatcher(self, hub, self.backlog, sink)
        self.outbox = Outbox(self, hub, settings.high_water)
        fork.watch(self.closing)

    @property
    def state(self) -> ReadyState:
        """CONNECTING, OPEN, CLOSING or CLOSED."""
        return READY_STATES[self.closing.phase]

    @property
    def is_elsewhere(self) -> bool:
        """Whether the caller runs in another thread than the connection."""
        return bool(_get_ident() != self._thread)

    def check_thread(self, call: str) -> None:
        """RuntimeError if ``call``, which waits, comes from another thread."""
        if self.is_elsewhere:
            raise RuntimeError(f"{call} belongs to the thread that made the connection")

    @property
    def clock(self) -> Keepalive:
        """The timers, made when the first one is needed."""
        if self.keepalive is None:
            self.keepalive = Keepalive(self)
        return self.keepalive

    # What the hub calls

    def guard(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function for the hub; an error in it ends this connection, and no other one.

        ``Stream.readable`` does the same itself: it is the one callback that must be fast.
        """
        try:
            function(*args)
        except BaseException as error:
            self.failed(error)
            if not isinstance(error, Exception):
                raise

    def failed(self, error: BaseException) -> None:
        """A callback of the hub has raised."""
        self.closing.fail_with(error)

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function in the next turn of the hub, under ``guard``."""
        self.hub.loop.run_callback(self.guard, function, *args)

    # Opening

    def open(self, driver: Driver, sock: Any, head: bytes, read_ahead: bytes = b"") -> None:
        """Begin on a taken socket: send ``head`` (the handshake), read ``read_ahead`` first."""
        try:
            self._open(driver, sock, head)
        except BaseException as error:
            self.closing.abort(error)
            sock.close()
            raise
        # The rest happens in the hub: listeners are set before it runs, and miss nothing.
        self.call_soon(self._begin, read_ahead)

    def _open(self, driver: Driver, sock: Any, head: bytes) -> None:
        self.cancel = None
        self.driver = driver
        driver.max_work = MAX_WORK
        self._inflates = not driver.features.fragments
        self.stream = Stream(sock, self.hub.loop, self)
        self.stream.read_size = driver.read_size
        if self.settings.rate is not None or self.settings.rate_bytes is not None:
            self.meter = Meter(self)
            self.stream.limit_reads(self.meter.allow)
        self.outbox.use(driver, self.stream)
        if head:
            self.stream.write(head)
            # The batch may be open: in a thread that left its hub in the middle of a read.
            self.stream.flush()
        if driver.state != ReadyState.CONNECTING:  # hixie-76: its handshake has a body
            self.closing.signal(Signal.OPENED)
            self.outbox.send_unsent()  # before any later ``send``, which goes straight out
        self.dispatcher.use_idle(hubs.join(self.hub, self.closing))
        if self.settings.ping:
            self.clock.ping_every(self.settings.ping)

    def _begin(self, read_ahead: bytes) -> None:
        stream = self.stream
        if stream is None or stream.closed:
            return
        if self.closing.phase is Phase.CONNECTING:
            late = "the opening handshake was not completed in time"
            self.clock.expect_end(OPEN_TIMEOUT, lambda: self.closing.lose(late))
        else:
            self._opened()
        stream.resume_reading()
        if read_ahead:
            self.data_received(read_ahead)

    def _opened(self) -> None:
        self.dispatcher.tell(OpenEvent())
        self.outbox.send_unsent()
        self.changed.notify_all()

    def fail(self, message: str, code: int | None, reason: str) -> None:
        """End a connection that could not be opened; listeners hear of it in the next turn."""
        cancel, self.cancel = self.cancel, None
        if cancel is not None:
            cancel()  # its descriptor is closed before the listeners run
        self.closing.refuse(message, code, reason)

    # In: the stream calls these, in the hub

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived. The answers that are sent to them go out together."""
        self.heard = True
        self.bytes_in += len(data)
        if self.closing.close_event is not None:
            return  # RFC 6455 1.4: what follows the peer's close frame is ignored
        room = self.backlog.room if self._inflates else None
        driver: Any = self.driver
        items = driver.receive_data(data, room)
        self.received += len(items)
        if self.meter is not None:
            self.meter.count(items, len(data))
        if driver.unfinished:
            self.clock.expect_message(driver.unfinished)
        # The usual case: one message, for which a greenlet waits.
        if (
            len(items) == 1
            and not self._inflates
            and not driver.is_tired
            and self.inbox.hand_over(items[0])
        ):
            return
        self._deal_with(items)

    def _deal_with(self, items: list[Data | Event]) -> None:
        """Hand out the messages and events of one read, in order."""
        gets_messages = self.dispatcher.gets_messages
        has_events = False
        for item in items:
            if type(item) is not str and type(item) is not bytes:
                has_events = True
                self.received -= 1  # it is no message
                self.note(item)  # type: ignore[arg-type]
            elif gets_messages:
                self.dispatcher.put(item)
            else:
                self.inbox.put(item)
        if has_events:
            self._answer_pings()
        self.inbox.deliver()
        self.dispatcher.deliver()
        self._check_backlog()
        if self.closing.close_event is not None:
            self.closing.check()

    def _check_backlog(self) -> None:
        """Stop reading if the backlog is full."""
        driver, stream, backlog = self.driver, self.stream, self.backlog
        if driver is None or stream is None or stream.closed:
            return
        expected = driver.expected
        if expected or backlog.arriving:
            stream.expect(driver.missing, driver.read_size)
            backlog.arriving = expected
            if stream.read_size > driver.read_size:
                hubs.give_memory_back(self.hub)
        # Behind our own close frame messages are dropped: there is always room.
        is_full = backlog.check_full() and self.state == ReadyState.OPEN
        if driver.is_tired or (self._inflates and driver.holds_back):
            # Or the peer's FIN would be read, and would overtake the bytes that wait in the driver.
            stream.pause_reading()
            if not is_full:
                self._wait_for_turn()
        elif is_full:
            stream.pause_reading()

    def _wait_for_turn(self) -> None:
        hubs.give_memory_back(self.hub)
        # One message after the other. If they took turns, many would be in memory at once, each of
        # them up to 1000 times as large as what the peer has sent.
        is_first = self.driver is not None and self.driver.is_unpacking
        hubs.call_in_turn(self.hub, is_first, self.guard, self._go_on)

    def _go_on(self) -> None:
        """Take the bytes that the driver holds back, and read on."""
        driver, stream = self.driver, self.stream
        if driver is None or stream is None or stream.closed or self._is_resting:
            return
        stream.resume_reading()
        if driver.holds_back:
            stream.receive(b"")

    def read_on(self) -> None:
        """There is room again."""
        driver, stream = self.driver, self.stream
        if driver is None or stream is None or self.closing.peer_has_ended or self._is_resting:
            return
        if self.keepalive is not None:
            self.keepalive.excuse_message()
        if driver.holds_back:
            self._wait_for_turn()
        else:
            stream.resume_reading()

    @property
    def _is_resting(self) -> bool:
        """Whether reading has stopped by a rate; never behind our own close frame."""
        meter = self.meter
        return meter is not None and meter.is_resting and self.closing.phase is Phase.OPEN

    def note(self, event: Event) -> None:
        """Deal with an event that is no message."""
        if type(event) is CloseEvent:
            self.closing.close_event = event
        elif type(event) is ErrorEvent:
            self.closing.error_event = event
        elif type(event) is OpenEvent:
            self.clock.forget_end()
            self.closing.signal(Signal.OPENED)
            self._opened()
        else:
            self.dispatcher.tell(event)
            if type(event) is PongEvent and self.keepalive is not None:
                for callback in self.keepalive.match_pong(event.data):
                    self.dispatcher.run(callback)

    def eof_received(self) -> None:
        """The peer has ended TCP: 1006, unless its close frame came before."""
        self.closing.peer_has_ended = True
        self.closing.note_end()
        self.closing.check()

    def connection_lost(self, message: str, unread: bool = False) -> None:
        """The connection is gone; with ``unread`` there may be more to read.

        In that case the backlog is full. The rest is read when the view has made room. A view
        that never does must not keep the descriptor: after ``close_timeout`` it is closed.
        """
        is_unread = unread or (self.driver is not None and self.driver.holds_back)
        if is_unread and self.closing.close_event is None:
            patience = self.settings.close_timeout
            self.clock.expect_end(patience, lambda: self.closing.lose(message))
        else:
            self.closing.lose(message)

    def give_up(self, code: int, message: str) -> None:
        """Fail the connection for a reason of ours, as the driver does for a bad frame."""
        if self.driver is not None:
            self._deal_with(list(self.driver.fail(code, message)))

    def pause_writing(self) -> None:
        """The kernel has no room: bytes wait for the peer."""
        self.clock.expect_room()

    def resume_writing(self) -> None:
        """The kernel took some of the waiting bytes."""
        self.clock.note_room()
        if self.stream is None or self.stream.buffered > self.settings.high_water // 4:
            return
        self._answer_pings()
        self.changed.notify_all()
        if self.closing.close_event is None:
            self.dispatcher.tell(DrainEvent())
        self.closing.check()

    def listeners_changed(self) -> bool:
        """Listeners came or went. Returns what ``Closing.tell_late_listeners`` does."""
        self.dispatcher.listeners_changed()
        if self.dispatcher.gets_messages:
            messages = self.inbox.take_all()
            if messages:
                self.dispatcher.adopt(messages)
        return self.closing.tell_late_listeners()

    # Out, beside the outbox

    def ping(self, data: bytes, callback: Callback | None = None) -> bool:
        """Send a ping; False if none can be sent. ``callback`` runs once, at its pong."""
        driver, stream = self.driver, self.stream
        if driver is None or stream is None or self.closing.phase is not Phase.OPEN:
            return False
        if self.is_elsewhere:
            self.crossing.call(self.ping, data, callback)
            return True
        frame = driver.ping(data)
        if frame is None:
            return False
        stream.write(frame)
        if driver.features.pongs:
            self.clock.sent_ping(data, callback)
        return True

    def _answer_pings(self) -> None:
        driver, stream = self.driver, self.stream
        if driver is None or stream is None:
            return
        if stream.is_blocked:
            # The peer does not read: memory stays bounded, however many pings it sends.
            driver.drop_pongs()
            return
        output = driver.output()
        if output:
            stream.write(output)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin the closing handshake. Does not wait; does nothing a second time."""
        if self.is_elsewhere:
            self.crossing.call(self.close, code, reason)
            return
        self.crossing.run()  # messages that other threads have sent before
        if self.closing.phase is not Phase.CONNECTING:
            self.closing.close(code, reason, self.settings.close_timeout)
        elif self.driver is None:
            self.fail("", code, reason)
        else:
            self.closing.note_end()
            self.call_soon(self.closing.signal, Signal.LOST)

    def wait_opened(self, timeout: float | None = None) -> None:
        """Wait until it is open, or has failed; TimeoutError after ``timeout``."""
        self.check_thread("wait_open")
        if not self.changed.wait_for(lambda: self.state != ReadyState.CONNECTING, timeout):
            raise TimeoutError("the connection did not open in time")

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the descriptor is closed; TimeoutError after ``timeout``."""
        self.check_thread("wait_closed")
        if not self.changed.wait_for(lambda: self.state == ReadyState.CLOSED, timeout):
            raise TimeoutError("the connection was not closed in time")

    def forget_waiting(self) -> object:
        """In the child of a fork: drop what waits here; returned, to be kept (see ``fork``)."""
        self._thread = _get_ident()
        self.backlog.forget()
        self.crossing.forget()
        self.outbox.forget()
        return self.inbox.forget(), self.dispatcher.forget(), self.changed.forget()
