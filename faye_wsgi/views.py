"""The decorators' common part: a view is given its WebSocket, and its ending is handled."""

from __future__ import annotations

from functools import wraps
from typing import Any, Callable

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.websocket import WebSocket

__all__ = ['View', 'make_decorator']

View = Callable[..., Any]


def make_decorator(
    request_of: Callable[..., Any], call: Callable[..., Any]
) -> Callable[..., Any]:
    """A decorator for the views of a framework.

    ``request_of(*args)`` finds the request among the view's arguments, and
    ``call(view, ws, *args, **kwargs)`` puts the WebSocket among them.
    """

    def websocket(view: Any = None, /, *protocols: Any, **options: Any) -> Any:
        if callable(view) and not protocols and not options:
            return decorate(view, (), {})
        arguments = () if view is None else (view, *protocols)
        return lambda view: decorate(view, arguments, options)

    def decorate(view: View, arguments: Any, options: Any) -> View:
        @wraps(view)
        def serve(*args: Any, **kwargs: Any) -> Any:
            ws = WebSocket(request_of(*args), *arguments, **options)
            if ws.ready_state != ReadyState.CLOSED:
                _run(ws, lambda: call(view, ws, *args, **kwargs))
            return ws.response

        return serve

    return websocket


def _run(ws: WebSocket, view: Callable[[], Any]) -> None:
    try:
        view()
    except BaseException as error:
        if isinstance(error, ConnectionClosed) and error.target is ws:
            return
        # 1011 for the peer; the framework logs it, once, as it does for any view.
        ws.__exit__(type(error), error, error.__traceback__)
        raise
