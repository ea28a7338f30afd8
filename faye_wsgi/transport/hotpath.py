"""What happens for nearly every message, on its way in and out: the short way, and no more.

A base class below each of ``Stream``, ``Connection``, ``Inbox`` and ``Outbox``, with what
these need for it and a hook for everything else. Each has a C twin in ``_hotpath.c``, for between
the two system calls of a message an interpreter takes as long as one of these; the tests
run over both. ``FAYE_WSGI_PURE=1`` leaves the C ones out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Callable

from gevent.monkey import get_original
from greenlet import getcurrent, greenlet

from faye_wsgi.driver.base import Driver, ReadyState
from faye_wsgi.driver.events import CloseEvent, Data, MessageEvent
from faye_wsgi.driver.frames import stored_size

__all__ = [
    'GATHER',
    'LARGE',
    'Batch',
    'ConnectionPath',
    'InboxPath',
    'OutboxPath',
    'StreamPath',
]

GATHER = 65536  # bytes: what is gathered goes out when this much is together
LARGE = 32768  # bytes: what is not worth copying
# What a thread may write before the others have their turn: a system call counts as one,
# and so do this many bytes, and this many pieces that were gathered.
TURN = 64
TURN_BYTES = 2048
TURN_PIECES = 16

_get_ident = get_original('_thread', 'get_ident')
_OPEN = ReadyState.OPEN
_NONE: Any = ()  # stands for a queue that was never needed: a deque takes 600 bytes


class PythonBatch:
    """Whether the bytes of one read are being dealt with, and who was written to since.

    ``turn`` measures what was written since the hub last ran.
    """

    __slots__ = ('is_open', 'turn', 'written')

    def __init__(self) -> None:
        self.is_open = False
        self.turn = 0
        self.written: list[Any] = []

    def flush(self) -> None:
        """Close the batch; every stream flushes, and one that cannot fails alone."""
        self.is_open = False
        failure = None
        for stream in self.written:
            try:
                stream.flush()
            except BaseException as error:
                stream._receiver.failed(error)
                if not isinstance(error, Exception):
                    failure = failure or error
        self.written.clear()
        if failure is not None:
            raise failure


class PythonStreamPath:
    """One read, and the writes that answer it.

    ``fd`` is the descriptor of ``sock`` where that is no more than it, else -1: the twin
    reads and writes it itself, until ``_recv`` and ``_send`` are set.
    """

    __slots__ = (
        '_batch',
        '_gathered',
        '_gathered_size',
        '_receiver',
        '_recv',
        '_send',
        '_waiting',
        '_waiting_size',
        'read_size',
    )

    def __init__(self, sock: Any, receiver: Any, batch: Any, read_size: int, fd: int) -> None:
        self._recv: Callable[[int], bytes] = sock.recv
        self._send: Callable[[Any], int] = sock.send
        self._receiver = receiver
        self._batch = batch
        self._gathered: list[bytes] = []  # while the batch is open
        self._gathered_size = 0
        # What the kernel would not take: small pieces together, large ones not copied.
        self._waiting: list[bytearray | memoryview] = []
        self._waiting_size = 0
        self.read_size = read_size  # bytes to read at a time

    def readable(self) -> None:
        """Read once, and flush what was written while the receiver dealt with it.

        The hub's callback: what it raises is the receiver's failure, as in ``guard``.
        """
        try:
            try:
                data = self._recv(self.read_size)
            except OSError as error:
                self._not_read(error)
                return
            if not data:
                self._read_end()
                return
            batch = self._batch
            batch.is_open = True
            batch.turn = 0
            try:
                self._receiver.received(data)
            finally:
                batch.flush()
                batch.turn = 0
        except BaseException as error:
            self._receiver.failed(error)
            if not isinstance(error, Exception):
                raise

    def write(self, data: bytes) -> bool:
        """Send ``data``: at once, or gathered while a batch is open, or when the kernel has room.

        Whether the sender must look if it may go on: something waits for the kernel, or it
        has had its turn.
        """
        gathered = self._gathered
        if self._batch.is_open:
            if not gathered:
                self._batch.written.append(self)
            gathered.append(data)
            self._gathered_size += len(data)
            if self._gathered_size >= GATHER or len(gathered) >= TURN * TURN_PIECES:
                self.flush()
        else:
            gathered.append(data)
            self.flush()
        return self._waiting_size > 0 or self._batch.turn >= TURN

    def flush(self) -> None:
        """Send what was gathered, in one system call where the kernel takes it."""
        gathered = self._gathered
        if not gathered:
            return
        data = gathered[0] if len(gathered) == 1 else b''.join(gathered)
        self._batch.turn += 1 + len(data) // TURN_BYTES + len(gathered) // TURN_PIECES
        gathered.clear()
        self._gathered_size = 0
        if self._waiting:  # the watcher tells when there is room
            self._keep(data, 0)
            return
        try:
            sent = self._send(data)
        except OSError as error:
            sent = self._not_sent(error, len(data))
        if sent < len(data):
            self._keep(data, sent)

    # Hooks

    def _not_read(self, error: OSError) -> None:
        """``recv`` has raised."""
        raise NotImplementedError

    def _read_end(self) -> None:
        """``recv`` has returned nothing: the peer will send no more."""
        raise NotImplementedError

    def _not_sent(self, error: OSError, size: int) -> int:
        """``send`` has raised; how much of ``size`` bytes are dealt with all the same."""
        raise NotImplementedError

    def _keep(self, data: bytes, start: int) -> None:
        """Keep what follows ``start`` until the kernel has room."""
        raise NotImplementedError


class PythonInboxPath:
    """Messages for a view: who waits for one, or which wait for it; or for a listener."""

    __slots__ = (
        '_bytes',
        '_ended',
        '_full',
        '_hub',
        '_jobs',
        '_listener',
        '_messages',
        '_next_waiters',
        '_paused',
        '_serving',
        '_sink',
        '_switch',
        '_waiter',
        'is_awaited',
    )

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._switch = greenlet.switch.__get__(hub)  # the hub's own looks for hooks first
        self._messages: Any = _NONE
        self._bytes = 0  # that the messages that wait take in memory
        self._full = False  # reading has stopped
        self._waiter: Any = None  # the greenlet that gets the next message,
        self._next_waiters: Any = _NONE  # and those that came after it
        self._serving = False  # a view has taken a message
        self._ended = False  # there will be no more
        self._jobs: Any = _NONE  # messages, and more, for listeners
        self._listener: Callable[[Any], object] | None = None  # the only one for messages
        self._sink: Any = None  # the target of its events
        self._paused = False  # messages are held back from listeners
        self.is_awaited = False  # the owner wants to hear of ``consumed``

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

    # Hooks

    def _hand_out(self, messages: Sequence[Data]) -> bool:
        """``hand_out``, whatever there is and whoever waits."""
        raise NotImplementedError

    def _take(self, timeout: float | None) -> Data | None:
        """``take``, whatever there is and whoever waits."""
        raise NotImplementedError

    def _check_relief(self) -> None:
        """A message was taken from a full queue."""
        raise NotImplementedError

    def _forget(self, waiter: Any) -> bool:
        """Let ``waiter`` wait no more; whether it still did."""
        raise NotImplementedError

    def _failed(self, error: BaseException) -> None:
        """A listener has raised."""
        raise NotImplementedError


class PythonOutboxPath:
    """A message that is a frame on the stream, and no more."""

    __slots__ = ('_build', '_crossed', '_plain', '_shares', '_stream', '_thread')

    def __init__(self) -> None:
        self._thread = _get_ident()
        self._crossed: Any = _NONE  # what other threads have asked for, and must come first
        self._stream: Any = None
        self._plain: Driver | None = None  # where there is more to do than this, None
        self._build: Any = None  # the driver's
        self._shares = False  # its frames are those of other connections, too

    def send(self, message: Any, timeout: float | None = None) -> None:
        """Send a message; blocks while more than the high-water mark waits for the peer."""
        driver = self._plain
        if (
            driver is None
            or driver.state is not _OPEN
            or timeout is not None
            or self._crossed
            or (type(message) is not str and type(message) is not bytes)
            or len(message) >= LARGE
            or _get_ident() != self._thread
        ):
            self._send(message, timeout)
            return
        try:
            frame: bytes = self._build(message)
        except Exception as error:
            self._not_built(error)
            raise
        if self._stream.write(frame):
            self._hold_back()

    def send_shared(self, message: Data, shared: dict[Any, Any]) -> bool:
        """Send one that goes to many, without waiting; False: too much waits already."""
        driver = self._plain
        if (
            not self._shares
            or driver is None
            or self._crossed
            or driver.state is not _OPEN
            or _get_ident() != self._thread
            or self._stream.is_blocked
        ):
            return self._send_shared(message, shared)
        frame: bytes | None = shared.get(None)
        if frame is None:
            frame = shared[None] = self._build(message)
        self._stream.write(frame)
        return True

    # Hooks

    def _send(self, message: Any, timeout: float | None) -> None:
        """``send``, whatever the message and the state."""
        raise NotImplementedError

    def _send_shared(self, message: Data, shared: dict[Any, Any]) -> bool:
        """``send_shared``, whatever the state and the driver."""
        raise NotImplementedError

    def _not_built(self, error: Exception) -> None:
        """The driver has raised."""
        raise NotImplementedError

    def _hold_back(self) -> None:
        """Wait for room, or for the others' turn, as there is need."""
        raise NotImplementedError


class PythonConnectionPath:
    """From the bytes that a stream has read to who waits for their messages."""

    __slots__ = ('_close_event', '_heard', '_inbox', '_step', 'driver')

    def __init__(self) -> None:
        self.driver: Driver | None = None
        self._inbox: Any = None
        self._heard = False  # since the last ping that wants a sign of life
        self._close_event: CloseEvent | None = None
        self._step: Callable[[], object] | None = None  # towards the end

    def received(self, data: bytes) -> None:
        """Bytes have arrived: one batch, whose answers go out together."""
        self._heard = True
        if self._close_event is not None:
            return  # what follows the peer's close frame is nothing to us
        messages, rest = self.driver.receive_messages(data)  # type: ignore[union-attr]
        if rest:
            is_full = self._receive_events(messages, rest)
        else:
            is_full = self._inbox.hand_out(messages)
        if is_full:
            self._stop_reading()
        if self._step is not None:
            self._step()

    # Hooks

    def _receive_events(self, messages: Sequence[Data], rest: bytes) -> bool:
        """Deal with what is more than messages; whether reading must stop."""
        raise NotImplementedError

    def _stop_reading(self) -> None:
        """So much waits that nothing more may be read."""
        raise NotImplementedError


Batch = PythonBatch
StreamPath = PythonStreamPath
InboxPath = PythonInboxPath
OutboxPath = PythonOutboxPath
ConnectionPath = PythonConnectionPath
if not os.environ.get('FAYE_WSGI_PURE'):
    try:
        from faye_wsgi.transport._hotpath import (  # type: ignore[import-not-found,no-redef]
            Batch,
            ConnectionPath,
            InboxPath,
            OutboxPath,
            StreamPath,
        )
    except ImportError:
        pass
