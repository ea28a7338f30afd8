"""The WSGI servers that are known: where each keeps a request's socket, and what it has read ahead.

Nothing here does I/O: ``wsgi.hijack`` acts on what is found. To add a server, write a function
that finds its ``Place`` in an environ, and enter it in ``_SERVERS``. Private attributes of servers
are read here only; tests/wsgi/test_hijack.py has a test for each, which fails when one changes.
"""

from __future__ import annotations

import io
from typing import Any, Callable, NamedTuple

from faye_wsgi.errors import HijackError
from faye_wsgi.wsgi.environ import Environ

__all__ = ["UNDER_ASGI", "Place", "check_http_version", "find_place", "is_asgi"]

UNDER_ASGI = (
    "this application runs under an ASGI server (its asgi.py), which has no socket for it: "
    'run its wsgi.py with "gunicorn -k gevent"'
)
# The modules of inputs that do not tell which server it is.
_COMMON = ("_io", "io", "builtins", "tempfile", "types", "socket", "werkzeug", "django")
_CURE = 'run the application with "gunicorn -k gevent" or gevent.pywsgi'


class Place(NamedTuple):
    """Where a server keeps the connection of a request.

    The bytes that it has read ahead are in ``reader`` (its buffered file on the socket),
    or ``take_buffered`` returns them. ``refusal`` is for a server whose socket can be found but
    not taken: the reason, and what to do.
    """

    server: str
    socket: Any
    reader: Any | None = None
    take_buffered: Callable[[], bytes] | None = None
    refusal: str = ""


def find_place(environ: Environ) -> Place:
    """Where this request's connection is kept; HijackError where it cannot be taken."""
    check_http_version(environ)
    _check_answered(environ)
    try:
        place = _locate(environ)
        is_there = place is None or place.reader is None or hasattr(place.reader, "peek")
    except (AttributeError, KeyError):
        is_there = False
    if not is_there:
        kind = type(environ.get("wsgi.input")).__name__
        raise HijackError(
            f"the connection of {_name(environ)} cannot be found: something has put a {kind} in "
            "the place of its wsgi.input; leave the server's own there for this request"
        )
    if place is None and _is_test_client(environ):
        raise HijackError(
            "a test client has no socket to take: write 'with faye_wsgi.testing.connect(client, "
            "path) as ws:' for a WebSocket, and connect_events for an EventSource"
        )
    if place is None:
        raise HijackError(f"the socket of {_name(environ)} cannot be taken: {_CURE}")
    if place.refusal:
        raise HijackError(f"{place.server}: {place.refusal}")
    return place


def _locate(environ: Environ) -> Place | None:
    for locate in _SERVERS:
        place = locate(environ)
        if place is not None:
            return place
    return None


def check_http_version(environ: Environ) -> None:
    """HijackError for HTTP/2, where a connection has many requests."""
    # gunicorn 27 has the socket that all streams share in the environ: taking it would end them
    # all. SERVER_PROTOCOL is the variable to look at. HTTP_VERSION is not: a client sets it with a
    # header of the name Version.
    if is_asgi(environ):
        raise HijackError(UNDER_ASGI)
    if not str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/1."):
        raise HijackError(
            f"{_name(environ)}: an HTTP/2 connection is shared by many requests and cannot "
            "be taken: serve WebSockets over HTTP/1.1"
        )


def is_asgi(environ: Environ) -> bool:
    """Whether this is the META of Django's request under an ASGI server, and no environ at all."""
    return "wsgi.input" not in environ and "SERVER_PROTOCOL" not in environ


def _check_answered(environ: Environ) -> None:
    # gevent-websocket answers each handshake before the application is called. Our answer would be
    # read as a frame: "1002: reserved bits are set".
    found = environ.get("wsgi.websocket")
    if type(found).__module__.partition(".")[0] == "geventwebsocket":
        raise HijackError(
            "gevent-websocket has answered this handshake already: leave out its "
            'handler_class=WebSocketHandler, or its worker: run gunicorn with "-k gevent"'
        )


def _is_test_client(environ: Environ) -> bool:
    """Whether the request is made by a test client: of Werkzeug, Flask, Django or WebOb."""
    if environ.get("SERVER_SOFTWARE"):
        return False
    kind = type(environ.get("wsgi.input"))
    if kind.__module__ == "django.test.client":
        return True
    return kind is io.BytesIO and not _is_bridge(environ)


def _is_bridge(environ: Environ) -> bool:
    # asgiref, hypercorn, uvicorn and a2wsgi name no server, and say both of the application.
    names_none = not environ.get("SERVER_SOFTWARE")
    both = environ.get("wsgi.multithread") and environ.get("wsgi.multiprocess")
    return bool(names_none and both)


def _name(environ: Environ) -> str:
    if environ.get("SERVER_SOFTWARE"):
        return str(environ["SERVER_SOFTWARE"])
    for key, name in (("uwsgi.version", "uWSGI"), ("mod_wsgi.version", "mod_wsgi")):
        if key in environ:
            return name
    package = type(environ.get("wsgi.input")).__module__.partition(".")[0]
    if package not in _COMMON:
        return package  # a2wsgi, bjoern, cheroot, ...
    if _is_bridge(environ):
        return "this ASGI server (hypercorn, uvicorn or another, with a bridge to WSGI)"
    return "this WSGI server"


# The servers


def _locate_gunicorn(environ: Environ) -> Place | None:
    # gunicorn puts its socket into the environ. With its own parser the bytes read ahead are in
    # the unreader below the input, with gevent.pywsgi's they are in the input's file.
    if "gunicorn.sock" in environ:
        return Place(
            "gunicorn gevent_pywsgi", environ["gunicorn.sock"], reader=_input_file(environ)
        )
    sock = environ.get("gunicorn.socket")
    if sock is None:
        return None
    if not environ.get("wsgi.multithread"):
        cure = 'it serves one request at a time: start gunicorn with "-k gevent"'
        return Place("gunicorn's sync worker", sock, refusal=cure)
    unreader = environ["wsgi.input"].reader.unreader
    return Place("gunicorn", sock, take_buffered=lambda: _take_buffered(unreader))


def _take_buffered(unreader: Any) -> bytes:
    take = getattr(unreader, "take_buffered", None)  # gunicorn 27
    if take is not None:
        return bytes(take())
    data: bytes = unreader.buf.getvalue()
    unreader.buf.seek(0)
    unreader.buf.truncate()
    return data


def _locate_pywsgi(environ: Environ) -> Place | None:
    # gevent.pywsgi has its socket nowhere but below the input's file.
    if not str(environ.get("SERVER_SOFTWARE", "")).startswith("gevent/"):
        return None
    reader = _input_file(environ)
    return Place("gevent.pywsgi", reader.raw._sock, reader=reader)


def _input_file(environ: Environ) -> Any:
    # gevent.pywsgi passes on its own file as the input if the request has Upgrade. Otherwise the
    # input is an object around it, which ends with the body.
    body = environ["wsgi.input"]
    return getattr(body, "rfile", body)


def _locate_werkzeug(environ: Environ) -> Place | None:
    # Werkzeug's development server (``flask run``) puts its socket into the environ.
    sock = environ.get("werkzeug.socket")
    if sock is None:
        return None
    return Place("Werkzeug's development server", sock, reader=environ["wsgi.input"])


def _locate_wsgiref(environ: Environ) -> Place | None:
    # The standard library's server, and Django's ``runserver`` on it. The input is the
    # buffered file on the socket; Django puts a limit around it.
    if not str(environ.get("SERVER_SOFTWARE", "")).startswith("WSGIServer/"):
        return None
    body = environ["wsgi.input"]
    reader: Any = getattr(getattr(body, "_read", None), "__self__", body)
    return Place("wsgiref", reader.raw._sock, reader=reader)


def _locate_testing(environ: Environ) -> Place | None:
    # The testing kit (``faye_wsgi.testing``) is a server of one request.
    sock = environ.get("faye_wsgi.testing.socket")
    if sock is None:
        return None
    return Place("faye_wsgi.testing", sock, reader=environ["wsgi.input"])


# The order matters: gunicorn's gevent_pywsgi worker looks like gevent.pywsgi, too.
_SERVERS = (
    _locate_gunicorn,
    _locate_pywsgi,
    _locate_werkzeug,
    _locate_wsgiref,
    _locate_testing,
)
