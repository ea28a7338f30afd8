"""A connection: a driver on a stream, an inbox and an outbox above them, and an ending.

In: the stream's bytes go to the driver, the driver's messages to the inbox, and the
greenlet that waits for them is switched to at once, from the hub. Out: the outbox writes
the driver's frames to the stream.

There is one way to the end: the driver's close event → what came before it is answered →
our close frame → flushed → the descriptor closed → the close event told. ``_step`` is
the next step of it. All of that runs in the hub; calls from other threads are handed
over to it.
"""

from __future__ import annotations

import logging
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
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport import fork, hubs
from faye_wsgi.transport.inbox import Inbox, Sink
from faye_wsgi.transport.keepalive import Callback, Keepalive
from faye_wsgi.transport.outbox import Outbox, Sendable
from faye_wsgi.transport.settings import Settings
from faye_wsgi.transport.stream import Stream

__all__ = ["Connection", "Sendable"]

log = logging.getLogger("faye_wsgi")

_get_ident = get_original("_thread", "get_ident")
_allocate_lock = get_original("_thread", "allocate_lock")

HOLD = 0.25  # seconds that our close frame waits for answers to what came before
OPEN_TIMEOUT = 10.0  # seconds for what a handshake has after its head
LINGER = 1.0  # seconds that the peer has to end TCP after us
HURRY = 0.2  # the same, when the process stops
GO_AWAY = 1.0  # seconds that a peer has to answer 1001 when the process stops
FORKED = "the connection belongs to the parent of this process"

_OPEN = ReadyState.OPEN


class Connection:
    """One connection, from before its opening handshake to after its end."""

    __slots__ = (
        "__weakref__",
        "_cancel",
        "_close_event",
        "_closing",
        "_ended_in",
        "_error_event",
        "_heard",
        "_hub",
        "_hurries",
        "_inbox",
        "_keepalive",
        "_settings",
        "_sink",
        "_step",
        "_telling",
        "_thread",
        "driver",
        "is_over",
        "outbox",
        "stream",
    )

    def __init__(self, sink: Sink, settings: Settings) -> None:
        self.driver: Driver | None = None
        self._inbox: Any = None
        self._heard = False  # since the last ping that wants a sign of life
        self._close_event: CloseEvent | None = None
        self._step: Callable[[], object] | None = None  # towards the end
        self.is_over = False  # all is released, and listeners are being told
        self._hub = hubs.reserve(self)
        self._thread = _get_ident()
        self._settings = settings
        self._sink = sink
        self._inbox = Inbox(self._hub, self, sink, settings)
        self.outbox = Outbox(self._hub, self, settings.high_water)
        self.stream: Stream | None = None
        self._cancel: Callback | None = None  # ends the attempt to connect
        self._ended_in = False  # the peer has ended TCP
        # The clock and the end
        self._keepalive: Keepalive | None = None
        self._error_event: ErrorEvent | None = None
        self._closing: CloseEvent | None = None  # what we have closed with
        self._hurries = False  # the process stops
        # A lock, once no hub runs for this any more: threads tell the listeners, by turns.
        self._telling: Any = None
        fork.watch(self)

    @property
    def state(self) -> ReadyState:
        """CLOSED only once the descriptor is closed."""
        if self.stream is None or self.driver is None:
            return ReadyState.CONNECTING if self._close_event is None else ReadyState.CLOSED
        if self.stream.closed:
            return ReadyState.CLOSED
        return min(self.driver.state, ReadyState.CLOSING)

    def look(self) -> None:
        """See what has arrived, if that was a while ago and nobody else runs the hub."""
        if self.outbox.is_alone:
            self.outbox.give_turn()

    @property
    def close_event(self) -> CloseEvent | None:
        """How it ended; None before it has."""
        return self._close_event if self.state == ReadyState.CLOSED else None

    @property
    def buffered(self) -> int:
        """Bytes accepted for sending that the kernel has not taken."""
        return self.outbox.buffered

    @property
    def latency(self) -> float | None:
        """Seconds that the last answered ping took, None before one."""
        return None if self._keepalive is None else self._keepalive.latency

    def set_sink(self, sink: Sink) -> None:
        """Tell somebody else from now on."""
        self._sink = sink
        self._inbox.set_sink(sink)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the caller runs in another thread than the connection."""
        return bool(_get_ident() != self._thread)

    # Opening

    def attempting(self, cancel: Callback) -> None:
        """Somebody tries to connect, who is to be told by ``cancel`` if it is given up."""
        self._cancel = cancel

    @property
    def is_given_up(self) -> bool:
        """Whether it was ended before it opened."""
        return self._close_event is not None

    def open(self, driver: Driver, sock: Any, head: bytes, read_ahead: bytes = b"") -> None:
        """Begin on a taken socket: send ``head`` (the handshake), read ``read_ahead`` first."""
        try:
            self._start(driver, sock, head, read_ahead)
        except BaseException as error:
            _try(self._release)
            sock.close()
            self.call_soon(self._fail, error)  # a client has listeners already
            raise

    def _start(self, driver: Driver, sock: Any, head: bytes, read_ahead: bytes) -> None:
        self.driver = driver
        self._cancel = None
        self.stream = Stream(sock, self._hub.loop, self)
        self.stream.read_size = driver.read_size
        self.outbox.set_stream(driver, self.stream)
        if head:
            self.stream.write(head)
            self.stream.flush()  # in a thread that left its hub in the middle of a read
        if driver.state != ReadyState.CONNECTING:
            self.outbox.send_unsent()  # now: what is sent from here on goes straight out
        self._inbox.set_idle(hubs.join(self._hub, self))
        if self._settings.ping:
            self._clock().ping_every(
                self._settings.ping, lambda: self.ping(b""), lambda: self._heard
            )
        # The rest happens in the hub: listeners are set before it runs, and miss nothing.
        self.call_soon(self._begin, read_ahead)

    def _begin(self, read_ahead: bytes) -> None:
        driver, stream = self.driver, self.stream
        if driver is None or stream is None or stream.closed:
            return
        if driver.state == ReadyState.CONNECTING:  # hixie-76: its handshake has a body
            self._clock().expect_end(OPEN_TIMEOUT, self._not_opened)
        else:
            self._opened()
        stream.resume_reading()
        if read_ahead:
            self.received(read_ahead)

    def _opened(self) -> None:
        self._inbox.tell(OpenEvent())
        self.outbox.send_unsent()
        self.outbox.wake()

    def wait_opened(self, timeout: float | None = None) -> None:
        """Wait until it is open, or has failed; TimeoutError after ``timeout``."""
        if self.is_elsewhere:
            raise RuntimeError("wait_open belongs to the thread that made the connection")
        if not self.outbox.wait_until(lambda: self.state != ReadyState.CONNECTING, timeout):
            raise TimeoutError("the connection did not open in time")

    def _not_opened(self) -> None:
        self._lose("the opening handshake was not completed in time")

    def fail(self, message: str, code: int | None, reason: str) -> None:
        """End a connection that could not be opened."""
        self._error_event = ErrorEvent(message) if message else None
        self._close_event = CloseEvent(code, reason)
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()  # which closes its descriptor before the next line's turn comes
        self.call_soon(self._tear_down)

    # In: what the stream tells, in the hub

    def received(self, data: bytes) -> None:
        """Bytes have arrived: one batch, whose answers go out together."""
        self._heard = True
        if self._close_event is not None:
            return  # what follows the peer's close frame is nothing to us
        driver: Any = self.driver
        inbox = self._inbox
        received = driver.receive_data(data, inbox.room)
        if not received or driver.expected or inbox.expected or driver.holds_back:
            is_full = self._receive_events(received)
        elif _are_messages(received):  # nearly always
            is_full = inbox.hand_out(received)
        else:
            is_full = self._receive_events(received)
        if is_full:
            self._stop_reading()
        if self._step is not None:
            self._step()

    def _receive_events(self, received: list[Data | Event]) -> bool:
        inbox, driver = self._inbox, self.driver
        for event in received:
            if isinstance(event, (str, bytes)):
                inbox.put((event,))
            else:
                self._note(event)
        self._answer_pings()
        inbox.deliver()
        if self.stream is not None:
            self.stream.expect(driver.missing, driver.read_size)  # type: ignore[union-attr]
        inbox.expected = driver.expected  # type: ignore[union-attr]
        is_full = bool(inbox.is_full)
        if not driver.holds_back:  # type: ignore[union-attr]
            return is_full
        if not is_full:  # the consumer was fast
            self.call_soon(self._receive_held_back)
        return True

    def _receive_held_back(self) -> None:
        """There is room for what the driver holds back; only behind it is more read."""
        driver, stream = self.driver, self.stream
        if driver is None or stream is None or stream.closed or not driver.holds_back:
            return
        is_full = self._receive_events(driver.receive_data(b"", self._inbox.room))
        if not driver.holds_back and not (is_full and self.state == _OPEN):
            stream.resume_reading()
        if self._step is not None:
            self._step()

    def _stop_reading(self) -> None:
        # Behind our own close frame messages are dropped, so that there is always room. But
        # while bytes are held back, the peer's end of TCP must not overtake them.
        if self.state == _OPEN or self.driver.holds_back:  # type: ignore[union-attr]
            self.stream.pause_reading()  # type: ignore[union-attr]

    def _read_on(self) -> None:
        driver, stream = self.driver, self.stream
        if driver is not None and driver.holds_back:
            self.call_soon(self._receive_held_back)
        elif stream is not None:
            stream.resume_reading()

    def ended(self) -> None:
        """The peer has ended TCP: 1006, unless it said goodbye before."""
        self._ended_in = True
        self._note_eof()
        if self._step is not None:
            self._step()

    def lost(self, message: str) -> None:
        """The connection is gone."""
        if self.driver is not None and self.driver.holds_back:
            self.lost_unread(message)
        else:
            self._lose(message)

    def lost_unread(self, message: str) -> None:
        """The connection is gone, but the queue is full, and the peer's last words are not read."""
        if self._close_event is not None:
            self._lose(message)
        else:
            # They are read when the view has made room. If it never does, they are given up:
            # no descriptor may depend on it.
            self._clock().expect_end(self._settings.close_timeout, lambda: self._lose(message))

    def _lose(self, message: str) -> None:
        if self._close_event is None:
            self._error_event = ErrorEvent(message)
            self._note_eof()
        self._tear_down()

    def drained(self) -> None:
        """The kernel took something of what waited."""
        stream = self.stream
        if stream is None or stream.buffered > self._settings.high_water // 4:
            return
        self._answer_pings()
        self.outbox.wake()
        if self._close_event is None:
            self._inbox.tell(DrainEvent())
        if self._step is not None:
            self._step()

    def _note(self, event: Event) -> None:
        if type(event) is CloseEvent:
            self._close_event = event
            self._step = self._answer
        elif type(event) is ErrorEvent:
            self._error_event = event
        elif type(event) is OpenEvent:
            self._clock().forget_end()
            self._opened()
        else:
            self._inbox.tell(event)
            if type(event) is PongEvent and self._keepalive is not None:
                for callback in self._keepalive.match_pong(event.data):
                    self._inbox.run(callback)

    def _note_eof(self) -> None:
        if self.driver is not None:
            for event in self.driver.receive_eof():
                self._note(event)

    # In: what the inbox tells

    def relieved(self) -> None:
        """The inbox has room again."""
        if not self._ended_in:
            self._read_on()

    def consumed(self) -> None:
        """All that arrived has been dealt with: a close frame that waited for it may go."""
        self.call_soon(self._go_on)

    def listener_failed(self) -> None:
        """A listener raised."""
        self.close(CloseCode.INTERNAL_ERROR, "")

    def listeners_changed(self) -> bool:
        """There may be listeners for messages now, or for the end after it was told.

        Whether no hub runs that tells the latter: then a thread must call ``tell_here``.
        """
        self._inbox.listeners_changed()
        event = self._close_event
        if not self.is_over or event is None or not self._sink.has_listeners("close"):
            return False
        if self._telling is not None or self._hub.loop is None:
            self.leave_hub()
            return bool(self._inbox.leave_to_thread([event]))
        if _get_ident() != self._thread:
            self.outbox.call(self._inbox.tell, event)
        else:
            self._inbox.tell(event)
        return False

    def pause(self) -> None:
        """Hold messages back from listeners."""
        self._inbox.pause()

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._inbox.resume()

    def receive(self, timeout: float | None = None) -> Data:
        """The next message; ConnectionClosed at the end, TimeoutError after ``timeout``."""
        message = self.take(timeout)
        if message is None:
            raise self.closed_error()
        return message

    @property
    def take(self) -> Callable[..., Data | None]:
        """A function ``(timeout=None)``: the next message, None at the end, or TimeoutError."""
        if _get_ident() != self._thread:
            raise RuntimeError("receive belongs to the thread that made the connection")
        take: Callable[..., Data | None] = self._inbox.take
        return take

    # Out

    def send(self, message: Sendable, timeout: float | None = None) -> None:
        """Send a message; blocks while more than the high-water mark waits for the peer."""
        self.outbox.send(message, timeout)

    @property
    def has_room(self) -> bool:
        """Whether ``send`` would not block."""
        return self.outbox.has_room

    # Pings

    def ping(self, data: bytes, callback: Callback | None = None) -> bool:
        """Send a ping; False if none can be sent. ``callback`` runs once, at its pong."""
        driver, stream = self.driver, self.stream
        if driver is None or stream is None or self._close_event or driver.state != _OPEN:
            return False
        if _get_ident() != self._thread:
            self.outbox.call(self.ping, data, callback)
            return True
        frame = driver.ping(data)
        if frame is None:
            return False
        stream.write(frame)
        if driver.features.pongs:
            self._clock().sent_ping(data, callback)
            self._expect_life()
        return True

    def _expect_life(self) -> None:
        seconds = self._settings.ping_timeout
        if seconds and self._clock().expect_life(seconds, self._is_alive, self._given_up):
            self._heard = False

    def _is_alive(self) -> bool:
        # While reading is stopped nothing can be heard; a busy hub may be late to read.
        stream = self.stream
        if not self._heard and stream is not None and stream.is_reading:
            stream.read_now()
            return self._heard or stream.closed
        return True

    def _given_up(self) -> None:
        self._lose("the peer gave no sign of life")

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

    def _clock(self) -> Keepalive:
        if self._keepalive is None:
            self._keepalive = Keepalive(self._hub.loop, self.guard)
        return self._keepalive

    # The end

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin the closing handshake. Does not wait; does nothing a second time."""
        if _get_ident() != self._thread:
            self.outbox.call(self.close, code, reason)
            return
        self.outbox.run_crossed()
        if self.state == ReadyState.CONNECTING and self.driver is None:
            self.fail("", code, reason)
        elif self.state == ReadyState.CONNECTING:
            self._note_eof()
            self.call_soon(self._tear_down)
        elif self.state == _OPEN:
            self._start_closing(code, reason, self._settings.close_timeout)

    def go_away(self) -> None:
        """The process stops: 1001, and little patience."""
        self._hurries = True
        if self.state == _OPEN:
            self._start_closing(CloseCode.GOING_AWAY, "", GO_AWAY)
        elif self.state == ReadyState.CLOSING:
            self._clock().expect_end(GO_AWAY, self._give_up)

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the descriptor is closed; TimeoutError after ``timeout``."""
        if _get_ident() != self._thread:
            raise RuntimeError("wait_closed belongs to the thread that made the connection")
        if not self.outbox.wait_until(lambda: self.state == ReadyState.CLOSED, timeout):
            raise TimeoutError("the connection was not closed in time")

    def wait_told(self) -> None:
        """Wait until it is closed and all listeners have heard of it."""
        self._inbox.is_awaited = True
        self.outbox.wait_until(lambda: self.is_over and not self._inbox.is_telling, None)

    def closed_error(self) -> ConnectionClosed:
        """What a call on a closing or closed connection raises."""
        event = self._close_event or self._closing
        error = ConnectionClosed(event.code, event.reason) if event else ConnectionClosed()
        error.target = self._sink
        return error

    def _start_closing(self, code: int, reason: str, patience: float) -> None:
        driver, stream = self.driver, self.stream
        assert driver is not None and stream is not None
        if self._close_event is not None:  # the peer was first, and its reply is held
            self.call_soon(self._reply)
            return
        if driver.features.codes:
            self._closing = CloseEvent(code, reason)
        frame = driver.close(code, reason)
        if frame:
            stream.write(frame)
        self._clock().expect_end(patience, self._give_up)
        self._read_on()  # what still comes is dropped, but for the peer's close frame
        self.call_soon(self.outbox.wake)
        if not driver.features.closing_handshake:
            self._note_eof()
            self.call_soon(self._go_on)

    def _give_up(self) -> None:
        self._lose("the closing handshake was not completed in time")

    def _go_on(self) -> None:
        if self._step is not None:
            self._step()
        else:
            self.outbox.wake()

    def _answer(self) -> None:
        """Step 1: who deals with what came before is heard first, if it answers at once."""
        assert self.driver is not None
        if self.driver.state == _OPEN and self._inbox.is_busy:
            if self._step != self._hold:
                self._step = self._hold
                self._inbox.is_awaited = True
                self._clock().expect_end(HOLD, self._reply)
        else:
            self._reply()

    def _hold(self) -> None:
        if not self._inbox.is_busy:
            self._reply()

    def _reply(self) -> None:
        """Step 2: our close frame, after which nothing can be sent."""
        driver, stream = self.driver, self.stream
        if self._step not in (self._answer, self._hold) or driver is None or stream is None:
            return
        frame = driver.closing_frame()
        if frame:
            stream.write(frame)
        self._step = self._flush
        self._clock().expect_end(self._settings.close_timeout, self._tear_down)
        self._flush()

    def _flush(self) -> None:
        """Step 3: all that was sent is the kernel's."""
        stream = self.stream
        if stream is None:
            return
        stream.flush()
        if stream.buffered and not stream.broken:
            return
        # Closing while the peer may still be sending would reset the connection before it
        # has read our last words (RFC 6455 §7.1.1). So its FIN is waited for, a while.
        if stream.broken:
            self._tear_down()
            return
        self._step = self._linger
        if not self._settings.awaits_server or self._error_event is not None:
            self._clock().expect_end(HURRY if self._hurries else LINGER, self._tear_down)
            stream.shutdown_write()
        stream.resume_reading()
        self._linger()

    def _linger(self) -> None:
        """Step 4: the peer ends TCP."""
        if self._ended_in:
            self._tear_down()

    def _tear_down(self) -> None:
        """Step 5: release everything, then tell."""
        self._step = None
        if self._close_event is None or self.is_over:
            return
        self._release()
        self._inbox.put_last(self._last_events)
        self.is_over = True
        self._tell_end()

    def _tell_end(self) -> None:
        self._inbox.deliver()
        self._inbox.end()
        self.outbox.wake()

    def _release(self) -> None:
        if self._keepalive is not None:
            self._keepalive.stop()
        if self.stream is not None and self.driver is not None:
            try:
                self.driver.closing_frame()  # which closes the driver
            finally:
                self.stream.close()
            hubs.leave(self._hub, self)
            self._inbox.set_idle(None)

    def abandon(self, code: int) -> bool:
        """End at once, telling nobody but the peer: the thread that served this is gone.

        Whether listeners have not heard of it: then a thread must call ``tell_here``.
        """
        self.leave_hub()
        driver, stream = self.driver, self.stream
        if driver is None or stream is None or stream.closed:
            return bool(self._inbox.leave_to_thread(()))  # a listener may have come after the end
        stream.write(driver.close(code, "") if self._step is None else driver.closing_frame())
        stream.flush()
        if self._close_event is None:
            self._note_eof()
        self.is_over = True
        self._release()
        return bool(self._inbox.leave_to_thread(self._last_events))

    def forget(self, hub: Any) -> object:
        """In the child of a fork: it is closed here, in silence, and the parent goes on with it."""
        self.is_over = True
        self._step = None
        self._thread = _get_ident()
        if self._close_event is None:
            self._close_event = CloseEvent(CloseCode.ABNORMAL_CLOSURE, FORKED)
        kept = (self._inbox.forget(), self.outbox.forget())
        if self.stream is not None and self.driver is not None:
            self.stream.forget(hub)
            self.driver.closing_frame()  # which closes the driver
        if self._hub is hub:
            if self._keepalive is not None:
                self._keepalive.stop()
            if self._cancel is not None:
                self._cancel()
        self._cancel = None
        return kept

    def leave_hub(self) -> None:
        """No hub runs for this connection any more."""
        if self._telling is None:
            self._telling = _allocate_lock()

    def tell_here(self) -> None:
        """Tell the listeners what waits for them, in the caller's thread."""
        with self._telling:
            self._inbox.dispatch_all()

    @property
    def _last_events(self) -> list[Event]:
        events = (self._error_event, self._close_event)
        return [event for event in events if event is not None]

    # Failures in the hub: gevent stops a watcher whose callback raises, and forgets a timer
    # or a callback. The connection would stay as it is for ever, with no one to read or end it.

    def guard(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function for the hub: all that the hub calls goes through here.

        ``Stream.readable`` does the same itself, as the one callback that must be fast.
        """
        try:
            function(*args)
        except BaseException as error:
            self.failed(error)
            if not isinstance(error, Exception):
                raise

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function in the next turn of the hub, under ``guard``."""
        self._hub.loop.run_callback(self.guard, function, *args)

    def failed(self, error: BaseException) -> None:
        """A callback of the hub has raised: 1006 ends this connection, and no other one.

        What is no ``Exception`` (KeyboardInterrupt, SystemExit, the end of the hub) is not
        logged but raised once more by the caller, for gevent, which passes it on. The
        connection ends then, too: the bytes that were being dealt with are lost.
        """
        if isinstance(error, Exception):
            message = "a connection failed: 1006 closes %r"
            _try(lambda: log.error(message, self._sink, exc_info=error))
        elif self.is_over:
            return  # the hub ends, and nothing more can be told in it
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        _try(self._note_failure, error)
        if self._close_event is None:  # the driver could not even end
            self._close_event = CloseEvent(CloseCode.ABNORMAL_CLOSURE, "")
        # Memory may be short for the end, too, but not for long: the second try finds what
        # the first one has released.
        if not (_try(self._finish) or _try(self._finish)) and self.stream is not None:
            _try(self.stream.close)

    def _finish(self) -> None:
        if self.is_over:
            self._tell_end()  # which has raised before
        else:
            self._tear_down()

    def _note_failure(self, error: BaseException) -> None:
        if self._close_event is None:
            self._error_event = ErrorEvent(f"the connection failed: {type(error).__name__}")
            self._note_eof()


def _are_messages(received: list[Data | Event]) -> bool:
    for item in received:
        kind = type(item)
        if kind is not str and kind is not bytes:
            return False
    return True


def _try(function: Callable[..., object], *args: Any) -> bool:
    try:
        function(*args)
    except Exception:
        return False
    return True
