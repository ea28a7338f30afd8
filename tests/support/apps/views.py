"""What the applications do with a connection once they have it, the same in all three.

Each takes a `WebSocket` and the query. The views around them are written out in each
application, since that is where the frameworks differ.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import Any, Callable
from urllib.parse import parse_qsl

import gevent

from faye_wsgi import ConnectionClosed, WebSocket

Query = Mapping[str, str]

NUMBERS: dict[str, Callable[[str], Any]] = {
    "ping": float,
    "ping_timeout": float,
    "close_timeout": float,
    "message_timeout": float,
    "send_timeout": float,
    "max_length": int,
    "max_fragments": int,
    "max_queue": int,
    "max_queue_bytes": int,
    "max_connections": int,
}
SWITCHES = ("allow_drafts", "trust_forwarded")


def query(environ: Mapping[str, Any]) -> dict[str, str]:
    return dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))


def options(values: Query) -> dict[str, Any]:
    """Options of WebSocket out of a query: `?ping=2&protocols=a,b&origins=any&deflate=1`."""
    found: dict[str, Any] = {
        name: convert(values[name]) for name, convert in NUMBERS.items() if name in values
    }
    found.update({name: values[name] == "1" for name in SWITCHES if name in values})
    if "protocols" in values:
        found["protocols"] = values["protocols"].split(",")
    if "origins" in values:
        any_origin, same = values["origins"] == "any", values["origins"] == "same"
        found["origins"] = None if any_origin else "same" if same else values["origins"].split(",")
    if values.get("deflate") == "1":
        from faye_wsgi.extensions.permessage_deflate import PermessageDeflate

        found["extensions"] = [PermessageDeflate()]
    return found


def echo(ws: WebSocket, values: Query) -> None:
    for message in ws:
        ws.send(message)


def events(ws: WebSocket, values: Query) -> None:
    ws.on("message", lambda event: ws.send(event.data))


def early(ws: WebSocket, values: Query) -> None:
    """Goes home with the socket open and nobody listening."""


def raise_(ws: WebSocket, values: Query) -> None:
    def fail(event: Any) -> None:
        raise RuntimeError("raised by a listener")

    ws.on("message", fail)


def raise_in_view(ws: WebSocket, values: Query) -> None:
    with ws:
        ws.receive()
        raise RuntimeError("raised by a view")


def raise_with_listeners(ws: WebSocket, values: Query) -> None:
    ws.on("message", lambda event: ws.send(event.data))
    ws.on("close", lambda event: print(f"told of its close: {event.code}", file=sys.stderr))
    raise RuntimeError("raised by a view")


def push(ws: WebSocket, values: Query) -> None:
    """?n=&size=: so many messages of so many bytes, then a close."""
    message = "x" * int(values.get("size", 1))
    for _ in range(int(values.get("n", 1))):
        ws.send(message)
    ws.close()
    ws.wait_closed()


def polling(ws: WebSocket, values: Query) -> None:
    """Does other things than wait for messages, and looks up now and then."""
    while ws.ready_state == ws.OPEN:
        time.sleep(0.02)
    print("it saw the end", file=sys.stderr, flush=True)


def late(ws: WebSocket, values: Query) -> None:
    """Listens for the end when the client has gone."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            ws.receive()
    ws.wait_closed()
    taken_back = ws.on("close", lambda event: print("told in vain", file=sys.stderr))
    for number in range(2):
        ws.on("close", lambda event, n=number: print(f"told late: {n}", file=sys.stderr))
    ws.remove_listener("close", taken_back)


def slow(ws: WebSocket, values: Query) -> None:
    """?delay=: sleeps that long before each answer, in a listener.

    gevent's sleep, since without monkey patching time.sleep stops the whole hub."""
    delay = float(values.get("delay", 0.2))

    def answer(event: Any) -> None:
        gevent.sleep(delay)
        ws.send(event.data)

    ws.on("message", answer)


VIEWS: dict[str, Callable[[WebSocket, Query], None]] = {
    "echo": echo,
    "events": events,
    "early": early,
    "raise": raise_,
    "raise_in_view": raise_in_view,
    "raise_with_listeners": raise_with_listeners,
    "push": push,
    "polling": polling,
    "slow": slow,
    "late": late,
}

PLAIN = "an ordinary page\n"
