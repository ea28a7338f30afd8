"""gevent-websocket's echo, for gunicorn with its GeventWebSocketWorker."""
from __future__ import annotations

from typing import Any


def application(environ: Any, start_response: Any) -> list[bytes]:
    ws = environ['wsgi.websocket']
    while True:
        message = ws.receive()
        if message is None:
            return []
        ws.send(message)
