"""What a view returns, for a plain WSGI application, WebOb and Django."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, Callable

import pytest
import webob
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse, StreamingHttpResponse

from faye_wsgi import ConnectionClosed, EventSource, WebSocket
from faye_wsgi.wsgi.responses import close_idle_connections

from ..support.apps import django_app  # which has Django's settings
from ..test_websocket import Exchange, Untouchable, exchange, make_environ, respond
from ..transport.harness import until

__all__ = ["django_app", "exchange"]

WSGIREF = "WSGIServer/0.2 CPython/3.12"


def of_django(environ: dict[str, Any]) -> WSGIRequest:
    body = environ["wsgi.input"]
    body.read = body.readline = lambda size=-1: b""
    return WSGIRequest(environ)


# Connections that were taken


def test_the_server_sees_a_bare_101(exchange: Callable[..., Exchange]) -> None:
    """What it would add to it goes into the void, whatever it is."""
    ws = exchange().accept()
    assert isinstance(ws.response, webob.Response)
    assert respond(ws) == ("101 Switching Protocols", {}, b"")
    assert respond(ws) == ("101 Switching Protocols", {}, b""), "as often as it is asked"


def test_django_gets_a_response_of_its_own(exchange: Callable[..., Exchange]) -> None:
    made = exchange()
    ws = WebSocket(of_django(made.environ))
    made.accepted.append(ws)
    response = ws.response
    assert isinstance(response, HttpResponse)
    assert (response.status_code, response.content) == (101, b"")
    assert made.peer.read_head().status == 101


# Handshakes that failed


def test_django_gets_the_error_with_its_headers() -> None:
    request = of_django(make_environ(Untouchable(), HTTP_SEC_WEBSOCKET_VERSION="12"))
    ws = WebSocket(request)
    heard: list[str] = []
    ws.on("close", lambda event: heard.append(event.type))
    response = ws.response
    assert isinstance(response, HttpResponse)
    assert (response.status_code, response["Sec-WebSocket-Version"]) == (426, "13")
    assert response["Content-Type"].startswith("text/plain")
    assert response.content.decode().strip() == ws.close_reason
    response.close()  # as Django does when it has been sent
    until(lambda: heard == ["close"])


@pytest.mark.parametrize("server, sent", [("gunicorn/0", True), (WSGIREF, False)])
def test_hop_by_hop_headers_where_the_server_lets_them_through(server: str, sent: bool) -> None:
    """wsgiref asserts that there are none, and would answer 500 instead."""
    ws = WebSocket(make_environ(Untouchable(), SERVER_SOFTWARE=server, HTTP_UPGRADE=None))
    status, headers, _ = respond(ws)
    assert status.startswith("426 ")
    assert ("Upgrade" in headers, "Connection" in headers) == (sent, sent)


# Streams through the iterable


def stream() -> EventSource:
    """An EventSource over HTTP/2, whose socket nothing may take."""
    environ = make_environ(Untouchable(), HTTP_UPGRADE=None, SERVER_PROTOCOL="HTTP/2.0")
    return EventSource(of_django(environ), ping=None, headers={"X-Mine": "1"})


def test_django_streams() -> None:
    es = stream()
    es.send("x")
    es.close()
    response = es.response
    assert isinstance(response, StreamingHttpResponse)
    assert response["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response["X-Mine"] == "1" and "Connection" not in response
    assert b"".join(response).endswith(b"data: x\r\n\r\n")


def test_django_gives_a_stream_up() -> None:
    es = stream()
    response = es.response
    assert next(iter(response)).startswith(b"retry:")
    response.close()
    assert es.closed
    with pytest.raises(ConnectionClosed):
        es.send("late")


# Django's database connections


class Database:
    def __init__(self, in_atomic_block: bool) -> None:
        self.in_atomic_block = in_atomic_block
        self.closed = 0

    def close_if_unusable_or_obsolete(self) -> None:
        self.closed += 1


def test_idle_database_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    idle, busy = Database(False), Database(True)
    connections = SimpleNamespace(all=lambda: [idle, busy])
    monkeypatch.setitem(sys.modules, "django.db", SimpleNamespace(connections=connections))
    close_idle_connections()
    assert (idle.closed, busy.closed) == (1, 0), "a transaction is not broken off"


def test_without_django_there_is_nothing_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django.db", raising=False)
    close_idle_connections()
    assert "django.db" not in sys.modules, "nor is it imported for that"


def test_a_listener_of_django_closes_them(
    exchange: Callable[..., Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Database(False)
    connections = SimpleNamespace(all=lambda: [idle])
    made = exchange()
    ws = WebSocket(of_django(made.environ))
    made.accepted.append(ws)
    monkeypatch.setitem(sys.modules, "django.db", SimpleNamespace(connections=connections))
    ws.on("message", lambda event: None)
    made.peer.read_head()
    made.peer.send_text("x")
    until(lambda: idle.closed > 0, what="the connection after a listener")


def test_a_response_that_is_returned_and_not_called_says_so(
    exchange: Callable[..., Exchange],
) -> None:
    taken = exchange().accept()
    refused = WebSocket(make_environ(Untouchable(), HTTP_UPGRADE=None))
    streamed = EventSource(make_environ(None, SERVER_SOFTWARE="waitress"))
    streamed.close()
    for response in (taken.response, refused.response, streamed.response):
        with pytest.raises(TypeError, match=r"'return ws.response\(environ, start_response\)'"):
            list(response)
