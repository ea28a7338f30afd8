"""The test application in Flask."""

from __future__ import annotations

from flask import Flask, Response, request

from faye_wsgi import EventSource, WebSocket

from . import streams
from .stats import stats_json
from .views import PLAIN, VIEWS, options

app = application = Flask(__name__)


@app.route(f"/<any({', '.join(VIEWS)}):name>", websocket=True)
def connection(name: str) -> Response:
    ws = WebSocket(request, **options(request.args))
    VIEWS[name](ws, request.args)
    return ws.response


@app.route("/es/<name>")
def event_stream(name: str) -> Response:
    if name in streams.EVENT_PAGES:
        return Response(streams.EVENT_PAGES[name](request.args))
    es = EventSource(request, **streams.options(request.args))
    streams.EVENT_VIEWS[name](es, request.args)
    return es.response


@app.route("/stats")
def stats() -> Response:
    return Response(stats_json(), content_type="application/json")


@app.route("/plain")
def plain() -> Response:
    return Response(PLAIN, content_type="text/plain")
