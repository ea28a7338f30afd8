"""The options of a connection, checked before any socket is touched."""

from __future__ import annotations

from faye_wsgi.transport.settings import Settings

__all__ = ['make_settings']


def make_settings(
    *,
    ping: float | None,
    ping_timeout: float | None,
    close_timeout: float,
    max_queue: int,
    max_queue_bytes: int | None,
    max_length: int,
    max_fragments: int,
    high_water: int,
) -> Settings:
    """The transport's settings; ValueError or TypeError where a value cannot be meant."""
    for name, size in (
        ('max_length', max_length),
        ('max_fragments', max_fragments),
        ('max_queue', max_queue),
        ('max_queue_bytes', max_length if max_queue_bytes is None else max_queue_bytes),
        ('high_water', high_water),
    ):
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f'{name} is a whole number')
        if size < 1:
            raise ValueError(f'{name} is at least 1')
    for name, seconds in (
        ('ping', ping),
        ('ping_timeout', ping_timeout),
        ('close_timeout', close_timeout),
    ):
        _check_seconds(name, seconds)
    return Settings(
        ping=ping or None,
        ping_timeout=ping_timeout or ping or None,
        close_timeout=close_timeout,
        max_queue=max_queue,
        max_queue_bytes=max_length if max_queue_bytes is None else max_queue_bytes,
        high_water=high_water,
    )


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is None and name != 'close_timeout':
        return
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f'{name} is a number of seconds')
    if not 0 <= seconds < float('inf'):
        raise ValueError(f'{name} is a finite number of seconds')
