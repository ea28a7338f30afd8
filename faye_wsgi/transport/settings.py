"""The options of a connection that are the transport's own, and what it measures out itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from numbers import Real

from faye_wsgi.driver.hybi import MAX_LENGTH

__all__ = [
    "GATHER",
    "LARGE",
    "MAX_QUEUE_BYTES",
    "TURN",
    "TURN_BYTES",
    "TURN_PIECES",
    "Settings",
    "check_seconds",
    "check_size",
    "check_timeout",
    "make_settings",
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


@lru_cache(maxsize=64, typed=True)  # views pass the same options to every connection
def make_settings(
    *,
    ping: float | None = None,
    ping_timeout: float | None = None,
    close_timeout: float = 30.0,
    max_length: int = MAX_LENGTH,
    max_queue: int = 64,
    max_queue_bytes: int = MAX_QUEUE_BYTES,
    high_water: int = 65536,
) -> Settings:
    """The transport's settings; ValueError or TypeError where a value cannot be meant."""
    check_size("max_length", max_length)
    check_size("max_queue", max_queue)
    check_size("high_water", high_water)
    check_seconds("ping", ping)
    check_seconds("ping_timeout", ping_timeout)
    check_size("max_queue_bytes", max_queue_bytes)
    if close_timeout is None:
        raise TypeError("close_timeout is a number of seconds")
    check_seconds("close_timeout", close_timeout)
    return Settings(
        ping=ping or None,
        ping_timeout=ping_timeout or ping or None,
        close_timeout=close_timeout,
        max_queue=max_queue,
        max_queue_bytes=max_queue_bytes,
        high_water=high_water,
    )


def check_size(name: str, size: int) -> None:
    """TypeError or ValueError unless ``size`` is a whole number from 1 on."""
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{name} is a whole number")
    if size < 1:
        raise ValueError(f"{name} is at least 1")


def check_timeout(timeout: float | None) -> None:
    """TypeError or ValueError unless ``timeout`` is None or a number; below 0 it is over."""
    if timeout is None:
        return
    if not isinstance(timeout, Real) or isinstance(timeout, bool):
        raise TypeError(f"timeout is a number of seconds or None, not {type(timeout)}")
    if timeout != timeout:
        raise ValueError("timeout is a number of seconds, not NaN")


def check_seconds(name: str, seconds: float | None) -> None:
    """TypeError or ValueError unless ``seconds`` is None, or a finite number from 0 on."""
    if seconds is None:
        return
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{name} is a number of seconds")
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} is a finite number of seconds, from 0 on")
