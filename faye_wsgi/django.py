"""Django: a view that is given its WebSocket, or its EventSource.

    @websocket(ping=25)
    def chat(request, ws, room):
        for message in ws:
            ws.send(message)

    @eventsource(retry=10)
    def feed(request, es):
        for item in items(after=es.last_event_id):
            es.send(item.json, id=item.id)

A database connection that Django would close at the end of a request is closed before
the connection is served, and after each listener, so that an idle one holds none.
"""

from __future__ import annotations

from typing import Any

from django.db import close_old_connections

from faye_wsgi.eventsource import EventSource
from faye_wsgi.views import View, make_decorator
from faye_wsgi.websocket import WebSocket

__all__ = ['eventsource', 'websocket']


def _request(request: Any, *args: Any) -> Any:
    return request


def _call(view: View, connection: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    return view(request, connection, *args, **kwargs)


#: ``@websocket`` or ``@websocket(protocols, **options)``, with the options of WebSocket:
#: the view gets the request and the WebSocket, and what it returns is not used. It goes
#: below Django's own decorators (``@login_required``), which see an ordinary view.
websocket = make_decorator(WebSocket, _request, _call, close_old_connections)

#: ``@eventsource`` or ``@eventsource(**options)``, the same with an EventSource. When the
#: view ends, the stream goes on as long as anybody holds it or listens to it.
eventsource = make_decorator(EventSource, _request, _call, close_old_connections)
