"""What to do about errors of listeners that have one usual cause.

A listener runs when the request may be over, and never in its context. Flask's proxies
(``request``, ``session``, ``g``, ``current_app``) raise RuntimeError there, and Flask-Login's
``current_user`` is None. Only these two are recognised, by the proxy itself and not by the error's
text: an application may raise the same.
"""

from __future__ import annotations

from types import FrameType, TracebackType
from typing import Any

from faye_wsgi.transport import dispatcher

__all__ = ["find_hint", "give"]

_PROXIES = "werkzeug.local"  # the module of Flask's proxies
_HINT = (
    "A listener runs outside of Flask's request, where request, session, g and current_user are "
    "gone: keep their values in the view (user_id = current_user.id), and put what needs the "
    "application into 'with app.app_context():'"
)


def give() -> None:
    """Add a hint to the log's entries for listeners that raise, from now on."""
    dispatcher.find_hint = find_hint


def find_hint(error: BaseException) -> str:
    """What the application has to do; '' where the cause is not known."""
    trace = error.__traceback__
    if trace is None:
        return ""
    frame = _innermost(trace)
    if isinstance(error, RuntimeError):
        # The only RuntimeError that this module raises is that of a proxy without a context.
        is_missing = frame.f_globals.get("__name__") == _PROXIES
    else:
        is_missing = isinstance(error, AttributeError) and _is_of_none(error, frame)
    return _HINT if is_missing else ""


def _innermost(trace: TracebackType) -> FrameType:
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame


def _is_of_none(error: AttributeError, frame: FrameType) -> bool:
    """Whether an attribute of None was asked for, where a proxy for None is in use."""
    if "'NoneType' object" not in str(error):
        return False
    code = frame.f_code
    variables = {**frame.f_globals, **frame.f_locals}
    names = (*code.co_names, *code.co_varnames, *code.co_freevars)
    return any(_stands_for_none(variables.get(name)) for name in names)


def _stands_for_none(value: Any) -> bool:
    if type(value).__module__ != _PROXIES or type(value).__name__ != "LocalProxy":
        return False
    try:
        return value._get_current_object() is None
    except Exception:  # it calls a function of the application
        return False
