"""The test application with more views, which count how their connections ended.

`/ends` is the number of close events for each code: with exactly one to a connection, the
numbers add up.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Callable

import gevent

from faye_wsgi import ConnectionClosed, WebSocket

from ..support.apps import views, wsgi_app
from ..support.apps.views import Query

ENDS: Counter[str] = Counter()


def count_end(ws: WebSocket) -> None:
    ws.on("close", lambda event: ENDS.update([str(event.code)]))


def counted_echo(ws: WebSocket, values: Query) -> None:
    count_end(ws)
    views.echo(ws, values)


def counted_events(ws: WebSocket, values: Query) -> None:
    count_end(ws)
    views.events(ws, values)


def close_in_view(ws: WebSocket, values: Query) -> None:
    count_end(ws)
    ws.receive()
    ws.close(4000, "the view")


def close_in_listener(ws: WebSocket, values: Query) -> None:
    count_end(ws)
    ws.on("message", lambda event: ws.close(4000, "the listener"))


def push_in_listener(ws: WebSocket, values: Query) -> None:
    """?n=&size=: as /push, when asked for by a message."""

    def answer(event: Any) -> None:
        for _ in range(int(values["n"])):
            ws.send(b"x" * int(values["size"]))

    count_end(ws)
    ws.on("message", answer)


def push_in_view(ws: WebSocket, values: Query) -> None:
    count_end(ws)
    with contextlib.suppress(ConnectionClosed):
        for _ in range(int(values["n"])):
            ws.send(b"x" * int(values["size"]))


def tardy(ws: WebSocket, values: Query) -> None:
    """?delay=: does not read for so long; answers 'count' with the messages before it."""
    gevent.sleep(float(values["delay"]))
    for number, message in enumerate(ws):
        if message == "count":
            ws.send(str(number))


views.VIEWS.update(
    {
        "counted_echo": counted_echo,
        "counted_events": counted_events,
        "close_in_view": close_in_view,
        "close_in_listener": close_in_listener,
        "push_in_view": push_in_view,
        "push_in_listener": push_in_listener,
        "tardy": tardy,
    }
)


def application(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/ends":
        return wsgi_app.page(start_response, "200 OK", json.dumps(ENDS))
    return wsgi_app.application(environ, start_response)
