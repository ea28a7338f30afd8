"""Views and listeners that block their hub until the watchdog has seen it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Callable

import gevent
from gevent.monkey import get_original

from faye_wsgi import WebSocket
from faye_wsgi.transport import watchdog

TIMEOUT = 10.0

native_sleep = get_original("time", "sleep")


def block() -> None:
    """Sleep without gevent's knowledge."""
    (dog,) = watchdog._watchdogs.values()
    deadline = time.monotonic() + TIMEOUT
    while not dog.stack and time.monotonic() < deadline:
        native_sleep(0.01)  # this is the line


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if not WebSocket.is_websocket(environ):
        start_response("200 OK", [("Content-Length", "0")])
        return []
    ws = WebSocket(environ)
    if environ["PATH_INFO"] == "/listener":
        ws.on("message", answer)
    else:
        answer_in_view(ws)
    return ws.response(environ, start_response)


def answer(event: Any) -> None:
    block()
    gevent.sleep(0)
    event.target.send("done")


def answer_in_view(ws: WebSocket) -> None:
    ws.receive()
    block()
    ws.send("done")
