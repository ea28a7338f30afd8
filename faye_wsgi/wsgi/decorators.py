"""What the decorators of Flask and Django have in common.

The view gets its connection. If it raises, the connection is closed with 1011.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import Any, Callable, Protocol, overload

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport.settings import check_names

__all__ = ["Decorator", "View", "check_options", "make_decorator"]

View = Callable[..., Any]

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
                _run(connection, lambda: call(view, connection, *args, **kwargs))
            return connection.response

        return mark(serve)

    return decorator


def check_options(connect: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> None:
    """TypeError or ValueError where a connection cannot be made with these options."""
    parameters = list(signature(connect).parameters)[1:]
    check_names(options, parameters)
    signature(connect).bind(None, *arguments, **options)
    connect.check_options(*arguments, **options)


def _reusable(value: Any) -> Any:
    return list(value) if isinstance(value, Iterator) else value


def _check(view: View) -> None:
    for is_one, kind in _NEVER_RUN:
        if is_one(view):
            raise TypeError(f"{kind} would never run: the view must be an ordinary function")


def _run(connection: Any, view: Callable[[], Any]) -> None:
    try:
        view()
    except BaseException as error:
        if isinstance(error, ConnectionClosed) and error.target is connection:
            return
        # The peer gets 1011. The framework logs the exception, once, as it does for any view.
        connection.__exit__(type(error), error, error.__traceback__)
        raise
