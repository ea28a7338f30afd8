"""The options of a connection that are the transport's own, and what it measures out itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    'GATHER',
    'LARGE',
    'MAX_QUEUE_BYTES',
    'TURN',
    'TURN_BYTES',
    'TURN_PIECES',
    'Settings',
]

GATHER = 65536  # bytes: what is gathered goes out when this much is together
LARGE = 32768  # bytes: what is not worth copying
# What a thread may write before the others have their turn: a system call counts as one,
# and so do this many bytes, and this many pieces that were gathered.
TURN = 64
TURN_BYTES = 2048
TURN_PIECES = 16

MAX_QUEUE_BYTES = 2**20


@dataclass(frozen=True)
class Settings:
    """Times are in seconds, sizes in bytes."""

    ping: float | None = None
    ping_timeout: float | None = None
    close_timeout: float = 30.0
    max_queue: int = 64
    max_queue_bytes: int = MAX_QUEUE_BYTES
    high_water: int = 65536
    awaits_server: bool = False  # RFC 6455 §7.1.1: a client lets the server close TCP
