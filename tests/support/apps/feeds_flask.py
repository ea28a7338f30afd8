"""Event streams in Flask, with the decorator."""

from __future__ import annotations

import functools
from typing import Any, Callable

import gevent
from flask import Flask, Response, abort, request, session

from faye_wsgi import EventSource
from faye_wsgi.flask import eventsource

from . import streams
from .stats import stats_json

app = application = Flask(__name__)
app.secret_key = "for tests only"


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """As an extension would have it: it knows nothing of streams."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if request.args.get("user") != "alice":
            abort(401)
        return view(*args, **kwargs)

    return guarded


@app.route("/bare")
@eventsource
def bare(es: EventSource) -> None:
    es.send("hello")


@app.route("/rooms/<room>")
@eventsource(retry=0.5, ping=None, headers={"X-Room": "a room"})
def room(es: EventSource, room: str) -> str:
    es.send(f"{room} {es.last_event_id}", event="room", id=1)
    es.end()
    return "what it returns is not used"


@app.route("/guarded")
@login_required
@eventsource
def guarded(es: EventSource) -> None:
    session["touched"] = True
    es.send("welcome")


@app.route("/loop")
@eventsource
def loop(es: EventSource) -> None:
    """Leaves by the ConnectionClosed of its own stream, which is no error."""
    while True:
        es.send("tick")
        gevent.sleep(0.02)


@app.route("/listeners")
@eventsource(ping=None)
def listeners(es: EventSource) -> None:
    values = dict(request.args)
    es.on("close", lambda event: streams.note(values, "close"))
    es.send("listening")


@app.route("/raise")
@eventsource
def raising(es: EventSource) -> None:
    es.send("before")
    raise RuntimeError("raised by a view")


@app.route("/es/notes")
def notes() -> Response:
    return Response(streams.notes_json(request.args))


@app.route("/stats")
def stats() -> Response:
    return Response(stats_json())
