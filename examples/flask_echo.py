"""A WebSocket in Flask: every message comes back.

gunicorn -k gevent --chdir examples flask_echo:app
python -m faye_wsgi ws://127.0.0.1:8000/echo
"""

from __future__ import annotations

from flask import Flask

from faye_wsgi import WebSocket
from faye_wsgi.flask import route

app = Flask(__name__)


@route(app, "/echo", ping=25, max_length=2**20)
def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)
