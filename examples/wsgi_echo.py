"""A WebSocket in plain WSGI, without a framework: every message comes back.

gunicorn -k gevent --chdir examples wsgi_echo:application
python -m faye_wsgi ws://127.0.0.1:8000/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from faye_wsgi import WebSocket


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if not WebSocket.is_websocket(environ):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"Connect here with a WebSocket.\n"]
    ws = WebSocket(environ, ping=25, max_length=2**20)
    for message in ws:
        ws.send(message)
    return ws.response(environ, start_response)
