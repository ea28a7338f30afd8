"""Django: a view that is given its WebSocket, and what Django's requests need.

    @websocket(ping=25)
    def chat(request, ws, room):
        for message in ws:
            ws.send(message)

A database connection that Django would close at the end of a request is closed before
the WebSocket is served, and after each listener, so that an idle one holds none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from django.db import close_old_connections
from django.http import HttpResponse, StreamingHttpResponse

from faye_wsgi.views import View, make_decorator

__all__ = ['close_old_connections', 'error_response', 'taken_response', 'websocket']


def taken_response(serve: Callable[[], Iterable[bytes]] | None) -> Any:
    """The response to a request whose connection was taken: Django shows it to its middleware."""
    if serve is None:
        return HttpResponse(status=101)
    return StreamingHttpResponse(_Served(serve), status=101)


def error_response(status: int, headers: list[tuple[str, str]], body: bytes) -> Any:
    """The HTTP error that answers a bad handshake."""
    response = HttpResponse(body, status=status)
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


def _call(view: View, ws: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    close_old_connections()
    return view(request, ws, *args, **kwargs)


#: ``@websocket`` or ``@websocket(protocols, **options)``, with the options of WebSocket:
#: the view gets the request and the WebSocket, and what it returns is not used. It goes
#: below Django's own decorators (``@login_required``), which see an ordinary view.
websocket = make_decorator(_request, _call)
