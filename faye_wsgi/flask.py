"""Flask: the decorators of views that get a WebSocket or an EventSource.

@route(app, '/rooms/<room>', protocols=['chat'], ping=25)
def chat(ws, room):
    for message in ws:
        ws.send(message)

@app.route('/guarded', websocket=True)
@login_required
@websocket(ping=25)
def guarded(ws):
    ...

@app.route('/feed')
@eventsource(retry=10)
def feed(es):
    for item in items(after=es.last_event_id):
        es.send(item.json, id=item.id)

Two mistakes are visible only while requests come in, so that they are explained then, by Flask's
signals: a rule without ``websocket=True``, and a decorator above ``@app.route``.
"""

from __future__ import annotations

import logging
import weakref
from functools import lru_cache
from typing import Any, Callable

from flask import Flask, current_app, request, signals
from werkzeug.exceptions import HTTPException
from werkzeug.routing import WebsocketMismatch

from faye_wsgi.driver.server_handshake import PLAIN, STRIPPED
from faye_wsgi.eventsource import EventSource
from faye_wsgi.websocket import WebSocket
from faye_wsgi.wsgi.decorators import MARK, View, make_decorator
from faye_wsgi.wsgi.environ import is_websocket

__all__ = ["add_channels", "eventsource", "release", "route", "websocket"]

log = logging.getLogger("faye_wsgi")

# The functions below the decorators, which no rule should lead to.
_bare: weakref.WeakSet[Any] = weakref.WeakSet()


def _environ(*args: Any) -> Any:
    if not request:
        raise RuntimeError(
            "a decorated view is called by Flask, for a request: register it with "
            "@app.route(..., websocket=True) above the decorator"
        )
    return request.environ


_hooks: list[Callable[[], object]] = []


def release(function: Callable[[], Any]) -> Callable[[], Any]:
    """Call ``function()`` before each decorated view runs, and after each of its listeners.

    It gives back what a request holds, and an idle connection should not: ``@release`` above a
    function that removes a scoped session of your own. Flask-SQLAlchemy's is removed without it.
    """
    _hooks.append(function)
    return function


def _release() -> None:
    """Before a view: what ``before_request`` or a login has used would be held until its end."""
    found = current_app.extensions.get("sqlalchemy")
    session = getattr(getattr(found, "db", found), "session", None)  # ``db``: Flask-SQLAlchemy 2
    if session is not None:
        session.remove()
    _run_hooks()


def _run_hooks() -> None:
    for function in _hooks:
        function()


def _call(view: View, connection: Any, *args: Any, **kwargs: Any) -> Any:
    if _hooks:
        connection._after_listeners = _run_hooks
    # Flask passes a route's variables by name. What comes by position is a method's self.
    return view(*args, connection, **kwargs)


def _mark(serve: View) -> View:
    try:
        _bare.add(serve.__wrapped__)  # type: ignore[attr-defined]
    except TypeError:  # a callable that cannot be referred to weakly
        pass
    return serve


websocket = make_decorator(WebSocket, _environ, _call, _release, _mark)
websocket.__doc__ = """``@websocket`` or ``@websocket(protocols, **options)``, as of WebSocket.

The view gets the WebSocket as its first argument, and what it returns is not used. It goes
below ``@app.route`` and below the decorators of other extensions (``@login_required``),
which see an ordinary view. Raises TypeError for a view that would never run (a generator, an
async function), and TypeError or ValueError for a wrong option.
"""

eventsource = make_decorator(EventSource, _environ, _call, _release, _mark)
eventsource.__doc__ = """``@eventsource`` or ``@eventsource(**options)``, as of EventSource.

The same as ``websocket``, with an EventSource. When the view ends, the stream goes on as
long as something refers to it, or it has listeners.
"""

_RULE = ("endpoint", "defaults", "subdomain", "host", "strict_slashes")


def route(app: Any, rule: str, protocols: Any = None, **options: Any) -> Callable[[View], View]:
    """``@app.route(rule, websocket=True)`` and ``@websocket(protocols, **options)`` in one.

    ``app`` is a Flask application or a Blueprint. ``endpoint``, ``defaults``, ``subdomain``,
    ``host`` and ``strict_slashes`` go to the rule, all other options to the decorator. Where
    decorators such as ``@login_required`` come between, ``@websocket`` goes below them, and
    the options with it::

        @route(app, '/guarded')
        @login_required
        @websocket(ping=25)
        def guarded(ws): ...
    """
    if not callable(getattr(app, "add_url_rule", None)):
        raise TypeError("route needs the application or the Blueprint: @route(app, '/echo')")
    of_rule = {name: options.pop(name) for name in _RULE if name in options}

    def decorate(view: View) -> View:
        if not getattr(view, MARK, False):
            if hasattr(view, "__wrapped__"):
                raise TypeError(
                    "this view has decorators, which would run after the handshake: put "
                    "@websocket below them, right above the function"
                )
            decorator: Any = websocket(protocols, **options)
            view = decorator(view)
        elif protocols is not None or options:
            raise TypeError("this view has a @websocket of its own: give it the options")
        app.add_url_rule(rule, view_func=view, websocket=True, **of_rule)
        return view

    return decorate


def add_channels(
    app: Any,
    rule: str,
    channels: Any,
    authorize: Callable[[Any, str, str], Any] | None = None,
    *,
    endpoint: str = "channels",
    **options: Any,
) -> None:
    """Serve the endpoint of ``channels`` at ``rule``, for WebSockets and for all else.

    ``app`` is a Flask application or a Blueprint. ``authorize`` gets Flask's request, in its
    context, so that ``current_user`` works there; what it has taken of Flask-SQLAlchemy, and what
    ``@release`` has, is given back after each message. The other options are those of
    ``Channels.view``.
    """

    def give_back() -> None:
        _release()
        given()

    given = options.pop("release", None) or (lambda: None)
    view = channels.view(authorize, release=give_back, **options)
    app.add_url_rule(rule, endpoint, view, methods=["GET", "POST", "OPTIONS"])
    app.add_url_rule(rule, endpoint, view, websocket=True)


# Mistakes that show while requests come in


def _explain_mismatch(sender: Flask, **values: Any) -> None:
    """A request that Flask answers with 400: say why, in the log once for each rule."""
    mismatch = request.routing_exception
    if not isinstance(mismatch, WebsocketMismatch):
        return
    adapter = sender.create_url_adapter(request)
    if adapter is None:
        return
    asks = is_websocket(request)
    try:
        found: Any = adapter.match(return_rule=True, websocket=not asks)[0]
    except HTTPException:
        return
    is_ours = getattr(sender.view_functions.get(found.endpoint), MARK, False)
    if asks:
        if is_ours:  # else it is an ordinary page
            _warn_rule(str(found.rule))
        return
    is_stripped = "Sec-WebSocket-Key" in request.headers
    if is_stripped:
        _warn_stripped(str(found.rule))
    if is_ours:
        # The exception is this request's own. Its status is Flask's, for which an application may
        # have an error handler; only the text is ours.
        mismatch.description = STRIPPED if is_stripped else PLAIN


@lru_cache(maxsize=1024)
def _warn_rule(rule: str) -> None:
    log.warning(
        "Flask answers 400 to a WebSocket request for %r, since its rule is for ordinary requests: "
        "write @app.route(%r, websocket=True), or @faye_wsgi.flask.route(app, %r)",
        rule,
        rule,
        rule,
    )


@lru_cache(maxsize=1024)
def _warn_stripped(rule: str) -> None:
    log.warning("Flask answers 400 to a WebSocket request for %r: %s", rule, STRIPPED)


def _explain_order(sender: Flask, exception: BaseException, **values: Any) -> None:
    """An exception of a view: say so if its decorator does not take part."""
    if not isinstance(exception, TypeError):
        return
    view = sender.view_functions.get(request.endpoint or "")
    try:
        is_bare = view in _bare
    except TypeError:  # a callable without a hash
        return
    if is_bare and not _has_run(view, exception):
        exception.args = (
            f"{exception}. @websocket and @eventsource go below @app.route: here the rule leads "
            "to the function without its decorator",
        )


def _has_run(view: Any, exception: BaseException) -> bool:
    trace = exception.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is getattr(view, "__code__", None):
            return True
        trace = trace.tb_next
    return False


if getattr(signals, "signals_available", True):  # Flask 2.2 without blinker
    signals.request_started.connect(_explain_mismatch)
    signals.got_request_exception.connect(_explain_order)
