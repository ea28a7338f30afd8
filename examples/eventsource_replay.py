"""Events that are not missed: a client that comes back gets what was sent while it was away.

    gunicorn -k gevent --chdir examples eventsource_replay:app
    python -m faye_wsgi http://127.0.0.1:8000/news
    curl -d text=hello http://127.0.0.1:8000/news

For several workers: CHANNELS=redis://localhost:6379/0 gunicorn -w 4 …
"""

from __future__ import annotations

import os

from flask import Flask, request

from faye_wsgi import Channels, EventSource
from faye_wsgi.flask import eventsource

app = Flask(__name__)
channels = Channels(os.environ.get("CHANNELS", "memory://"), history=100)


@app.get("/news")
@eventsource(ping=15)
def news(es: EventSource) -> None:
    """A new client gets the last ten messages, and one that comes back what it has missed."""
    channels.subscribe(es, "news", since=es.last_event_id, last=10)


@app.post("/news")
def publish() -> dict[str, str]:
    return {"id": channels.publish("news", request.form["text"])}
