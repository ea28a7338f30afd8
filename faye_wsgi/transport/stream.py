"""A non-blocking socket on the hub: reads as they come, one write buffer.

One ``io`` watcher lives as long as the stream; its callback reads once and hands the
bytes to the receiver. Nothing here blocks, waits or knows a protocol, and all of it
runs in the thread of the loop. The socket is a native one, or a ``TlsSocket``, with
``recv``, ``send``, ``pending``, ``shutdown_write``, ``close`` and ``fileno``.
"""

from __future__ import annotations

import _socket
import socket
from typing import Any, Protocol

__all__ = ['PlainSocket', 'Receiver', 'Stream']

READ = 1
WRITE = 2
READ_SIZE = 65536
GATHER = 65536  # what is gathered goes out when this much is together
LAST_READS = 256  # how often a broken socket is read for the peer's last words


class Receiver(Protocol):
    """Who a stream tells what happens; each call comes from the hub and must not raise."""

    def received(self, data: bytes) -> None:
        """Bytes have arrived."""

    def ended(self) -> None:
        """The peer will send no more (TCP's FIN)."""

    def lost(self, message: str) -> None:
        """The connection is gone; nothing can be sent any more."""

    def drained(self) -> None:
        """The kernel took something of what waited in the write buffer."""


class PlainSocket(_socket.socket):
    """The interpreter's own socket, even where ``socket.socket`` is patched."""

    __slots__ = ('__weakref__',)

    def pending(self) -> bool:
        """Whether decrypted bytes wait that the kernel does not tell of: never."""
        return False

    def shutdown_write(self) -> None:
        """Send FIN; the other direction stays open."""
        self.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the descriptor. FIN goes out at once, even if a child process holds a copy."""
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        super().close()


class Stream:
    """Reads from, and writes to, a socket that has been made non-blocking."""

    __slots__ = (
        '_buffer',
        '_corked',
        '_loop',
        '_reader',
        '_reading',
        '_receiver',
        '_recv',
        '_send',
        '_socket',
        '_writer',
        'closed',
        'broken',
    )

    def __init__(self, sock: Any, loop: Any, receiver: Receiver) -> None:
        self._socket = sock
        self._recv = sock.recv
        self._send = sock.send
        self._loop = loop
        self._receiver = receiver
        self._reader = loop.io(sock.fileno(), READ)
        self._reading = False
        self._writer: Any | None = None  # made when the kernel first says no
        self._buffer = bytearray()
        self._corked = False
        self.closed = False
        self.broken = False  # a write failed: nothing more can be sent

    @property
    def buffered(self) -> int:
        """Bytes that were written and that the kernel has not taken."""
        return len(self._buffer)

    @property
    def is_blocked(self) -> bool:
        """Whether the kernel has no room, so that what is written waits."""
        return self._writer is not None and bool(self._writer.active)

    @property
    def is_reading(self) -> bool:
        """Whether bytes are read as they arrive."""
        return self._reading

    # In

    def resume_reading(self) -> None:
        """Read as bytes arrive, from now on."""
        if self._reading or self.closed:
            return
        self._reading = True
        self._reader.start(self._readable)
        if self._socket.pending():
            self._loop.run_callback(self._read_pending)

    def pause_reading(self) -> None:
        """Read no more: the kernel's buffer fills and TCP pushes back."""
        if self._reading:
            self._reading = False
            self._reader.stop()

    def read_now(self) -> None:
        """Read what has arrived but was not yet told of."""
        if self._reading:
            self._readable()

    def _readable(self) -> None:
        try:
            data = self._recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.pause_reading()
            self._receiver.lost(error.strerror or str(error))
            return
        if not data:
            self.pause_reading()
            self._receiver.ended()
            return
        self._receiver.received(data)
        if self._reading and self._socket.pending():
            self._loop.run_callback(self._read_pending)

    def _read_pending(self) -> None:
        if self._reading:
            self._readable()

    # Out

    def write(self, data: bytes | bytearray) -> None:
        """Send ``data``: at once, or gathered while corked, or when the kernel has room."""
        buffer = self._buffer
        if buffer:
            buffer += data
            if self._corked and len(buffer) >= GATHER:
                self._flush()
        elif self._corked and len(data) < GATHER:
            buffer += data
        else:
            sent = self._try_send(data)
            if sent < len(data):
                buffer += memoryview(data)[sent:]
                self._watch_writable()

    def cork(self) -> None:
        """Gather what is written until ``uncork``."""
        self._corked = True

    def uncork(self) -> None:
        """Send what was gathered, in one system call where the kernel takes it."""
        self._corked = False
        if self._buffer:
            self._flush()

    def _flush(self) -> None:
        if self.is_blocked:
            return  # the watcher tells when there is room
        sent = self._try_send(self._buffer)
        del self._buffer[:sent]
        if self._buffer:
            self._watch_writable()

    def _try_send(self, data: bytes | bytearray) -> int:
        if self.broken or self.closed:
            return len(data)
        try:
            sent: int = self._send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._break(error)
            return len(data)
        return sent

    def _watch_writable(self) -> None:
        if self._writer is None:
            self._writer = self._loop.io(self._socket.fileno(), WRITE)
        if not self._writer.active:
            self._writer.start(self._writable)

    def _writable(self) -> None:
        sent = self._try_send(self._buffer)
        del self._buffer[:sent]
        if not self._buffer and self._writer is not None:
            self._writer.stop()
        self._receiver.drained()

    def _break(self, error: OSError) -> None:
        # Called from inside somebody's send: what it means is told from the hub.
        self.broken = True
        self._loop.run_callback(self._read_last_words, error.strerror or str(error))

    def _read_last_words(self, message: str) -> None:
        # The peer may have said goodbye before its side broke: its close frame still
        # waits in the kernel's buffer, however full ours is.
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
            self._receiver.received(data)
        if not self.closed:
            self._receiver.lost(message)

    # End

    def shutdown_write(self) -> None:
        """Say that no more will come (TCP's FIN), once the buffer is empty; reading goes on."""
        try:
            self._socket.shutdown_write()
        except OSError:
            self.broken = True

    def close(self) -> None:
        """Release the descriptor and the watchers; what was not sent is dropped."""
        if self.closed:
            return
        self.closed = True
        self._reading = False
        self._buffer = bytearray()
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        try:
            self._socket.close()
        except OSError:
            pass
