"""Flask-SocketIO with its Redis queue: a room, to which everybody's messages go."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask
from flask_socketio import SocketIO, emit, join_room
from socketio import RedisManager

app = Flask(__name__)
# A message_queue may not be a Unix socket; this is what it makes of another Redis's URL.
queue = RedisManager(os.environ["CHANNELS_URL"], channel="flask-socketio")
socketio = SocketIO(app, client_manager=queue)


@socketio.on("connect")
def connected() -> None:
    join_room("all")


@socketio.on("all")
def to_all(text: Any) -> None:
    emit("all", text, to="all")
