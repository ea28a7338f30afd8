"""How the frameworks differ: the response that a view returns, and what surrounds a listener.

WSGI, WebOb and Flask views may all return a WSGI application. Django's may not: its
glue is in ``faye_wsgi.django``, which is imported only when a Django request shows up.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Callable, Optional

from webob import Response

from faye_wsgi.errors import HandshakeError

__all__ = ['StartResponse', 'TakenResponse', 'after_listener', 'error_response', 'taken_response']

StartResponse = Callable[..., Any]
Serve = Optional[Callable[[], Iterable[bytes]]]


class TakenResponse(Response):  # type: ignore[misc]
    """What the server may see of a connection that is not its own any more: a bare 101.

    ``serve`` is None where the hub serves the connection; else it gives an iterable
    that serves it in the server's thread until it is closed.
    """

    def __init__(self, serve: Serve) -> None:
        super().__init__(status=101, app_iter=())
        self._serve = serve

    def __call__(
        self, environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        # No headers: whatever the server makes of them, it speaks to the void.
        start_response('101 Switching Protocols', [])
        return () if self._serve is None else self._serve()


def taken_response(request: Any, serve: Serve) -> Any:
    """The response of a view whose connection was taken."""
    glue = _django(request)
    return TakenResponse(serve) if glue is None else glue.taken_response(serve)


def error_response(request: Any, error: HandshakeError) -> Any:
    """The HTTP error that answers a bad handshake."""
    headers: list[tuple[str, str]] = list(error.headers)
    glue = _django(request)
    if glue is not None:
        return glue.error_response(error.status_code, headers, error.body)
    return Response(status=error.status_code, headerlist=headers, body=error.body)


def after_listener(request: Any) -> Callable[[], object] | None:
    """What must run after each listener, None mostly."""
    glue = _django(request)
    return None if glue is None else glue.close_old_connections


def _django(request: Any) -> Any:
    return import_module('faye_wsgi.django') if hasattr(request, 'META') else None
