"""Connections on threaded servers: each is served by its view's thread and that thread's hub.

The hub lives as long as something is served in the thread. A view that raises, or that
returns another response than its WebSocket's, leaves nobody to serve the connection: it
is ended when the server lets go of the request.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import gevent
from greenlet import getcurrent

from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.transport import worker
from faye_wsgi.transport.connection import Connection
from faye_wsgi.transport.hijack import Void

__all__ = ['release_hub', 'watch_request']

_KEY = 'faye_wsgi.request'


class _Token:
    """Lives in the server's environ, and dies with it."""

    __slots__ = ('__weakref__',)


def watch_request(environ: dict[str, Any], connection: Connection, void: Void) -> dict[str, Any]:
    """End ``connection`` when the server lets go of ``environ``; returns a copy of it to keep."""
    kept = dict(environ)
    token = environ[_KEY] = _Token()
    weakref.finalize(token, _request_over, connection, void).atexit = False
    return kept


def _request_over(connection: Connection, void: Void) -> None:
    status = void.finish()
    failed = status is not None and status >= 500
    connection.abandon(CloseCode.INTERNAL_ERROR if failed else CloseCode.NORMAL_CLOSURE)
    if not connection.is_elsewhere:
        release_hub()


def release_hub() -> None:
    """Destroy this thread's hub (it holds descriptors), unless it still serves something."""
    if threading.current_thread() is not threading.main_thread():
        hub = gevent.get_hub()
        if not worker.serves(hub) and getcurrent() is not hub:
            hub.destroy(destroy_loop=True)
