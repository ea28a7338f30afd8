"""The test application with more views, which count how their connections ended.

`/ends` is the number of close events for each code: with exactly one to a connection, the
numbers add up.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Callable

import gevent
import gevent.event
import gevent.threadpool
from gevent.monkey import get_original

from faye_wsgi import ConnectionClosed, EventSource, WebSocket, broadcast

from ..support.apps import streams, views, wsgi_app
from ..support.apps.views import Query

ENDS: Counter[str] = Counter()
native_sleep = get_original("time", "sleep")


def count_end(ws: WebSocket) -> None:
    ws.on("close", lambda event: ENDS.update([str(event.code)]))


def counted_echo(ws: WebSocket, values: Query) -> None:
    count_end(ws)
    views.echo(ws, values)


def careful_echo(ws: WebSocket, values: Query) -> None:
    """The end of the connection, which a send may find, is no error of this view."""
    count_end(ws)
    with ws:
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


def flood(target: WebSocket | EventSource) -> None:
    """Send without an end; what ends it is counted, too."""
    try:
        while True:
            target.send("x" * 65536)
    except ConnectionClosed as error:
        ENDS.update([f"sender: {error.code}"])


def flood_in_view(ws: WebSocket, values: Query) -> None:
    count_end(ws)
    flood(ws)


def flood_in_listener(ws: WebSocket, values: Query) -> None:
    count_end(ws)
    ws.on("message", lambda event: flood(ws))


def flood_by_broadcast(ws: WebSocket, values: Query) -> None:
    """Until it takes no more, and then it waits."""
    count_end(ws)
    while not broadcast([ws], "x" * 65536):
        pass
    for _ in ws:
        pass


def flood_stream(es: EventSource, values: Query) -> None:
    es.on("close", lambda event: ENDS.update([str(event.code)]))
    flood(es)


def tardy(ws: WebSocket, values: Query) -> None:
    """?delay=: does not read for so long; answers 'count' with the messages before it."""
    gevent.sleep(float(values["delay"]))
    for number, message in enumerate(ws):
        if message == "count":
            ws.send(str(number))


def native_threads(ws: WebSocket, values: Query) -> None:
    """?n=&size=: so many messages, each sent by a native thread of a pool of ten."""
    pool = gevent.threadpool.ThreadPool(10)
    message = b"x" * int(values["size"])
    jobs = [pool.spawn(ws.send, message) for _ in range(int(values["n"]))]
    gevent.joinall(jobs, timeout=60)
    ws.send(str(sum(job.successful() for job in jobs)))
    pool.kill()


def joined_thread(ws: WebSocket, values: Query) -> None:
    """?n=: so many messages out of a thread that has ended, and one of its own."""
    send = [ws.send] * int(values["n"])
    thread = threading.Thread(target=lambda: [one(str(number)) for number, one in enumerate(send)])
    thread.start()
    thread.join()
    if values.get("last"):
        ws.send("last")
    ws.close()


RELEASED: dict[str, gevent.event.Event] = defaultdict(gevent.event.Event)


def unread(ws: WebSocket, values: Query) -> None:
    """?key=: does not read before '/release?key='; answers 'count' with the messages before it."""
    RELEASED[values["key"]].wait(60)
    del RELEASED[values["key"]]
    for number, message in enumerate(ws):
        if message == "count":
            ws.send(str(number))


def numbers(es: EventSource, values: Query) -> None:
    """?n=: events with the numbers from 1 to n, behind the last one that the client has."""
    with contextlib.suppress(ConnectionClosed):
        for number in range(int(es.last_event_id or 0) + 1, int(values["n"]) + 1):
            es.send(f"number {number}", id=number)
            gevent.sleep(0.002)
        es.wait_closed(20)


streams.EVENT_VIEWS.update({"numbers": numbers, "flood_stream": flood_stream})
views.VIEWS.update(
    {
        "counted_echo": counted_echo,
        "careful_echo": careful_echo,
        "counted_events": counted_events,
        "close_in_view": close_in_view,
        "close_in_listener": close_in_listener,
        "push_in_view": push_in_view,
        "push_in_listener": push_in_listener,
        "flood_in_view": flood_in_view,
        "flood_in_listener": flood_in_listener,
        "flood_by_broadcast": flood_by_broadcast,
        "tardy": tardy,
        "native_threads": native_threads,
        "joined_thread": joined_thread,
        "unread": unread,
    }
)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/ends":
        return wsgi_app.page(start_response, "200 OK", json.dumps(ENDS))
    if environ["PATH_INFO"] == "/block":
        print("it blocks", file=sys.stderr, flush=True)
        native_sleep(float(views.query(environ)["seconds"]))
        return wsgi_app.page(start_response, "200 OK", "blocked")
    if environ["PATH_INFO"] == "/release":
        RELEASED[views.query(environ)["key"]].set()
        return wsgi_app.page(start_response, "200 OK", "released")
    return wsgi_app.application(environ, start_response)
