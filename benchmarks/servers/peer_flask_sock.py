"""flask-sock's echo, and its broadcast, for gunicorn with its gevent worker."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)
everybody: set[Any] = set()


@sock.route("/echo")
def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


@sock.route("/broadcast")
def broadcast(ws: Any) -> None:
    everybody.add(ws)
    try:
        while True:
            message = ws.receive()
            for one in list(everybody):
                one.send(message)
    finally:
        everybody.discard(ws)
