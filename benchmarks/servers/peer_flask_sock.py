"""flask-sock's echo, for gunicorn with its gevent worker."""
from __future__ import annotations

from typing import Any

from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)


@sock.route('/echo')
def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())
