"""Rooms that echo, with metrics, which are reported more often than by default."""

from __future__ import annotations

import os

from flask import Flask, Response

from faye_wsgi import WebSocket, metrics
from faye_wsgi.flask import websocket
from faye_wsgi.transport import tally

from ..servers import READY_PATH

tally.INTERVAL = 0.1
app = application = Flask(__name__)
metrics.enable()


@app.route("/rooms/<room>", websocket=True)
@websocket
def room(ws: WebSocket, room: str) -> None:
    """Its first message is the process."""
    ws.send(str(os.getpid()))
    for message in ws:
        ws.send(message)


@app.get("/metrics")
def show() -> Response:
    from prometheus_client import REGISTRY, generate_latest

    return Response(generate_latest(REGISTRY), mimetype="text/plain")


@app.get(READY_PATH)
def ready() -> str:
    return ""
