"""An event stream as Flask's documentation makes one: a generator."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask, Response

app = Flask(__name__)
EVENT = f"data: {'x' * 100}\n\n"


@app.route("/feed")
def feed() -> Response:
    def events() -> Iterator[str]:
        while True:
            yield EVENT

    return Response(events(), mimetype="text/event-stream")
