"""What an adapter tells: where a server keeps a connection, and whether it can be taken."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

__all__ = ['Environ', 'Place']

Environ = dict[str, Any]


class Place(NamedTuple):
    """Where a server keeps the connection of a request.

    The bytes that it has read ahead are in ``reader`` (its buffered file on the socket)
    or come from ``take_buffered``; ``refusal`` tells why, and what to do, where the
    socket cannot be taken for good.
    """

    server: str
    socket: Any
    reader: Any | None = None
    take_buffered: Callable[[], bytes] | None = None
    refusal: str = ''
