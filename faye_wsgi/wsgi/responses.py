"""The responses that views return, for each framework, and what must run after listeners.

WSGI, WebOb and Flask views may all return a WSGI application. Django's views return responses
of Django's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Callable, Optional, Union

from webob import Response

from faye_wsgi.errors import HandshakeError
from faye_wsgi.wsgi.environ import Environ

__all__ = [
    "DjangoResponses",
    "TakenResponse",
    "WsgiResponses",
    "close_idle_connections",
    "responses_for",
]

Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]
# Gives an iterable that serves the connection in the server's thread until it is closed; None
# where the hub serves it.
Serve = Optional[Callable[[], Iterable[bytes]]]
Responses = Union["WsgiResponses", "DjangoResponses"]


def responses_for(request: Any) -> Responses:
    """The responses for a request's framework."""
    # A request of Django's has loaded ``django.http``, so that nothing is imported here.
    http = sys.modules.get("django.http") if hasattr(request, "META") else None
    return _WSGI if http is None else DjangoResponses(http)


class WsgiResponses:
    """For views of WSGI, WebOb and Flask."""

    after_listeners: Callable[[], object] | None = None

    def taken(self, status: int, serve: Serve) -> Any:
        """The response after the connection was taken; ``status`` is for the access log."""
        return TakenResponse(f"{status} {HTTPStatus(status).phrase}", serve)

    def error(self, environ: Environ, error: HandshakeError, settle: Callable[[], object]) -> Any:
        """The HTTP error that answers a bad handshake; ``settle`` is called when it is sent."""
        headers = _allowed(environ, error.headers)
        return ErrorResponse(settle, status=error.status_code, headerlist=headers, body=error.body)

    def stream(self, headers: Headers, body: Iterable[bytes]) -> Any:
        """A response with a ``body`` that the server sends."""
        return CalledResponse(status=200, headerlist=_end_to_end(headers), app_iter=body)

    def page(self, status: int, headers: Headers, body: bytes) -> Any:
        """An ordinary response."""
        return CalledResponse(status=status, headerlist=headers, body=body)


class CalledResponse(Response):  # type: ignore[misc]
    """A response that is a WSGI application, and says so where it is returned by itself."""

    def __iter__(self) -> Iterator[bytes]:
        # ``return ws.response`` from a plain WSGI application. It cannot be made to work: the
        # server waits for a call of its start_response, which is in no environ.
        raise TypeError(
            "a WSGI application returns what the response makes of its arguments: write "
            "'return ws.response(environ, start_response)'"
        )


class TakenResponse(CalledResponse):
    """All that the server sees of a connection that was taken from it: a bare status."""

    def __init__(self, status: str, serve: Serve) -> None:
        super().__init__(status=status, headerlist=[], app_iter=())
        self._serve = serve

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # No headers: the server writes them to the void. gunicorn and wsgiref would check them, and
        # add some of their own.
        start_response(self.status, [])
        return () if self._serve is None else self._serve()


class ErrorResponse(CalledResponse):
    """The HTTP error that answers a bad handshake."""

    def __init__(self, settle: Callable[[], object], **values: Any) -> None:
        super().__init__(**values)
        self._settle = settle

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self._settle()
        body: Iterable[bytes] = super().__call__(environ, start_response)
        return body


_WSGI = WsgiResponses()


class DjangoResponses:
    """For views of Django; ``http`` is the module ``django.http``."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self.after_listeners = close_idle_connections

    def taken(self, status: int, serve: Serve) -> Any:
        if serve is None:
            return self._http.HttpResponse(status=status)
        return self._http.StreamingHttpResponse(_Served(serve), status=status)

    def error(self, environ: Environ, error: HandshakeError, settle: Callable[[], object]) -> Any:
        response = self._http.HttpResponse(error.body, status=error.status_code)
        for name, value in _allowed(environ, error.headers):
            response[name] = value
        _call_at_close(response, settle)
        return response

    def stream(self, headers: Headers, body: Iterable[bytes]) -> Any:
        response = self._http.StreamingHttpResponse(body)
        for name, value in _end_to_end(headers):
            response[name] = value
        return response

    def page(self, status: int, headers: Headers, body: bytes) -> Any:
        response = self._http.HttpResponse(body, status=status)
        for name, value in headers:
            response[name] = value
        return response


class _Served:
    """The iterable of Django's response: begins to serve when the server iterates it."""

    def __init__(self, serve: Callable[[], Iterable[bytes]]) -> None:
        self._serve = serve

    def __iter__(self) -> Iterator[bytes]:
        # A generator: Django asks for the iterator at once, before the view has returned.
        yield from self._serve()


def close_idle_connections() -> None:
    """Close the database connections that Django would close at the end of a request."""
    django_db = sys.modules.get("django.db")
    if django_db is None:
        return
    for connection in django_db.connections.all():
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def _call_at_close(response: Any, function: Callable[[], object]) -> None:
    close = response.close

    def close_and_call() -> None:
        close()
        function()

    response.close = close_and_call  # which Django calls when the response has been sent


def _allowed(environ: Environ, headers: Iterable[tuple[str, str]]) -> Headers:
    # wsgiref asserts that an application sends no hop-by-hop headers (PEP 3333).
    is_wsgiref = str(environ.get("SERVER_SOFTWARE", "")).startswith("WSGIServer/")
    hop_by_hop = ("connection", "upgrade") if is_wsgiref else ()
    return [(name, value) for name, value in headers if name.lower() not in hop_by_hop]


def _end_to_end(headers: Headers) -> Headers:
    # PEP 3333: hop-by-hop headers are the server's own.
    return [(name, value) for name, value in headers if name.lower() != "connection"]
