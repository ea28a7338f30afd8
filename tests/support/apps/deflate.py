"""Compression for the tests: an echo whose extension is configured by the query.

`/echo?server_no=1&client_no=1&bits=9&threshold=100&reverse=1&ping=1`; `/` is an empty page for
a browser to start from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from faye_wsgi import WebSocket
from faye_wsgi.extensions.base import Extension
from faye_wsgi.extensions.permessage_deflate import permessage_deflate

from ...extensions.fakes import Reverse
from . import views, wsgi_app

PAGE = '<!doctype html><link rel="icon" href="data:,">'


def extensions(values: Mapping[str, str]) -> list[Extension]:
    deflate = permessage_deflate.configure(
        no_context_takeover=values.get("server_no") == "1",
        request_no_context_takeover=values.get("client_no") == "1",
        max_window_bits=int(values.get("bits", 15)),
        request_max_window_bits=int(values.get("bits", 15)),
        threshold=int(values.get("threshold", 0)),
    )
    return [Reverse(), deflate] if values.get("reverse") == "1" else [deflate]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/":
        return wsgi_app.page(start_response, "200 OK", PAGE, "text/html")
    if environ["PATH_INFO"] != "/echo":
        return wsgi_app.application(environ, start_response)
    values = views.query(environ)
    options = views.options(values)
    options["extensions"] = extensions(values)
    ws = WebSocket(environ, **options)
    views.echo(ws, values)
    return ws.response(environ, start_response)
