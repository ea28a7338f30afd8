"""The options of a connection that are the transport's own."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ['MAX_QUEUE_BYTES', 'Settings']

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
