"""Flask: a view that is given its WebSocket.

    @app.route('/rooms/<room>', websocket=True)
    @websocket(protocols=['chat'], ping=25)
    def chat(ws, room):
        for message in ws:
            ws.send(message)
"""

from __future__ import annotations

from typing import Any

from flask import request

from faye_wsgi.views import View, make_decorator

__all__ = ['websocket']


def _environ(*args: Any) -> Any:
    return request.environ


def _call(view: View, ws: Any, *args: Any, **kwargs: Any) -> Any:
    return view(ws, *args, **kwargs)


#: ``@websocket`` or ``@websocket(protocols, **options)``, with the options of WebSocket:
#: the view gets the WebSocket as its first argument, and what it returns is not used. It
#: goes below ``@app.route`` and below the decorators of other extensions
#: (``@login_required``), which see an ordinary view.
websocket = make_decorator(_environ, _call)
