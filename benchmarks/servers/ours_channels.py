"""faye_wsgi's channels over Redis: to all subscribers of a channel, in all workers."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request

from faye_wsgi import Channels, EventSource, Message, WebSocket

app = Flask(__name__)
channels = Channels(os.environ["CHANNELS_URL"], history=1000)


def text(message: Message) -> Any:
    """The message as it came, so that it is as long as the others'."""
    return message.data


@app.route("/broadcast", websocket=True)
def to_many() -> Any:
    ws = WebSocket(request)
    ws.on("message", lambda event: channels.publish("all", event.data))
    channels.subscribe(ws, "all", format=text)
    return ws.response


@app.get("/events")
def events() -> Any:
    es = EventSource(request)
    channels.subscribe(es, "all", format=text)
    return es.response


@app.post("/publish")
def publish() -> Any:
    channels.publish("all", request.get_data(as_text=True))
    return "", 204


@app.route("/subscribed", websocket=True)
def subscribed() -> Any:
    ws = WebSocket(request)
    ws.on("message", lambda event: ws.send(event.data))
    channels.subscribe(ws, "quiet")
    return ws.response


@app.route("/resume", websocket=True)
def resume() -> Any:
    ws = WebSocket(request)
    since = request.args.get("since")
    ws.send(channels.subscribe(ws, "all", since=since).cursor)
    return ws.response


@app.get("/resume_events")
def resume_events() -> Any:
    es = EventSource(request)
    channels.subscribe(es, "all", since=request.args["since"])
    return es.response


@app.route("/resume_own", websocket=True)
def resume_own() -> Any:
    """Each client has a channel of its own."""
    ws = WebSocket(request)
    name, since = f"user:{request.args['id']}", request.args.get("since")
    ws.send(channels.subscribe(ws, name, since=since).cursor)
    return ws.response


@app.route("/resume_present", websocket=True)
def resume_present() -> Any:
    """Each client is a member of the one channel."""
    ws = WebSocket(request)
    member, since = {"id": request.args["id"]}, request.args.get("since")
    ws.send(channels.subscribe(ws, "all", since=since, presence=member).cursor)
    return ws.response


@app.route("/connect", websocket=True)
def connect() -> Any:
    """What coming back costs without channels."""
    ws = WebSocket(request)
    ws.on("message", lambda event: ws.send(event.data))
    ws.send("0-0")
    return ws.response
