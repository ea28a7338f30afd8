"""The common part of the decorators for Flask and Django.

The view gets its connection. If it raises, the connection is closed with 1011, and so it is if it
returns the response of an error or a redirect.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import Any, Callable, Protocol, overload

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.errors import is_end_of
from faye_wsgi.transport.settings import check_names

__all__ = ["MARK", "Decorator", "View", "check_options", "make_decorator"]

log = logging.getLogger("faye_wsgi")

View = Callable[..., Any]
MARK = "_faye_wsgi_decorated"

_NEVER_RUN = (
    (isgeneratorfunction, "a generator"),
    (iscoroutinefunction, "an async function"),
    (isasyncgenfunction, "an async generator"),
)


class Decorator(Protocol):
    """``@websocket`` alone, or with the arguments of a connection, ``@websocket(ping=25)``."""

    @overload
    def __call__(self, view: View, /) -> View: ...

    @overload
    def __call__(self, protocols: Any = None, /, **options: Any) -> Callable[[View], View]: ...


def make_decorator(
    connect: Any,
    request_of: Callable[..., Any],
    call: Callable[..., Any],
    before: Callable[[], object] = lambda: None,
    mark: Callable[[View], View] = lambda view: view,
) -> Decorator:
    """A decorator for the views of a framework.

    ``connect(request, *args, **options)`` makes the WebSocket or EventSource,
    ``connect.check_options`` checks the options without a request,
    ``request_of(*args)`` finds the request among the view's arguments, and
    ``call(view, connection, *args, **kwargs)`` calls the view with the connection among them.
    ``before()`` is called before the view, and ``mark`` gets the view that the framework sees.
    """

    def decorator(view: Any = None, /, *positional: Any, **options: Any) -> Any:
        if callable(view) and not positional and not options:
            return decorate(view, (), {})
        arguments = () if view is None else (view, *positional)
        return lambda view: decorate(view, arguments, options)

    def decorate(view: View, arguments: Any, options: Any) -> View:
        _check(view)
        # Each request gets the options anew, and an iterator has its items once.
        arguments = tuple(map(_reusable, arguments))
        options = {name: _reusable(value) for name, value in options.items()}
        # TypeError or ValueError for wrong options: now, and not at the first request.
        check_options(connect, arguments, options)

        @wraps(view)
        def serve(*args: Any, **kwargs: Any) -> Any:
            # In a list, from which it is taken, so that this frame does not refer to it. An
            # exception that ``before`` has handled may keep the frame (Django's does on Python
            # 3.9), and an EventSource would live as long.
            made = [connect(request_of(*args), *arguments, **options)]
            before()
            return run(made.pop(), args, kwargs)

        def run(connection: Any, args: Any, kwargs: Any) -> Any:
            if connection.ready_state != ReadyState.CLOSED:
                result = _run(connection, lambda: call(view, connection, *args, **kwargs))
                if result is not None:
                    judge(connection, result)
            return connection.response

        def judge(connection: Any, result: Any) -> None:
            # Most often ``result`` is the page or the redirect of a decorator below this one,
            # which has refused the request: too late, for the handshake has gone out.
            if result is connection.response:
                return
            name = getattr(view, "__qualname__", repr(view))
            _warn_once(name, type(result).__name__)
            if _status_of(result) >= 300:
                connection._handover.close_failed()
                connection.close()  # a stream whose socket could not be taken

        setattr(serve, MARK, True)  # noqa: B010 - ``wraps`` copies it to the decorators above
        return mark(serve)

    return decorator


def check_options(connect: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> None:
    """TypeError or ValueError where a connection cannot be made with these options."""
    shown = signature(connect)
    request, *names = shown.parameters
    check_names(options, names)
    bound = shown.bind(None, *arguments, **options)
    bound.apply_defaults()
    del bound.arguments[request]
    connect.check_options(**bound.arguments)


def _reusable(value: Any) -> Any:
    return list(value) if isinstance(value, Iterator) else value


def _check(view: View) -> None:
    for is_one, kind in _NEVER_RUN:
        if is_one(view):
            raise TypeError(f"{kind} would never run: the view must be an ordinary function")


def _run(connection: Any, view: Callable[[], Any]) -> Any:
    try:
        return view()
    except BaseException as error:
        if is_end_of(connection, error):
            return None
        # The peer gets 1011. The framework logs the exception, once, as it does for any view.
        connection.__exit__(type(error), error, error.__traceback__)
        raise


@lru_cache(maxsize=1024)
def _warn_once(view: str, kind: str) -> None:
    log.warning(
        "the view %s has returned a %s, which is not used, since the handshake is over: put "
        "decorators that answer the request (such as login_required) above this package's",
        view,
        kind,
    )


def _status_of(result: Any) -> int:
    """The HTTP status of what a view has returned; 0 where it has none."""
    status = getattr(result, "status_code", None)
    if isinstance(result, tuple) and len(result) > 1:  # Flask: a body and its status
        status = result[1]
    return status if isinstance(status, int) else 0
