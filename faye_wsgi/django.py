"""Django: the decorators of views that get a WebSocket or an EventSource.

    @websocket(ping=25)
    def chat(request, ws, room):
        for message in ws:
            ws.send(message)

    @eventsource(retry=10)
    def feed(request, es):
        for item in items(after=es.last_event_id):
            es.send(item.json, id=item.id)

Database connections that Django would close at the end of a request are closed before the
view runs, and after each listener, so that an idle WebSocket holds none. Nor does it hold a
transaction: ``ATOMIC_REQUESTS`` leaves these views out.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from faye_wsgi.eventsource import EventSource
from faye_wsgi.websocket import WebSocket
from faye_wsgi.wsgi.decorators import View, make_decorator
from faye_wsgi.wsgi.responses import close_idle_connections

__all__ = ["eventsource", "websocket"]


def _request(*args: Any) -> Any:
    if not args or not hasattr(args[0], "META"):
        kind = type(args[0]).__name__ if args else "nothing"
        raise TypeError(
            f"a decorated view gets the request first, not {kind}: write "
            "@method_decorator(websocket) where it is a method, and call it for a request"
        )
    return args[0]


def _call(view: View, connection: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    return view(request, connection, *args, **kwargs)


def _not_atomic(view: View) -> View:
    # ATOMIC_REQUESTS puts a transaction around each view. Around one that lasts for hours it
    # would hold its locks as long.
    try:
        aliases = list(connections)
    except ImproperlyConfigured:  # imported without settings
        aliases = [DEFAULT_DB_ALIAS]
    for alias in aliases:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


websocket = make_decorator(WebSocket, _request, _call, close_idle_connections, _not_atomic)
websocket.__doc__ = """``@websocket`` or ``@websocket(protocols, **options)``, as of WebSocket.

The view gets the request and the WebSocket, and what it returns is not used. It goes below
Django's own decorators (``@login_required``), which see an ordinary view. Raises TypeError
for a view that would never run (a generator, an async function), and for an option that
there is not.
"""

eventsource = make_decorator(EventSource, _request, _call, close_idle_connections, _not_atomic)
eventsource.__doc__ = """``@eventsource`` or ``@eventsource(**options)``, as of EventSource.

The same as ``websocket``, with an EventSource. When the view ends, the stream goes on as
long as something refers to it, or it has listeners.
"""
