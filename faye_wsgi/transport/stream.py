"""A non-blocking socket on the hub: reads as they come, one write buffer.

One ``io`` watcher lives as long as the stream; its callback reads once and hands the bytes to
the receiver (the connection). What is written meanwhile, to this stream or to others of the
thread, is gathered (``Batch``), and goes out in one system call when the receiver is done. A
sender that has used up its turn and goes on is gathered in the same way, until the hub runs again.
Nothing here blocks, waits or knows a protocol, and all of it runs in the thread of the loop.

The stream calls these methods of the receiver, from the hub: ``data_received(data)``;
``eof_received()``, when the peer has sent FIN; ``connection_lost(message, unread)``, after which
nothing can be sent; ``pause_writing()``, when the kernel has no room, so that bytes wait;
``resume_writing()``, when it took some of them.
``guard(function, *args)`` calls a function for the hub. ``failed(error)`` gets what a call of the
hub has raised.

The danger is in the descriptor. Its number is free as soon as it is closed, and the next socket of
the process gets it. A watcher that stays, or a ``recv`` on the old number, would then act on a
connection of another user. So ``_drop`` replaces ``_recv`` and ``_send``, the watchers are freed
in the same call that closes the socket, and all later calls do nothing.

The socket is a native one (``PlainSocket``), or TLS with the same interface (``tls.py``):
``recv``, ``send``, ``sendmsg``, ``pending``, ``shutdown_write``, ``close``, ``forget`` and
``fileno``.
"""

from __future__ import annotations

import _socket
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Callable

from gevent.monkey import get_original

from faye_wsgi.transport import memory
from faye_wsgi.transport.settings import GATHER, LARGE, TURN, TURN_BYTES, TURN_PIECES

try:
    from faye_wsgi.transport import _descriptors  # type: ignore[attr-defined]
except ImportError:  # it was not built: the socket's own methods do the same
    _descriptors = None

__all__ = ["PlainSocket", "Stream", "gathering", "tune"]

READ = 1
WRITE = 2
READ_SIZE = 65536
MAX_READ_SIZE = 2**20
# Seconds, seconds and a number; where the platform has them.
_KEEPALIVE = [
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]
LAST_READS = 256  # how often a broken socket is read, for the peer's last messages


class PlainSocket(_socket.socket):
    """The interpreter's own socket, even where ``socket.socket`` is patched."""

    __slots__ = ("__weakref__",)

    def pending(self) -> bool:
        """Whether decrypted bytes wait in the process: never, without TLS."""
        return False

    def forget(self, hub: Any) -> None:
        """In the child of a fork: close the descriptor, and leave the connection alone."""
        super().close()

    def shutdown_write(self) -> None:
        """Send FIN; the other direction stays open."""
        self.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the descriptor. FIN goes out at once, even if a child process has a copy."""
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        super().close()


def tune(sock: _socket.socket) -> None:
    """Small frames go out at once, and a dead peer is found in the end."""
    if sock.family == socket.AF_UNIX:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        pass  # the connection works without them


class Batch:
    """What is written while the bytes of one read are dealt with. Each thread has one.

    ``is_open`` says that writes are gathered now. ``written`` are the streams that have gathered
    something. ``turn`` measures what was written since the hub last ran.
    """

    __slots__ = ("is_open", "turn", "written")

    def __init__(self) -> None:
        self.is_open = False
        self.turn = 0
        self.written: list[Any] = []

    @property
    def is_turn_over(self) -> bool:
        """Whether so much was written since the hub last ran that it should run now."""
        return self.turn >= TURN

    def begin_turn(self, loop: Any, gathers: bool) -> None:
        """The hub has run. With ``gathers``, what is written now goes out when it runs again."""
        self.turn = 0
        if gathers and not self.is_open:
            self.is_open = True
            loop.run_callback(self.flush)

    def flush(self) -> None:
        """Close the batch: flush every stream. A stream that cannot flush fails alone."""
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


class _Here(get_original("_thread", "_local")):  # type: ignore[misc]
    """The batch of each thread. (With a patched ``local`` it would be each greenlet's.)"""

    def __init__(self) -> None:
        self.batch = Batch()


_here = _Here()


@contextmanager
def gathering() -> Iterator[None]:
    """What is written in this block goes out at its end, in one system call for each stream.

    It must not wait. It is for streams of this thread's hub; to those of others it does nothing.
    """
    batch = _here.batch
    if batch.is_open:
        yield
        return
    batch.is_open = True
    try:
        yield
    finally:
        batch.flush()


class Stream:
    """Reads from, and writes to, a socket that has been made non-blocking."""

    __slots__ = (
        "_data_received",
        "_gathered",
        "_gathered_size",
        "_loop",
        "_may_pend",
        "_reader",
        "_reading",
        "_receiver",
        "_recv",
        "_send",
        "_socket",
        "_waiting",
        "_writer",
        "batch",
        "broken",
        "bytes_out",
        "closed",
        "read_size",
        "waiting_size",
    )

    def __init__(self, sock: Any, loop: Any, receiver: Any) -> None:
        fd = sock.fileno()
        self._may_pend = not isinstance(sock, PlainSocket)
        self._recv: Callable[[int], bytes] = sock.recv
        self._send: Callable[[Any], int] = sock.send
        if _descriptors is not None and not self._may_pend:
            self._recv, self._send = _descriptors.recv_and_send(fd)
        self._receiver = receiver
        self._data_received = receiver.data_received  # looked up once, not for each read
        self.batch: Batch = _here.batch
        self._gathered: list[bytes] = []  # while the batch is open
        self._gathered_size = 0
        # Bytes that the kernel did not take. Small pieces are joined, large ones not copied.
        self._waiting: list[bytearray | memoryview] = []
        self.waiting_size = 0
        self.bytes_out = 0  # what was written, for metrics
        self.read_size = READ_SIZE  # bytes to read at a time
        self._socket = sock
        self._loop = loop
        self._reader = loop.io(fd, READ)
        self._reading = False
        self._writer: Any | None = None  # made when the kernel first has no room
        self.closed = False
        self.broken = False  # a write failed: nothing more can be sent

    @property
    def buffered(self) -> int:
        """Bytes that were written and that the kernel has not taken yet."""
        return self.waiting_size + self._gathered_size

    @property
    def is_blocked(self) -> bool:
        """Whether the kernel has no room, so that what is written waits."""
        return self._writer is not None and bool(self._writer.active)

    @property
    def is_reading(self) -> bool:
        """Whether bytes are read as they arrive."""
        return self._reading

    # In

    def readable(self) -> None:
        """Read once, and flush what was written while the receiver dealt with it.

        The hub's callback. gevent stops a watcher whose callback raises, so that the connection
        would never be read again: an error must not leave this function. It goes to ``failed``,
        as in ``guard``, and only what is no ``Exception`` is raised once more, for gevent.
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
            self.receive(data)
        except BaseException as error:
            self._receiver.failed(error)
            if not isinstance(error, Exception):
                raise

    def receive(self, data: bytes) -> None:
        """Hand bytes to the receiver; what is written meanwhile goes out in one system call."""
        batch = self.batch
        batch.is_open = True
        batch.turn = 0
        try:
            self._data_received(data)
        finally:
            batch.flush()
            batch.turn = 0

    def resume_reading(self) -> None:
        """Read as bytes arrive, from now on."""
        if self._reading or self.closed:
            return
        self._reading = True
        if self._may_pend:
            self._reader.start(self._receiver.guard, self._read_pending)
        else:
            self._reader.start(self.readable)
        if self._socket.pending():
            self._call_soon(self._read_pending)

    def pause_reading(self) -> None:
        """Stop reading: the kernel's buffer fills, and TCP slows the peer down."""
        if self._reading:
            self._reading = False
            self._reader.stop()

    def expect(self, missing: int, usual: int) -> None:
        """``missing`` bytes are known to be on their way: fewer, larger reads than ``usual``."""
        if missing > usual:
            memory.prepare_for_large()
        self.read_size = max(min(missing, MAX_READ_SIZE), usual)

    def limit_reads(self, allow: Callable[[int], int]) -> None:
        """Read ``allow(size)`` bytes at a time where ``size`` would be read."""
        recv = self._recv
        self._recv = lambda size: recv(allow(size))

    def _read_pending(self) -> None:
        if self._reading:
            self.readable()
            # The rest of what has been decrypted, in its turn
            if self._reading and self._socket.pending():
                self._call_soon(self._read_pending)

    def _call_soon(self, function: Callable[..., object], *args: Any) -> None:
        self._loop.run_callback(self._receiver.guard, function, *args)

    def _not_read(self, error: OSError) -> None:
        if not isinstance(error, (BlockingIOError, InterruptedError)):
            self.pause_reading()
            self._receiver.connection_lost(error.strerror or str(error))

    def _read_end(self) -> None:
        self.pause_reading()
        self._receiver.eof_received()

    # Out

    def write(self, data: bytes) -> bool:
        """Send ``data``: at once, or gathered while a batch is open, or when the kernel has room.

        Returns whether the sender must check if it may go on: bytes wait for the kernel, or the
        sender has used up its turn.
        """
        gathered = self._gathered
        if self.batch.is_open:
            if not gathered:
                self.batch.written.append(self)
            gathered.append(data)
            self._gathered_size += len(data)
            if self._gathered_size >= GATHER or len(gathered) >= TURN * TURN_PIECES:
                self.flush()
        else:
            gathered.append(data)
            self.flush()
        return self.waiting_size > 0 or self.batch.turn >= TURN

    def flush(self) -> None:
        """Send what was gathered, in one system call where the kernel takes it."""
        gathered = self._gathered
        if not gathered:
            return
        data = gathered[0] if len(gathered) == 1 else b"".join(gathered)
        self.batch.turn += 1 + len(data) // TURN_BYTES + len(gathered) // TURN_PIECES
        self.bytes_out += len(data)
        gathered.clear()
        self._gathered_size = 0
        if self._waiting:  # the watcher calls ``writable`` when the kernel has room
            self._keep(data, 0)
            return
        try:
            sent = self._send(data)
        except OSError as error:
            sent = self._not_sent(error, len(data))
        if sent < len(data):
            self._keep(data, sent)

    def write_large(self, head: bytes, body: bytes) -> bool:
        """``write`` both, without a copy of ``body``."""
        head = b"".join((*self._gathered, head))
        self._gathered.clear()
        self._gathered_size = 0
        self.bytes_out += len(head) + len(body)
        if self._waiting:
            self._keep(head, 0)
            self._keep(body, 0)
        else:
            is_over = self.broken or self.closed
            send = _total_length if is_over else self._socket.sendmsg
            try:
                sent = send((head, body))
            except OSError as error:
                sent = self._not_sent(error, len(head) + len(body))
            if sent < len(head):
                self._keep(head, sent)
            if sent < len(head) + len(body):
                self._keep(body, max(sent - len(head), 0))
        return self.waiting_size > 0

    def _not_sent(self, error: OSError, size: int) -> int:
        """How much counts as taken: 0 if the kernel is full; all, to drop it, if TCP is broken."""
        if isinstance(error, (BlockingIOError, InterruptedError)):
            return 0
        if not self.broken:
            self._break(error)
        return size

    def _keep(self, data: bytes, start: int) -> None:
        try:
            self._append(data, start)
        except BaseException as error:
            # Memory is short. The peer has got a part of a frame, and would read the next frame as
            # the rest of it. So nothing more may be sent.
            self._stop_writing()
            self._waiting.clear()
            self.waiting_size = 0
            self._call_soon(self._fail, error)
            raise

    def _fail(self, error: BaseException) -> None:
        if not self.closed:
            self._receiver.failed(error)

    def _append(self, data: bytes, start: int) -> None:
        last = self._waiting[-1] if self._waiting else None
        rest = memoryview(data)[start:]
        self.waiting_size += len(rest)
        if len(rest) >= LARGE:
            self._waiting.append(rest)
        elif isinstance(last, bytearray) and len(last) < GATHER:
            last += rest
        else:
            self._waiting.append(bytearray(rest))
        self._watch_writable()

    def _watch_writable(self) -> None:
        if self._writer is None:
            self._writer = self._loop.io(self._socket.fileno(), WRITE)
        if not self._writer.active:
            self._writer.start(self._receiver.guard, self.writable)
            self._receiver.pause_writing()

    def writable(self) -> bool:
        """Send what waits, as far as the kernel takes it; returns whether it took some."""
        before = self.waiting_size
        while self._waiting and self._send_first():
            pass
        has_sent = self.waiting_size < before
        if not self._waiting and self._writer is not None:
            self._writer.stop()
        self._receiver.resume_writing()
        return has_sent

    def _send_first(self) -> bool:
        """Send from the first waiting piece; returns whether all of it went."""
        first = self._waiting[0]
        try:
            sent = self._send(first)
        except OSError as error:
            sent = self._not_sent(error, len(first))
        self.waiting_size -= sent
        if sent == len(first):
            del self._waiting[0]
            return True
        if isinstance(first, bytearray):
            del first[:sent]
        else:
            self._waiting[0] = first[sent:]
        return False

    def _break(self, error: OSError) -> None:
        # The caller is inside its ``send``. The end of the connection switches to other greenlets,
        # which must not happen in the middle of that. So it comes in the hub's next turn.
        self._stop_writing()
        self._call_soon(self._read_last_words, error.strerror or str(error))

    def _stop_writing(self) -> None:
        self.broken = True
        self._send = len  # "all of it was taken": what is written from now on is dropped

    def _read_last_words(self, message: str) -> None:
        # The peer may have sent a close frame before TCP broke. It still waits in the kernel's
        # buffer for reading, even if reading had been paused.
        for _ in range(LAST_READS):
            self.resume_reading()
            if self.closed:
                return
            try:
                data = self._recv(READ_SIZE)
            except OSError:
                break
            if not data:
                break
            self._data_received(data)
            if not self._reading and not self.closed:  # the backlog is full
                self._receiver.connection_lost(message, unread=True)
                return
        if not self.closed:
            self._receiver.connection_lost(message)

    # End

    def shutdown_write(self) -> None:
        """Send FIN. Only when the buffer is empty; reading goes on."""
        try:
            self._socket.shutdown_write()
        except OSError:
            self._stop_writing()

    def close(self) -> None:
        """Release the descriptor and the watchers; what was not sent is dropped."""
        if self.closed:
            return
        self._drop()
        self._free_watchers()
        try:
            self._socket.close()
        except OSError:
            pass

    def forget(self, hub: Any) -> None:
        """``close`` in the child of a fork: nothing of it reaches the peer."""
        if self.closed:
            return
        self._drop()
        self._socket.forget(hub)
        if hub is not None and hub.loop is self._loop:
            self._free_watchers()

    def _drop(self) -> None:
        self.closed = True
        self._reading = False
        self._waiting.clear()
        self.waiting_size = 0
        self._gathered.clear()
        self._gathered_size = 0
        # No longer by the number of the descriptor: another socket may get the same number.
        self._recv = self._socket.recv
        self._send = len

    def _free_watchers(self) -> None:
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()


def _total_length(pieces: Iterable[bytes]) -> int:
    return sum(map(len, pieces))
