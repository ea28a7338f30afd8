"""gevent-websocket's echo, and its broadcast, for gunicorn with its GeventWebSocketWorker."""

from __future__ import annotations

from typing import Any

everybody: set[Any] = set()


def broadcast(ws: Any) -> list[bytes]:
    everybody.add(ws)
    while True:
        message = ws.receive()
        if message is None:
            everybody.discard(ws)
            return []
        for one in list(everybody):
            one.send(message)


def application(environ: Any, start_response: Any) -> list[bytes]:
    ws = environ["wsgi.websocket"]
    if environ["PATH_INFO"] == "/broadcast":
        return broadcast(ws)
    while True:
        message = ws.receive()
        if message is None:
            return []
        ws.send(message)
