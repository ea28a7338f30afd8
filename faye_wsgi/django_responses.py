"""Django's responses: what its requests need of ours. Imported when a Django request shows up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Callable

from django.db import connections
from django.http import HttpResponse, StreamingHttpResponse

__all__ = ['close_idle_connections', 'error_response', 'stream_response', 'taken_response']


def close_idle_connections() -> None:
    """Close the database connections that Django would at the end of a request."""
    for connection in connections.all():
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def taken_response(status: int, serve: Callable[[], Iterable[bytes]] | None) -> Any:
    """The response to a request whose connection was taken: Django shows it to its middleware."""
    if serve is None:
        return HttpResponse(status=status)
    return StreamingHttpResponse(_Served(serve), status=status)


def stream_response(headers: list[tuple[str, str]], stream: Iterable[bytes]) -> Any:
    """A response that streams what comes out of ``stream``."""
    response = StreamingHttpResponse(stream)
    for name, value in headers:
        response[name] = value
    return response


class _ErrorResponse(HttpResponse):  # type: ignore[misc]
    """An HTTP error; ``settle`` is called when it has been sent."""

    settle: Callable[[], object]

    def close(self) -> None:
        super().close()
        self.settle()


def error_response(
    settle: Callable[[], object], status: int, headers: list[tuple[str, str]], body: bytes
) -> Any:
    """The HTTP error that answers a bad handshake; ``settle`` is called when it has been sent."""
    response = _ErrorResponse(body, status=status)
    response.settle = settle
    for name, value in headers:
        response[name] = value
    return response


class _Served:
    """The response's iterable: begins to serve when the server iterates it."""

    def __init__(self, serve: Callable[[], Iterable[bytes]]) -> None:
        self._serve = serve

    def __iter__(self) -> Iterator[bytes]:
        yield from self._serve()  # in its time: Django asks for the iterator at once
