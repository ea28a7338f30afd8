"""The end of a connection: its phases, and one table of what leads from each to the next.

    CONNECTING --OPENED--> OPEN --PEER_CLOSED--> ANSWERING --ANSWERED--> FLUSHING
                             |                                              ^
                             +--CLOSE--> CLOSING --------PEER_CLOSED--------+

    FLUSHING --FLUSHED--> LINGERING --PEER_ENDED--> CLOSED --TOLD--> OVER

LOST leads from each phase before CLOSED to CLOSED. Each phase has a function ``_begin_<phase>``,
which does what the phase begins with: it writes a close frame, or sets a deadline. (CLOSING begins
in ``close``, which has the code and the reason.) The rules behind the table:

- What came before counts. Messages that arrived before the peer's close frame, or before its
  fault, are handed on first, and a view that answers them at once is heard before our close
  frame goes out (ANSWERING, a quarter of a second at most).
- RFC 6455 7.1.1: closing while the peer may still be sending would reset the connection before
  the peer has read our last frames. So our FIN goes out first, and we wait for the peer's FIN
  for a while (LINGERING). A client waits for the server's FIN, and sends its own after that.
- Every phase that waits for the peer has a deadline, but for OPEN: no peer can keep a descriptor.
- gevent stops a watcher whose callback raises, and drops such a timer or callback. The danger: a
  connection that failed in this way would stay for ever, and never be read again. So everything
  that the hub calls is guarded (``Connection.guard``), and a failure ends the connection here
  (``fail_with``).
"""

from __future__ import annotations

import logging
from enum import Enum, IntEnum
from typing import Any, Callable

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.events import CloseEvent, ErrorEvent, Event
from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport import hubs
from faye_wsgi.transport.tally import Life, Numbers

__all__ = ["Closing", "Phase", "Signal", "next_phase"]

log = logging.getLogger("faye_wsgi")


HOLD = 0.25  # seconds that our close frame waits for the answers to earlier messages
LINGER = 1.0  # seconds that the peer has to send FIN after us
HURRY = 0.2  # the same, when the process stops
GO_AWAY = 1.0  # seconds that a peer has to answer our close frame when the process stops
NO_ANSWER = "the closing handshake was not completed in time"
FORKED = "the connection belongs to the parent of this process"


class Phase(IntEnum):
    """Where a connection is in its life."""

    CONNECTING = 0  # the opening handshake is not complete
    OPEN = 1
    ANSWERING = 2  # the peer has closed; what came before is being answered
    CLOSING = 3  # our close frame went first; the peer's is awaited
    FLUSHING = 4  # the last frame is written; the kernel has not taken all
    LINGERING = 5  # our FIN is out; the peer's is awaited
    CLOSED = 6  # the descriptor is closed, or about to be; nothing more is sent
    OVER = 7  # all is released, and the listeners for the end are called


class Signal(Enum):
    """What leads from one phase to another."""

    OPENED = "the opening handshake is complete"
    CLOSE = "we close"
    PEER_CLOSED = "the driver has reported the peer's close, failure or end"
    ANSWERED = "what came before the end has been answered, or the time for it is up"
    FLUSHED = "the kernel has taken everything"
    PEER_ENDED = "the peer has ended TCP"
    LOST = "the connection is gone, or given up"
    TOLD = "the last events have been handed to the listeners' queue"


_TABLE = {
    (Phase.CONNECTING, Signal.OPENED): Phase.OPEN,
    (Phase.CONNECTING, Signal.PEER_CLOSED): Phase.FLUSHING,
    (Phase.OPEN, Signal.CLOSE): Phase.CLOSING,
    (Phase.OPEN, Signal.PEER_CLOSED): Phase.ANSWERING,
    (Phase.ANSWERING, Signal.ANSWERED): Phase.FLUSHING,
    (Phase.CLOSING, Signal.PEER_CLOSED): Phase.FLUSHING,
    (Phase.FLUSHING, Signal.FLUSHED): Phase.LINGERING,
    (Phase.LINGERING, Signal.PEER_ENDED): Phase.CLOSED,
    (Phase.CLOSED, Signal.TOLD): Phase.OVER,
    **{(phase, Signal.LOST): Phase.CLOSED for phase in Phase if phase < Phase.CLOSED},
}

# The states of the W3C's API. A view may send while it answers what came before a close.
READY_STATES = (
    ReadyState.CONNECTING,
    ReadyState.OPEN,
    ReadyState.OPEN,
    ReadyState.CLOSING,
    ReadyState.CLOSING,
    ReadyState.CLOSING,
    ReadyState.CLOSED,
    ReadyState.CLOSED,
)


def next_phase(phase: Phase, signal: Signal) -> Phase:
    """The phase to which a signal leads; ``phase`` itself where it means nothing there."""
    return _TABLE.get((phase, signal), phase)


class Closing:
    """The phase of one connection, how it ended, and what each phase begins with."""

    __slots__ = (
        "__weakref__",
        "_connection",
        "close_event",
        "error_event",
        "is_hurried",
        "life",
        "own_close",
        "peer_has_ended",
        "phase",
    )

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.phase = Phase.CONNECTING
        self.close_event: CloseEvent | None = None  # the peer's close, or 1006
        self.error_event: ErrorEvent | None = None
        self.own_close: CloseEvent | None = None  # the code and reason that we have sent
        self.peer_has_ended = False  # its FIN has come, which is later than its close frame
        self.is_hurried = False  # the process stops
        self.life: Life | None = None  # what metrics know of it, where they are on

    @property
    def dispatcher(self) -> Any:
        """The connection's dispatcher, for ``hubs``."""
        return self._connection.dispatcher

    @property
    def is_over(self) -> bool:
        """Whether all is released, and listeners are being called."""
        return self.phase is Phase.OVER

    @property
    def numbers(self) -> Numbers:
        """Messages in and out, and bytes in and out, for ``tally``."""
        connection = self._connection
        stream = connection.stream
        bytes_out = 0 if stream is None else stream.bytes_out
        return connection.received, connection.outbox.sent, connection.bytes_in, bytes_out

    @property
    def code_label(self) -> str:
        """The close code, for ``tally``: those that only the peer has chosen are put together."""
        if self.close_event is None or self.close_event.code is None:
            return "none"
        code = self.close_event.code
        is_ours = self.own_close is not None and self.own_close.code == code
        return str(code) if is_ours or code < 3000 else f"{code // 1000}xxx"

    # Signals

    def signal(self, signal: Signal) -> None:
        """Go on to the next phase, if ``signal`` leads to one, and call its beginning."""
        phase = next_phase(self.phase, signal)
        if phase is not self.phase:
            self.phase = phase
            begin = _BEGINNINGS.get(phase)
            if begin is not None:
                begin(self)

    def note_end(self) -> None:
        """Nothing more comes from the peer: the driver reports what that means (1006)."""
        connection = self._connection
        if connection.driver is not None:
            for event in connection.driver.receive_eof():
                connection.note(event)

    def check(self) -> None:
        """Something has changed (a read, room, an idle consumer): send the signal that follows."""
        if self.phase is Phase.OPEN or self.phase is Phase.CLOSING:
            if self.close_event is not None:
                self.signal(Signal.PEER_CLOSED)
        elif self.phase is Phase.ANSWERING:
            if not self._is_busy:
                self.signal(Signal.ANSWERED)
        elif self.phase is Phase.FLUSHING:
            stream = self._connection.stream
            stream.flush()
            if stream.broken:
                self.signal(Signal.LOST)
            elif not stream.buffered:
                self.signal(Signal.FLUSHED)
        elif self.phase is Phase.LINGERING:
            if self.peer_has_ended:
                self.signal(Signal.PEER_ENDED)
        elif self.phase is Phase.CONNECTING and self.close_event is not None:
            self.signal(Signal.PEER_CLOSED)

    def lose(self, message: str) -> None:
        """The connection is gone, or given up: 1006, unless the peer has closed before."""
        if self.close_event is None:
            self.error_event = ErrorEvent(message)
            self.note_end()
        self._end()

    def refuse(self, message: str, code: int | None, reason: str) -> None:
        """It could not be opened: CLOSED at once; listeners hear of it in the hub's next turn."""
        self.error_event = ErrorEvent(message) if message else None
        self.close_event = CloseEvent(code, reason)
        self.phase = next_phase(self.phase, Signal.LOST)
        self._connection.call_soon(self._end)

    def abort(self, error: BaseException) -> None:
        """Opening has raised ``error``: CLOSED at once; listeners hear of it in the next turn."""
        _try(self._note_failure, error)
        self.phase = next_phase(self.phase, Signal.LOST)
        _try(self._release)
        self._connection.call_soon(self._end)  # a client has listeners already

    # The beginnings of the phases

    def close(self, code: int, reason: str, patience: float) -> None:
        """Begin the closing handshake; the peer has ``patience`` seconds for its close frame."""
        connection = self._connection
        if self.phase is Phase.ANSWERING:  # the peer closed first: our reply need not wait longer
            connection.call_soon(self.signal, Signal.ANSWERED)
            return
        if self.phase is not Phase.OPEN:
            return
        if connection.driver.features.codes:
            self.own_close = CloseEvent(code, reason)
        self.signal(Signal.CLOSE)
        frame = connection.driver.close(code, reason)
        if frame:
            connection.stream.write(frame)
        connection.clock.expect_end(patience, self._give_up)
        connection.read_on()  # until the peer's close frame; messages before it are dropped
        connection.call_soon(connection.changed.notify_all)
        if not connection.driver.features.closing_handshake:
            self.note_end()
            connection.call_soon(self.check)

    def _give_up(self) -> None:
        """The time for the peer's close frame is up: 1006, unless it has arrived already."""
        stream = self._connection.stream
        if stream.is_reading:
            # After a busy time of the hub the timer comes before what has arrived meanwhile.
            stream.readable()
        if self.phase is Phase.CLOSING:
            self.lose(NO_ANSWER)

    def go_away(self, code: int) -> None:
        """The process stops: close with ``code`` and little patience. It is called repeatedly."""
        if not self.is_hurried and self.phase is not Phase.CONNECTING:
            self.is_hurried = True
            # Guarded: one that raises stops no other.
            self._connection.call_soon(self._go_away, code)

    def _go_away(self, code: int) -> None:
        if self.phase in (Phase.OPEN, Phase.ANSWERING):
            self.close(code, "", GO_AWAY)
        elif Phase.CLOSING <= self.phase < Phase.CLOSED:
            self._connection.clock.expect_end(GO_AWAY, lambda: self.lose(NO_ANSWER))

    def _begin_answering(self) -> None:
        if not self._is_busy:
            self.signal(Signal.ANSWERED)
            return
        self._connection.backlog.is_awaited = True
        self._connection.clock.expect_end(HOLD, lambda: self.signal(Signal.ANSWERED))

    @property
    def _is_busy(self) -> bool:
        """Whether the view or the listeners are still busy with messages that arrived."""
        connection = self._connection
        return bool(connection.inbox.is_busy or connection.dispatcher.is_busy)

    def consumed(self) -> None:
        """The consumer has dealt with all messages: a close frame that waited for it may go."""
        self._connection.call_soon(self.check)
        self._connection.call_soon(self._connection.changed.notify_all)

    def _begin_flushing(self) -> None:
        # RFC 6455 5.5.1: the close frame that answers the peer's; nothing is sent after it.
        connection = self._connection
        frame = connection.driver.closing_frame()
        if frame:
            connection.stream.write(frame)
        patience = connection.settings.close_timeout
        connection.clock.expect_end(patience, lambda: self.signal(Signal.LOST))
        self.check()

    def _begin_lingering(self) -> None:
        connection = self._connection
        # RFC 6455 7.1.1: a client lets the server end TCP first, unless something failed.
        if not connection.settings.awaits_server or self.error_event is not None:
            patience = HURRY if self.is_hurried else LINGER
            connection.clock.expect_end(patience, lambda: self.signal(Signal.LOST))
            connection.stream.shutdown_write()
        connection.stream.resume_reading()
        self.check()

    def _begin_closed(self) -> None:
        if self.close_event is None:  # the driver could not even report the end
            self.close_event = CloseEvent(CloseCode.ABNORMAL_CLOSURE, "")
        self._release()
        self._connection.dispatcher.put_last(self._last_events)
        self.signal(Signal.TOLD)

    def _begin_over(self) -> None:
        connection = self._connection
        connection.inbox.deliver()
        connection.dispatcher.deliver()
        connection.inbox.end()
        connection.changed.notify_all()

    @property
    def _last_events(self) -> list[Event]:
        events = (self.error_event, self.close_event)
        return [event for event in events if event is not None]

    def _release(self) -> None:
        connection = self._connection
        if connection.keepalive is not None:
            connection.keepalive.stop()
        if connection.meter is not None:
            connection.meter.stop()
        if connection.stream is None or connection.driver is None:
            return
        try:
            connection.driver.closing_frame()  # which closes the driver and its extensions
        finally:
            connection.stream.close()
        hubs.leave(connection.hub, self)
        connection.dispatcher.use_idle(None)

    # Failures in the hub

    def fail_with(self, error: BaseException) -> None:
        """A callback of the hub has raised: 1006 ends this connection, and no other one.

        An error that is no ``Exception`` (KeyboardInterrupt, SystemExit, the end of the hub) is
        not logged here: the guard raises it once more, and gevent passes it on. The connection
        ends in this case, too, because the bytes that were being handled are lost.
        """
        if isinstance(error, Exception):
            message = "a connection failed: 1006 closes %r"
            sink = self._connection.dispatcher.sink
            _try(lambda: log.error(message, sink, exc_info=error))
        elif self.phase is Phase.OVER:
            return  # the hub ends, and runs no more listeners
        _try(self._note_failure, error)
        # Memory may be too short even for the end. The second try has what the first one has
        # released.
        if not (_try(self._end) or _try(self._end)):
            stream = self._connection.stream
            if stream is not None:
                _try(stream.close)

    def _note_failure(self, error: BaseException) -> None:
        if self.close_event is None:
            self.error_event = ErrorEvent(f"the connection failed: {type(error).__name__}")
            self.note_end()

    def _end(self) -> None:
        # If the beginning of the last phases has raised, it is called once more.
        if self.phase is Phase.OVER:
            self._begin_over()
        elif self.phase is Phase.CLOSED:
            self._begin_closed()
        else:
            self.signal(Signal.LOST)

    # Without a hub: the thread that ran it has gone, or this is the child of a fork

    def abandon(self, code: int) -> bool:
        """End at once, in any thread: the thread that served this connection is gone.

        Only the peer hears of it. Returns whether there are listeners that have not: then a
        thread must call the dispatcher's ``tell_here``.
        """
        connection = self._connection
        connection.dispatcher.leave_hub()
        driver, stream = connection.driver, connection.stream
        if driver is None or stream is None or stream.closed:
            # A listener may have been registered after the end.
            return bool(connection.dispatcher.leave_to_thread(()))
        if self.phase <= Phase.OPEN:
            stream.write(driver.close(code, ""))
        else:
            stream.write(driver.closing_frame())
        stream.flush()
        if self.close_event is None:
            self.note_end()
        self.phase = Phase.OVER
        self._release()
        return bool(connection.dispatcher.leave_to_thread(self._last_events))

    def tell_late_listeners(self) -> bool:
        """Call the listeners for ``close`` that were registered after the end.

        Returns whether no hub runs that could do it: then a thread must call the dispatcher's
        ``tell_here``.
        """
        connection, event = self._connection, self.close_event
        dispatcher = connection.dispatcher
        if self.phase is not Phase.OVER or event is None:
            return False
        if not dispatcher.sink.has_listeners("close"):
            return False
        if not dispatcher.has_hub:
            dispatcher.leave_hub()
            return bool(dispatcher.leave_to_thread([event]))
        if connection.is_elsewhere:
            connection.crossing.call(dispatcher.tell, event)
        else:
            dispatcher.tell(event)
        return False

    def forget(self, hub: Any) -> object:
        """In the child of a fork: CLOSED here, without a word; the parent goes on with it."""
        connection = self._connection
        self.phase = Phase.OVER
        if self.close_event is None:
            self.close_event = CloseEvent(CloseCode.ABNORMAL_CLOSURE, FORKED)
        kept = connection.forget_waiting()
        if connection.stream is not None and connection.driver is not None:
            connection.stream.forget(hub)
            connection.driver.closing_frame()  # which closes the driver
        if connection.hub is hub:
            if connection.keepalive is not None:
                connection.keepalive.stop()
            if connection.meter is not None:
                connection.meter.stop()
            if connection.cancel is not None:
                connection.cancel()
        connection.cancel = None
        return kept

    def discard(self) -> None:
        """It will never be opened, and needs no hub."""
        self.phase = Phase.OVER

    # For the calls of the view

    def wait_told(self) -> None:
        """Wait until it is closed and all its listeners have been called."""
        connection = self._connection
        connection.backlog.is_awaited = True
        connection.changed.wait_for(
            lambda: self.is_over and not (connection.dispatcher.is_telling or self._is_asking), None
        )

    @property
    def _is_asking(self) -> bool:
        keepalive = self._connection.keepalive
        return keepalive is not None and keepalive.is_asking

    def error(self) -> ConnectionClosed:
        """What a call on a closing or closed connection raises."""
        event = self.close_event or self.own_close
        error = ConnectionClosed(event.code, event.reason) if event else ConnectionClosed()
        error.target = self._connection.dispatcher.sink
        error.__notes__ = [_NOTE]  # which Python 3.11 and later show below a traceback
        return error


_NOTE = (
    "This is the ordinary end of a connection: receive and send raise it. Catch ConnectionClosed, "
    "or loop with 'for message in ws:'. A view may let it pass inside of 'with ws:', and below a "
    "decorator of faye_wsgi.flask or faye_wsgi.django."
)
_BEGINNINGS: dict[Phase, Callable[[Closing], None]] = {
    Phase.ANSWERING: Closing._begin_answering,
    Phase.FLUSHING: Closing._begin_flushing,
    Phase.LINGERING: Closing._begin_lingering,
    Phase.CLOSED: Closing._begin_closed,
    Phase.OVER: Closing._begin_over,
}


def _try(function: Callable[..., object], *args: Any) -> bool:
    try:
        function(*args)
    except Exception:
        return False
    return True
