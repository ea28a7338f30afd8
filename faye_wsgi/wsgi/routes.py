"""The route of a request, by which metrics are told apart."""

from __future__ import annotations

from typing import Any

from faye_wsgi.wsgi.environ import Environ

__all__ = ["ROUTE_KEY", "route_of"]

ROUTE_KEY = "faye_wsgi.route"  # where an application of plain WSGI may put it


def route_of(request: Any, environ: Environ) -> str:
    """The route as the application has written it, such as ``/rooms/<room>``; '' if not known.

    Never the path: clients choose that, and each new one would be one more series for ever.
    """
    route = environ.get(ROUTE_KEY)
    if isinstance(route, str):
        return route
    # Flask's request is in the environ, too, where its view passes on that alone.
    for one in (request, environ.get("werkzeug.request")):
        for holder, name in (("url_rule", "rule"), ("resolver_match", "route")):
            route = getattr(getattr(one, holder, None), name, None)
            if isinstance(route, str):
                return route
    return ""
