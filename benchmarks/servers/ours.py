"""faye_wsgi in Flask views, as its README writes them: the blocking style and the event style."""
from __future__ import annotations

from typing import Any

from flask import Flask, request

from faye_wsgi import WebSocket

app = Flask(__name__)


@app.route('/echo', websocket=True)
def echo() -> Any:
    ws = WebSocket(request)
    for message in ws:
        ws.send(message)
    return ws.response


@app.route('/events', websocket=True)
def events() -> Any:
    ws = WebSocket(request)
    ws.on('message', lambda event: ws.send(event.data))
    return ws.response
