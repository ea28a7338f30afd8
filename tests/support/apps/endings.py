"""Views that no decorator surrounds, and that end in all manners: `/ws/NAME`, `/es/NAME`.

Below `/copied/` they get a copy of the environ, as behind some middleware.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import gevent

from faye_wsgi import ConnectionClosed, EventSource, WebSocket
from faye_wsgi.transport import served

from .wsgi_app import page

StartResponse = Callable[..., Any]
STREAMS: list[EventSource] = []


# How views return


def response(made: Any, environ: Any, start_response: StartResponse) -> Iterable[bytes]:
    body: Iterable[bytes] = made.response(environ, start_response)
    return body


def another_page(made: Any, environ: Any, start_response: StartResponse) -> Iterable[bytes]:
    return page(start_response, "200 OK", "not the response of the connection")


def not_found(made: Any, environ: Any, start_response: StartResponse) -> Iterable[bytes]:
    return page(start_response, "404 Not Found", "no such page")


def empty(made: Any, environ: Any, start_response: StartResponse) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


def generator(made: Any, environ: Any, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b""
    yield b"x"


def by_write(made: Any, environ: Any, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])(b"x" * 100_000)
    return []


# How views are thrown out


def error(*args: Any) -> Any:
    raise RuntimeError("in a view")


def greenlet_exit(*args: Any) -> Any:
    raise gevent.GreenletExit


def stop_iteration(*args: Any) -> Any:
    raise StopIteration


def system_exit(*args: Any) -> Any:
    raise SystemExit(7)


def killed(*args: Any) -> Any:
    gevent.kill(gevent.getcurrent())
    gevent.sleep(30)


RETURNS = [response, another_page, not_found, empty, generator, by_write]
FAILURES = [error, greenlet_exit, stop_iteration, system_exit, killed]
ENDINGS = {function.__name__: function for function in RETURNS + FAILURES}


def answer(event: Any) -> None:
    if event.data == "exit":
        raise SystemExit(7)
    event.target.send(event.data)


def told(event: Any) -> None:
    print("told of", event.type, file=sys.stderr, flush=True)


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    *before, kind, name = environ["PATH_INFO"].strip("/").rjust(2, "/").split("/")
    if before == ["copied"]:
        copy = {**environ, "PATH_INFO": f"/{kind}/{name}"}
        return application(copy, start_response)
    if kind == "count":
        gc.collect()
        return page(start_response, "200 OK", str(served.count()))
    if kind == "send":
        return page(start_response, "200 OK", str(send_to_all(name)))
    if kind == "twice":
        return twice(name, environ, start_response)
    if kind not in ("ws", "es"):
        gc.collect()
        return page(start_response, "200 OK", str(os.getpid()))
    made: Any
    if kind == "ws":
        made = WebSocket(environ)
        made.on("message", answer)
    else:
        made = EventSource(environ, ping=None)
        STREAMS.append(made)
    made.on("close", told)
    return ENDINGS[name](made, environ, start_response)


def twice(name: str, environ: dict[str, Any], start_response: StartResponse) -> Any:
    """The first tells what the second one raises."""
    first, second = {"ws": WebSocket, "es": EventSource}, {"w": WebSocket, "e": EventSource}
    made: Any = first[name[:2]](environ)
    for _ in range(2):
        try:
            second[name[3]](environ)
        except RuntimeError as error:
            made.send(str(error))
    if name.startswith("ws"):
        for message in made:
            made.send(message)
    made.close()
    return made.response(environ, start_response)


def send_to_all(text: str) -> int:
    """How many got it."""
    number = 0
    for es in STREAMS:
        try:
            es.send(text)
            number += 1
        except ConnectionClosed:
            pass
    return number
