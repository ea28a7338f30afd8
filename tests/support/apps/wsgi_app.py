"""The test application in plain WSGI."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from faye_wsgi import EventSource, WebSocket

from . import streams
from .stats import stats_json
from .views import PLAIN, VIEWS, options, query

StartResponse = Callable[..., Any]


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    name = environ["PATH_INFO"].strip("/")
    if name.startswith("copied/"):  # as some middleware does
        return application({**environ, "PATH_INFO": name[6:]}, start_response)
    if name in VIEWS:
        values = query(environ)
        ws = WebSocket(environ, **options(values))
        VIEWS[name](ws, values)
        return ws.response(environ, start_response)
    if name.startswith("es/"):
        return event_stream(name[3:], environ, start_response)
    if name == "stats":
        return page(start_response, "200 OK", stats_json(), "application/json")
    if name == "plain":
        return page(start_response, "200 OK", PLAIN)
    return page(start_response, "404 Not Found", "no such page\n")


def event_stream(
    name: str, environ: dict[str, Any], start_response: StartResponse
) -> Iterable[bytes]:
    values = query(environ)
    if name in streams.EVENT_PAGES:
        return page(start_response, "200 OK", streams.EVENT_PAGES[name](values))
    if not EventSource.is_eventsource(environ):
        return page(start_response, "406 Not Acceptable", "not an event stream\n")
    es = EventSource(environ, **streams.options(values))
    if not es.closed:  # there may be too many
        streams.EVENT_VIEWS[name](es, values)
    return es.response(environ, start_response)


def page(
    start_response: StartResponse, status: str, text: str, kind: str = "text/plain"
) -> list[bytes]:
    body = text.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


app = application
