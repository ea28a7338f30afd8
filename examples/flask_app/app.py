"""A small team chat: Flask, and one WebSocket for each open page.

A second page shows how much is going on, and needs no more than an EventSource.

    gunicorn -k gevent --chdir examples/flask_app app:app

Then open http://127.0.0.1:8000 in two windows, and http://127.0.0.1:8000/activity in a third. Run
one worker only, as the command above does: the channels live in its memory (see chat.py).
"""

from __future__ import annotations

import json
import time

from activity import ActivityLog
from chat import JOIN_TIMEOUT, Chat, Member, Refused, parse
from flask import Flask, Response

from faye_wsgi import EventSource, WebSocket
from faye_wsgi.flask import eventsource, websocket

app = Flask(__name__)
log = ActivityLog()
chat = Chat(report=log.add)


@app.get("/")
def index() -> Response:
    return app.send_static_file("index.html")


# The ping keeps proxies from cutting a quiet connection, and finds visitors who vanished;
# close_timeout is for those who are too slow even to say goodbye.
# max_length is in bytes. A page of another origin is refused by the handshake itself.
@app.route("/channels/<name>", websocket=True)
@websocket(ping=25, close_timeout=5, max_length=16 * 1024)
def channel(ws: WebSocket, name: str) -> None:
    try:
        # Who it is comes as the first message: addresses are written to access logs.
        member = Member(ws, parse(ws.receive(timeout=JOIN_TIMEOUT)))
        room = chat.join(name, member)
    except TimeoutError:
        ws.close(1008, "No greeting")
        return
    except Refused as refusal:
        ws.close(refusal.code, str(refusal))
        return
    try:
        for message in ws:
            member.pace()
            chat.receive(room, member, message)
    finally:
        chat.leave(room, member)


@app.get("/activity")
def activity() -> Response:
    return app.send_static_file("activity.html")


# A browser that reconnects tells the id of the last event it has seen, in a header. Where the
# page makes a new EventSource, which cannot have that header, it tells the id in the address.
@app.get("/activity/events")
@eventsource(retry=2, ping=15, close_timeout=5, last_event_id_param="after")
def activity_events(es: EventSource) -> None:
    if not log.readers.acquire(blocking=False):
        es.close()  # the browser tries again by itself, which it would not after a 503
        return
    try:
        for id, entries in log.follow(es):
            now = int(time.time() * 1000)
            es.send(json.dumps({**chat.summary(), "now": now, "entries": entries}), id=id)
    finally:
        log.readers.release()


@app.after_request
def only_our_own_files(response: Response) -> Response:
    """A second line of defence: even if somebody's text became HTML, it could not run."""
    response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response
