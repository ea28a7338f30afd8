"""Connections in threads without a running hub: each is served by its own thread and its hub.

On threaded servers that is the view's thread, and the hub lives as long as something is
served in it. A view that raises, or that returns another response than its WebSocket's,
leaves nobody to serve the connection: it is ended when the server lets go of the request.
What a client has made in a thread ends with the thread.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Callable

import gevent
from gevent.exceptions import HubDestroyed, LoopExit
from gevent.monkey import get_original
from greenlet import getcurrent

from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.transport import worker
from faye_wsgi.transport.connection import Connection
from faye_wsgi.transport.hijack import VoidPair, has_failed

__all__ = [
    'end_alone',
    'end_in_thread',
    'is_alone',
    'own_environ',
    'release_hub',
    'tell_in_thread',
    'watch_request',
    'watch_thread',
]

_start_new_thread = get_original('_thread', 'start_new_thread')

_KEY = 'faye_wsgi.request'
_PLAIN = (bool, int, tuple)


class _Token:
    """Lives in the server's environ, and dies with it."""

    __slots__ = ('__weakref__',)


def watch_request(
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
    _abandon(connection, CloseCode.INTERNAL_ERROR if failed else CloseCode.NORMAL_CLOSURE)
    if not connection.is_elsewhere:
        release_hub()


def _abandon(connection: worker.Member, code: int) -> None:
    if connection.abandon(code):
        # Not here: whoever lets go of the request, or collects garbage, may hold any lock.
        tell_in_thread(connection)


def tell_in_thread(connection: worker.Member) -> None:
    """Tell listeners what waits for them in a new thread: no hub runs that could."""
    _start_new_thread(_tell, (connection,))


def _tell(connection: worker.Member) -> None:
    connection.tell_here()
    release_hub()


class _ThreadEnd:
    """Ends with a thread, and with it the hub that was made there.

    gevent would leave the hub's descriptors behind.
    """

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.process = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.process:
            return  # in the child of a fork, which has but one thread: ours did not end
        for connection in worker.members(self.hub):
            _abandon(connection, CloseCode.GOING_AWAY)
        loop, self.hub.loop = self.hub.loop, None  # so that nothing more is asked of it
        if loop is not None:
            loop.destroy()


_here = get_original('_thread', '_local')()


def watch_thread() -> None:
    """End with this thread what is about to be made in it, its hub included."""
    if gevent._hub_local.get_hub_if_exists() is None:
        hub = gevent.get_hub()
        if not hub.loop.default:
            _here.end = _ThreadEnd(hub)


def is_alone() -> bool:
    """Whether the caller is no greenlet of a hub's, which thus runs only while it waits."""
    return getcurrent().parent is None


def end_in_thread(connection: Connection) -> None:
    """Wait for the end of a connection whose thread is about to leave it."""
    connection.wait_told()
    gevent.sleep(0)  # for what other threads have asked of the hub
    connection.leave_hub()
    release_hub()


def end_alone(connection: Connection) -> None:
    """The same for one that is being closed, where the caller alone runs its hub."""
    if is_alone() and not connection.is_elsewhere:
        connection.wait_told()
        gevent.sleep(0)
        end, hub = getattr(_here, 'end', None), gevent.get_hub()
        if end is not None and end.hub is hub and not hub.loop.activecnt:
            release_hub()


def release_hub() -> None:
    """Destroy this thread's hub (it holds descriptors), unless it still serves something."""
    try:
        hub = gevent._hub_local.get_hub_if_exists()
    except AttributeError:
        return  # the thread ends, and what was local to it has gone
    if hub is None or getcurrent() is hub:
        return
    if threading.current_thread() is not threading.main_thread() and worker.release(hub):
        _destroy(hub)


def _destroy(hub: Any) -> None:
    pool, hub.threadpool = hub._threadpool, None
    if pool is not None:
        pool.kill()  # which needs the hub to run
    # The first throw ends the hub's loop, and leaves it suspended in the raising of a LoopExit
    # that holds it and the frames of whoever called, out of the garbage collector's sight. The
    # second one, in destroy(), lets it end.
    try:
        hub.throw(HubDestroyed(True))
    except LoopExit:
        pass
    hub.destroy(destroy_loop=True)
