"""Flask: the decorators of views that get a WebSocket or an EventSource.

@app.route('/rooms/<room>', websocket=True)
@websocket(protocols=['chat'], ping=25)
def chat(ws, room):
    for message in ws:
        ws.send(message)

@app.route('/feed')
@eventsource(retry=10)
def feed(es):
    for item in items(after=es.last_event_id):
        es.send(item.json, id=item.id)
"""

from __future__ import annotations

from typing import Any

from flask import request

from faye_wsgi.eventsource import EventSource
from faye_wsgi.websocket import WebSocket
from faye_wsgi.wsgi.decorators import View, make_decorator

__all__ = ["eventsource", "websocket"]


def _environ(*args: Any) -> Any:
    return request.environ


def _call(view: View, connection: Any, *args: Any, **kwargs: Any) -> Any:
    # Flask passes a route's variables by name. What comes by position is a method's self.
    return view(*args, connection, **kwargs)


websocket = make_decorator(WebSocket, _environ, _call)
websocket.__doc__ = """``@websocket`` or ``@websocket(protocols, **options)``, as of WebSocket.

The view gets the WebSocket as its first argument, and what it returns is not used. It goes
below ``@app.route`` and below the decorators of other extensions (``@login_required``),
which see an ordinary view. Raises TypeError for a view that would never run (a generator, an
async function), and for an option that there is not.
"""

eventsource = make_decorator(EventSource, _environ, _call)
eventsource.__doc__ = """``@eventsource`` or ``@eventsource(**options)``, as of EventSource.

The same as ``websocket``, with an EventSource. When the view ends, the stream goes on as
long as something refers to it, or it has listeners.
"""
