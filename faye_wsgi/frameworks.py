"""How the frameworks differ: the response that a view returns, and what surrounds a listener.

WSGI, WebOb and Flask views may all return a WSGI application. Django's may not: its
glue is in ``faye_wsgi.django_responses``, which is imported when a Django request shows up.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from importlib import import_module
from typing import Any, Callable, Optional

from webob import Response

from faye_wsgi.environ import environ_of
from faye_wsgi.errors import HandshakeError

__all__ = [
    'Serve',
    'StartResponse',
    'TakenResponse',
    'after_listener',
    'error_response',
    'stream_response',
    'taken_response',
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

    def __call__(
        self, environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        # No headers: whatever the server makes of them, it speaks to the void.
        start_response(self.status, [])
        return () if self._serve is None else self._serve()


def taken_response(request: Any, status: int, serve: Serve) -> Any:
    """The response of a view whose connection was taken; ``status`` is for the access log."""
    glue = _django(request)
    if glue is not None:
        return glue.taken_response(status, serve)
    return TakenResponse(f'{status} {HTTPStatus(status).phrase}', serve)


class ErrorResponse(Response):  # type: ignore[misc]
    """The HTTP error that answers a bad handshake; ``settle`` is called when it is sent."""

    def __init__(self, settle: Callable[[], object], **values: Any) -> None:
        super().__init__(**values)
        self._settle = settle

    def __call__(
        self, environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        self._settle()
        body: Iterable[bytes] = super().__call__(environ, start_response)
        return body


def error_response(request: Any, error: HandshakeError, settle: Callable[[], object]) -> Any:
    """The HTTP error that answers a bad handshake; ``settle`` is called when it is sent."""
    headers = _allowed(environ_of(request), error.headers)
    glue = _django(request)
    if glue is not None:
        return glue.error_response(settle, error.status_code, headers, error.body)
    return ErrorResponse(
        settle, status=error.status_code, headerlist=headers, body=error.body
    )


def _allowed(environ: dict[str, Any], headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    # wsgiref asserts that an application sends no hop-by-hop headers (PEP 3333).
    is_wsgiref = str(environ.get('SERVER_SOFTWARE', '')).startswith('WSGIServer/')
    hop_by_hop = ('connection', 'upgrade') if is_wsgiref else ()
    return [(name, value) for name, value in headers if name.lower() not in hop_by_hop]


def stream_response(
    request: Any, headers: list[tuple[str, str]], stream: Iterable[bytes]
) -> Any:
    """A response that streams what comes out of ``stream``, through the server's own hands."""
    # PEP 3333: hop-by-hop headers are the server's own.
    kept = [(name, value) for name, value in headers if name.lower() != 'connection']
    glue = _django(request)
    if glue is not None:
        return glue.stream_response(kept, stream)
    return Response(status=200, headerlist=kept, app_iter=stream)


def after_listener(request: Any) -> Callable[[], object] | None:
    """What must run after each listener, None mostly."""
    glue = _django(request)
    return None if glue is None else glue.close_idle_connections


def _django(request: Any) -> Any:
    return import_module('faye_wsgi.django_responses') if hasattr(request, 'META') else None
