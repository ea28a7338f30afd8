"""A small team chat on Channels: publish once, and every window gets it, in whichever worker.

    gunicorn -k gevent --chdir examples/flask_app app:app
    CHANNELS=redis://localhost:6379/0 gunicorn -k gevent -w 4 --chdir examples/flask_app app:app

Then open http://127.0.0.1:8000 in two browsers, and http://127.0.0.1:8000/activity in a third.

    rooms           the rooms that were started, the last 32; its members are all who are online
    room:NAME       the messages of a room, the last 100
    here:NAME       who is in a room, and who is typing there; nothing is kept
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from functools import partial
from typing import Any

from flask import Flask, Request, Response, abort, jsonify, request

from faye_wsgi import Channels, EventSource, Message
from faye_wsgi.flask import add_channels, eventsource

FIRST_ROOMS = ("general", "projects", "tea-break")
ROOM_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,23}")
MAX_ROOMS = 32  # beside the first
MAX_NAME = 24  # characters
MAX_TEXT = 1000
MAX_ID = 36

app = Flask(__name__)
channels = Channels(
    os.environ.get("CHANNELS", "memory://"),
    ttl=7 * 24 * 3600,
    rules={"rooms": {"history": MAX_ROOMS}, "room:*": {"history": 100}},
)

# Who is here, and what rooms there are


def visitor(request: Request) -> dict[str, str] | None:
    """Who asks. The browser keeps a secret in a cookie, and all others see its hash."""
    key, name = request.cookies.get("key"), clean_name(request.cookies.get("name", ""))
    if not key or not name:
        return None
    return {"person": hashlib.sha256(key.encode()).hexdigest()[:12], "name": name}


def clean_name(name: str) -> str:
    """One line of printable characters."""
    printable = "".join(c for c in " ".join(name.split()) if c.isprintable())
    return printable[:MAX_NAME].strip()


def free_name(name: str, person: str | None) -> str:
    """The name, with a number behind it where another person who is online has it."""
    online = [member.data[0] for member in channels.presence("rooms").values()]
    taken = {one["name"].casefold() for one in online if one["person"] != person}
    names = (f"{name} {number}" if number > 1 else name for number in range(1, len(taken) + 2))
    return next(free for free in names if free.casefold() not in taken)


def list_rooms() -> list[str]:
    started = [message.data["room"] for message in channels.history("rooms", limit=MAX_ROOMS)]
    return list(dict.fromkeys([*FIRST_ROOMS, *started]))


@app.get("/me")
def me() -> Response:
    return jsonify(you=visitor(request), rooms=list_rooms(), now=now())


@app.post("/me")
def set_name() -> Response:
    known, wanted = visitor(request), clean_name(str(request.get_json().get("name", "")))
    if not wanted:
        abort(400, "A name has at least one character")
    name = free_name(wanted, known and known["person"])
    response = jsonify(name=name)
    key = request.cookies.get("key") or secrets.token_urlsafe()
    for cookie, value in (("key", key), ("name", name)):
        response.set_cookie(cookie, value, max_age=365 * 86400, httponly=True, samesite="Lax")
    return response


# What a page may do


def authorize(request: Request, action: str, channel: str) -> Any:
    """Asked for each subscription and each publication. ``data`` makes what is published."""
    kind, _, room = channel.partition(":")
    is_ours = channel == "rooms" or (kind in ("room", "here") and ROOM_NAME.fullmatch(room))
    you = visitor(request)
    if you is None or not is_ours:
        return False
    if action != "publish":
        # A person with two windows is one member, and a new name is another one.
        member = {"id": f"{you['person']} {you['name']}", **you}
        return kind == "room" or {"presence": member}
    if kind == "room":
        is_open = room in FIRST_ROOMS or room in list_rooms()
        return is_open and {"data": partial(make_message, you)}
    return {"data": start_room if kind == "rooms" else lambda said: you}


def make_message(you: dict[str, str], said: Any) -> dict[str, Any]:
    """The message, with its author: what a page says of itself is not believed."""
    id, text = (said.get("id"), said.get("text")) if isinstance(said, dict) else (None, None)
    if not (isinstance(id, str) and len(id) <= MAX_ID and isinstance(text, str) and text):
        raise ValueError("a message has an id and a text")
    return {**you, "id": id, "text": text[:MAX_TEXT], "time": now()}


def start_room(said: Any) -> dict[str, str]:
    name = said.get("room") if isinstance(said, dict) else None
    if not (isinstance(name, str) and ROOM_NAME.fullmatch(name)) or name in list_rooms():
        raise ValueError("a new room has a name of small letters, digits and hyphens")
    return {"room": name}


def now() -> int:
    return int(time.time() * 1000)


# One URL for WebSockets, event streams and the script for pages. ``rate`` is of one window.
add_channels(app, "/channels", channels, authorize, rate=5, burst=100, max_length=16 * 1024)

# The pages


@app.get("/", defaults={"page": "index"})
@app.get("/<any(activity):page>")
def show(page: str) -> Response:
    return app.send_static_file(f"{page}.html")


@app.get("/activity/events")
@eventsource(retry=2, ping=15, close_timeout=5, last_event_id_param="after")
def activity_events(es: EventSource) -> None:
    """What happens, without the texts; anyone may look on. It goes on when this has returned."""
    rooms = list_rooms()
    told = partial(channels.subscribe, es, ["rooms", *(f"room:{room}" for room in rooms)])
    try:
        told(since=es.last_event_id, last=100, format=without_text)
    except ValueError:  # an id that is not ours
        told(last=100, format=without_text)
    channels.subscribe(es, [f"here:{room}" for room in rooms], presence=True)


def without_text(message: Message) -> str:
    data = {name: value for name, value in (message.data or {}).items() if name != "text"}
    return json.dumps({"channel": message.channel, "data": data})


@app.after_request
def only_our_own_files(response: Response) -> Response:
    """A second line of defence: if a visitor's text became HTML, it could not run."""
    response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response
