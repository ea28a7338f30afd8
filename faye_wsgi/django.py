"""Django: a view that is given its WebSocket or EventSource, and what Django's requests need.

    @websocket(ping=25)
    def chat(request, ws, room):
        for message in ws:
            ws.send(message)

    @eventsource(retry=10)
    def feed(request, es):
        for item in items(after=es.last_event_id):
            es.send(item.json, id=item.id)

A database connection that Django would close at the end of a request is closed before
the connection is served, and after each listener, so that an idle one holds none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from django.db import close_old_connections
from django.http import HttpResponse, StreamingHttpResponse

from faye_wsgi.eventsource import EventSource
from faye_wsgi.views import View, make_decorator
from faye_wsgi.websocket import WebSocket

__all__ = [
    'close_old_connections',
    'error_response',
    'eventsource',
    'stream_response',
    'taken_response',
    'websocket',
]


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

    def __iter__(self) -> Any:
        return iter(self._serve())


def _request(request: Any, *args: Any) -> Any:
    return request


def _call(view: View, connection: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    close_old_connections()
    return view(request, connection, *args, **kwargs)


#: ``@websocket`` or ``@websocket(protocols, **options)``, with the options of WebSocket:
#: the view gets the request and the WebSocket, and what it returns is not used. It goes
#: below Django's own decorators (``@login_required``), which see an ordinary view.
websocket = make_decorator(WebSocket, _request, _call)

#: ``@eventsource`` or ``@eventsource(**options)``, the same with an EventSource. When the
#: view ends, the stream goes on as long as anybody holds it or listens to it.
eventsource = make_decorator(EventSource, _request, _call)
