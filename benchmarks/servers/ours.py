"""faye_wsgi as its README writes it: blocking, with listeners, without Flask, and to many."""

from __future__ import annotations

from typing import Any

from flask import Flask, request

from faye_wsgi import ConnectionClosed, EventSource, WebSocket, broadcast
from faye_wsgi.extensions.permessage_deflate import permessage_deflate

app = Flask(__name__)
everybody: list[WebSocket] = []
EVENT = "x" * 100


@app.route("/echo", websocket=True)
def echo() -> Any:
    ws = WebSocket(request)
    for message in ws:
        ws.send(message)
    return ws.response


@app.route("/events", websocket=True)
def events() -> Any:
    ws = WebSocket(request)
    ws.on("message", lambda event: ws.send(event.data))
    return ws.response


@app.route("/deflate", websocket=True)
def deflate() -> Any:
    ws = WebSocket(request, extensions=permessage_deflate)
    for message in ws:
        ws.send(message)
    return ws.response


@app.route("/broadcast", websocket=True)
def to_many() -> Any:
    ws = WebSocket(request)
    everybody.append(ws)
    ws.on("message", lambda event: broadcast(everybody, event.data))
    ws.on("close", lambda event: everybody.remove(ws))
    return ws.response


@app.route("/feed")
def feed() -> Any:
    es = EventSource(request)
    try:
        while True:
            es.send(EVENT)
    except ConnectionClosed:
        pass
    return es.response


def application(environ: Any, start_response: Any) -> Any:
    """The echo as plain WSGI."""
    ws = WebSocket(environ)
    for message in ws:
        ws.send(message)
    return ws.response(environ, start_response)
