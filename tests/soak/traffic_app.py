"""The application of ``traffic.py``: it numbers what it sends, and checks the numbers that it gets.

`/duplex?id=` is a WebSocket; `mode=listeners` lets the view go home. `/numbers` is an EventSource
that goes on behind the last number that its client has. When a WebSocket has ended, its counts are
appended to the file TRAFFIC_RECORDS, as a line of JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, Callable
from urllib.parse import parse_qsl

import gevent
import gevent.lock

from faye_wsgi import ConnectionClosed, EventSource, WebSocket, permessage_deflate

RECORDS = os.open(os.environ["TRAFFIC_RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
SIZES = (10, 10, 200, 200, 5000, 60_000)  # characters of what is pushed


class Side:
    """The server's side of a connection. ``sent`` and ``begun`` differ where a send has raised."""

    def __init__(self, ws: WebSocket, name: str, pause: float) -> None:
        self.ws = ws
        self.pause = pause
        self.counts: dict[str, Any] = {"id": name, "begun": 0, "sent": 0, "received": 0}
        self.counts["wrong"] = ""
        self.is_done = False
        self._lock = gevent.lock.BoundedSemaphore()  # numbers go out in their order
        ws.on("close", self._note_end)
        self.pusher = gevent.spawn(self._push)

    def take(self, message: str) -> None:
        """A message of the client: 'NUMBER:…', or 'end'."""
        if message == "end":
            self.is_done = True
            self.pusher.join()
            self._send(f"end:{self.counts['received']}")
            return
        number = message.partition(":")[0]
        if int(number) != self.counts["received"]:
            self.counts["wrong"] += f"{number} came instead of {self.counts['received']}; "
        self.counts["received"] += 1
        self._send(f"echo:{number}")

    def _push(self) -> None:
        number = 0
        try:
            while not self.is_done:
                self._send("push:" + "x" * SIZES[number % len(SIZES)])
                number += 1
                gevent.sleep(self.pause)
        except ConnectionClosed:
            pass

    def _send(self, text: str) -> None:
        with self._lock:
            number = self.counts["begun"]
            self.counts["begun"] += 1
            self.ws.send(f"{number}:{text}")
            self.counts["sent"] += 1

    def _note_end(self, event: Any) -> None:
        self.is_done = True
        record = {**self.counts, "code": event.code, "pid": os.getpid()}
        os.write(RECORDS, (json.dumps(record) + "\n").encode())


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    values = dict(parse_qsl(environ["QUERY_STRING"]))
    response: Iterable[bytes]
    if environ["PATH_INFO"] == "/numbers":
        es = EventSource(environ, retry=0.2)
        send_numbers(es)
        response = es.response(environ, start_response)
    elif environ["PATH_INFO"] == "/duplex":
        ws = WebSocket(environ, extensions=permessage_deflate, ping=5, close_timeout=5)
        side = Side(ws, values["id"], float(values["pause"]))
        if values["mode"] == "listeners":
            ws.on("message", lambda event: side.take(event.data))
        else:
            with ws:
                for message in ws:
                    side.take(message)
        response = ws.response(environ, start_response)
    else:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        response = []
    return response


def send_numbers(es: EventSource) -> None:
    number = int(es.last_event_id or 0)
    try:
        while True:
            number += 1
            es.send("x" * SIZES[number % len(SIZES)], id=number)
            gevent.sleep(0.05)
    except ConnectionClosed:
        pass
