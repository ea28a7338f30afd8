"""Rooms that echo, with metrics, which are reported more often than by default."""

from __future__ import annotations

import os
from typing import Any

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
    ws.send(str(os.getpid()))
    for message in ws:
        ws.send(message)


@app.get("/metrics")
def show() -> Any:
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, multiprocess

    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return Response(generate_latest(registry), mimetype="text/plain")


@app.get(READY_PATH)
def ready() -> str:
    return ""
