"""Taking a request's connection: who serves it from now on, and how its view's end is learnt."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable

from faye_wsgi.adapters.base import Place
from faye_wsgi.driver.base import Driver
from faye_wsgi.frameworks import Serve
from faye_wsgi.transport import threads
from faye_wsgi.transport.connection import Connection
from faye_wsgi.transport.hijack import Void, take

__all__ = ['ViewOver', 'take_over']

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
        connection.is_over = True  # it will never need the hub of this thread
        raise
    connection.open(driver, taken.socket, head, taken.read_ahead)
    if isinstance(taken.void, Void):
        taken.void.watch(partial(connection.guard, view_over))
        return None
    token = threads.watch_request(environ, connection, taken.void)
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
    threads.end_in_thread(connection)
    return
    yield b''
