"""What a view returns, in the terms of its framework; and what must surround its listeners.

WSGI, WebOb and Flask views may all return a WSGI application. Django's views return its own
responses.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Callable, Optional

from webob import Response

from faye_wsgi.errors import HandshakeError
from faye_wsgi.wsgi.environ import environ_of

__all__ = [
    "Serve",
    "StartResponse",
    "TakenResponse",
    "after_listener",
    "close_idle_connections",
    "error_response",
    "stream_response",
    "taken_response",
]

StartResponse = Callable[..., Any]
Serve = Optional[Callable[[], Iterable[bytes]]]


class TakenResponse(Response):  # type: ignore[misc]
    """What the server may see of a connection that is not its own any more: a bare status.

    ``serve`` is None where the hub serves the connection; else it gives an iterable
    that serves it in the server's thread until it is closed.
    """

    def __init__(self, status: str, serve: Serve) -> None:
        super().__init__(status=status, headerlist=[], app_iter=())
        self._serve = serve

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        # No headers: whatever the server makes of them, it speaks to the void.
        start_response(self.status, [])
        return () if self._serve is None else self._serve()


def taken_response(request: Any, status: int, serve: Serve) -> Any:
    """The response of a view whose connection was taken; ``status`` is for the access log."""
    django = _django_http(request)
    if django is not None:
        if serve is None:
            return django.HttpResponse(status=status)
        return django.StreamingHttpResponse(_Served(serve), status=status)
    return TakenResponse(f"{status} {HTTPStatus(status).phrase}", serve)


class ErrorResponse(Response):  # type: ignore[misc]
    """The HTTP error that answers a bad handshake; ``settle`` is called when it is sent."""

    def __init__(self, settle: Callable[[], object], **values: Any) -> None:
        super().__init__(**values)
        self._settle = settle

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        self._settle()
        body: Iterable[bytes] = super().__call__(environ, start_response)
        return body


def error_response(request: Any, error: HandshakeError, settle: Callable[[], object]) -> Any:
    """The HTTP error that answers a bad handshake; ``settle`` is called when it is sent."""
    headers = _allowed(environ_of(request), error.headers)
    django = _django_http(request)
    if django is not None:
        response = django.HttpResponse(error.body, status=error.status_code)
        _set_headers(response, headers)
        _call_at_close(response, settle)
        return response
    return ErrorResponse(settle, status=error.status_code, headerlist=headers, body=error.body)


def _allowed(environ: dict[str, Any], headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    # wsgiref asserts that an application sends no hop-by-hop headers (PEP 3333).
    is_wsgiref = str(environ.get("SERVER_SOFTWARE", "")).startswith("WSGIServer/")
    hop_by_hop = ("connection", "upgrade") if is_wsgiref else ()
    return [(name, value) for name, value in headers if name.lower() not in hop_by_hop]


def stream_response(request: Any, headers: list[tuple[str, str]], stream: Iterable[bytes]) -> Any:
    """A response that streams what comes out of ``stream``, through the server's own hands."""
    # PEP 3333: hop-by-hop headers are the server's own.
    kept = [(name, value) for name, value in headers if name.lower() != "connection"]
    django = _django_http(request)
    if django is not None:
        response = django.StreamingHttpResponse(stream)
        _set_headers(response, kept)
        return response
    return Response(status=200, headerlist=kept, app_iter=stream)


def after_listener(request: Any) -> Callable[[], object] | None:
    """What must run after each listener, None mostly."""
    return None if _django_http(request) is None else close_idle_connections


# Django: a request of its own has loaded ``django.http``, so that nothing is imported here.


def close_idle_connections() -> None:
    """Close the database connections that Django would at the end of a request."""
    django_db = sys.modules.get("django.db")
    if django_db is None:
        return
    for connection in django_db.connections.all():
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def _django_http(request: Any) -> Any:
    return sys.modules.get("django.http") if hasattr(request, "META") else None


def _set_headers(response: Any, headers: Iterable[tuple[str, str]]) -> None:
    for name, value in headers:
        response[name] = value


def _call_at_close(response: Any, function: Callable[[], object]) -> None:
    close = response.close

    def close_and_call() -> None:
        close()
        function()

    response.close = close_and_call  # which Django calls when the response has been sent


class _Served:
    """The iterable of Django's response: begins to serve when the server iterates it."""

    def __init__(self, serve: Callable[[], Iterable[bytes]]) -> None:
        self._serve = serve

    def __iter__(self) -> Iterator[bytes]:
        yield from self._serve()  # in its time: Django asks for the iterator at once
