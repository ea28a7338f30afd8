"""Pipes: what comes out of one object goes into another, at the pace of the slower one."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.errors import ConnectionClosed

__all__ = ['Destination', 'pipe']

Destination = TypeVar('Destination')


def pipe(source: Any, destination: Any, end: bool = True) -> None:
    """Write the messages of ``source`` to ``destination``, and end it at the close."""
    write = _writer(destination)

    def forward(event: Any) -> None:
        # Listeners run one at a time: while this blocks, the source's queue fills.
        try:
            write(event.data)
        except ConnectionClosed:
            source.remove_listener('message', forward)
            source.close(CloseCode.GOING_AWAY)

    def finish(event: Any) -> None:
        if end and hasattr(destination, 'end'):
            try:
                destination.end()
            except ConnectionClosed:
                pass

    source.on('message', forward)
    source.on('close', finish)


def _writer(destination: Any) -> Callable[[Any], object]:
    for name in ('write', 'send'):
        method = getattr(destination, name, None)
        if callable(method):
            return method  # type: ignore[no-any-return]
    if callable(destination):
        return destination  # type: ignore[no-any-return]
    raise TypeError('a pipe ends in something with write or send, or in a function')
