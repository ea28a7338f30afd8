"""faye_wsgi with many receivers and without its broadcast: one send after the other."""

from __future__ import annotations

from typing import Any

from flask import Flask, request

from faye_wsgi import WebSocket

app = Flask(__name__)
everybody: list[WebSocket] = []


def send_to_all(event: Any) -> None:
    for ws in everybody:
        ws.send(event.data)


@app.route("/broadcast", websocket=True)
def to_many() -> Any:
    ws = WebSocket(request)
    everybody.append(ws)
    ws.on("message", send_to_all)
    ws.on("close", lambda event: everybody.remove(ws))
    return ws.response
