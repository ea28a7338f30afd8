"""Taking a request's connection: who serves it from now on, and how its view's end is learnt."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable

from faye_wsgi.driver.base import Driver
from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.transport import hubs
from faye_wsgi.transport.connection import Connection
from faye_wsgi.wsgi import worker
from faye_wsgi.wsgi.hijack import Void, VoidPair, has_failed, take
from faye_wsgi.wsgi.responses import Serve
from faye_wsgi.wsgi.servers import Place

__all__ = ["ViewOver", "own_environ", "take_over"]

ViewOver = Callable[[Any], None]


def take_over(
    environ: dict[str, Any],
    place: Place,
    connection: Connection,
    driver: Driver,
    head: bytes,
    view_over: ViewOver,
) -> Serve:
    """Take the socket at ``place`` and open ``connection`` on it with ``head``.

    ``view_over`` (a method) is called with the status of the view's response when the
    server has ended the request. Returns what the response must iterate: None where the
    hub serves the connection, else what serves it in the server's thread.
    """
    try:
        taken = take(place)
    except BaseException:
        connection.closing.discard()  # it will never need the hub of this thread
        raise
    worker.watch()
    connection.open(driver, taken.socket, head, taken.read_ahead)
    if isinstance(taken.void, Void):
        taken.void.watch(partial(connection.guard, view_over))
        return None
    token = _watch_request(environ, connection, taken.void)
    # A weak reference: what nobody holds but the server may end (EventSource).
    over = weakref.WeakMethod(view_over)
    return lambda: _serve_in_thread(connection, over, token())


def _serve_in_thread(
    connection: Connection, view_over: weakref.WeakMethod[Any], token: object
) -> Iterator[bytes]:
    over = view_over()
    if over is not None:
        over(101)
    over = None
    hubs.end_in_thread(connection)
    return
    yield b""


# Threaded servers: the end of a request

_KEY = "faye_wsgi.request"
_PLAIN = (bool, int, tuple)


class _Token:
    """Lives in the server's environ, and dies with it."""

    __slots__ = ("__weakref__",)


def _watch_request(
    environ: dict[str, Any], connection: Connection, void: VoidPair
) -> weakref.ref[Any]:
    """End ``connection``, if it has not, when the server lets go of ``environ``.

    Returns what whoever serves the connection holds on to meanwhile, for its environ may be
    a copy that nobody keeps.
    """
    # Whoever keeps the environ keeps the token: a connection's owner keeps ``own_environ``.
    token = environ[_KEY] = _Token()
    weakref.finalize(token, _request_over, connection, void).atexit = False
    return weakref.ref(token)


def own_environ(
    environ: dict[str, Any], text_of: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """The environ to keep: not the server's, if that tells by its end that a request is over.

    Nor anything in it that may hold it itself, as Werkzeug's request does: its ``text_of``,
    numbers and the like.
    """
    if _KEY not in environ:
        return environ
    plain = {key: value for key, value in environ.items() if type(value) in _PLAIN}
    return {**text_of(environ), **plain}


def _request_over(connection: Connection, void: VoidPair) -> None:
    failed = has_failed(void.finish())
    code = CloseCode.INTERNAL_ERROR if failed else CloseCode.NORMAL_CLOSURE
    hubs.abandon(connection.closing, code)
    if not connection.is_elsewhere:
        hubs.release_hub()
