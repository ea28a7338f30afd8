"""The servers that are known, in the order in which they are asked."""

from __future__ import annotations

from faye_wsgi.adapters import gunicorn, pywsgi, werkzeug, wsgiref
from faye_wsgi.adapters.base import Environ, Place
from faye_wsgi.errors import HijackError

__all__ = ['check_http_version', 'find_place']

_ADAPTERS = (gunicorn.locate, pywsgi.locate, werkzeug.locate, wsgiref.locate)

_CURE = 'run the application with "gunicorn -k gevent" or gevent.pywsgi'


def find_place(environ: Environ) -> Place:
    """Where this request's connection is kept; HijackError where it cannot be taken."""
    check_http_version(environ)
    try:
        place = _locate(environ)
        is_there = place is None or place.reader is None or hasattr(place.reader, 'peek')
    except (AttributeError, KeyError):
        is_there = False
    if not is_there:
        kind = type(environ.get('wsgi.input')).__name__
        raise HijackError(
            f'the connection of {_name(environ)} cannot be found: something has put a {kind} in '
            "the place of its wsgi.input; leave the server's own there for this request"
        )
    if place is None:
        raise HijackError(f'the socket of {_name(environ)} cannot be taken: {_CURE}')
    if place.refusal:
        raise HijackError(f'{place.server}: {place.refusal}')
    return place


def _locate(environ: Environ) -> Place | None:
    for locate in _ADAPTERS:
        place = locate(environ)
        if place is not None:
            return place
    return None


def check_http_version(environ: Environ) -> None:
    """HijackError unless the connection is this request's alone."""
    # By SERVER_PROTOCOL, which no client's header can set. On HTTP/2 the socket is shared
    # by all streams of the connection: taking it would end them.
    if not str(environ.get('SERVER_PROTOCOL', '')).startswith('HTTP/1.'):
        raise HijackError(
            f'{_name(environ)}: an HTTP/2 connection is shared by many requests and cannot '
            'be taken: serve WebSockets over HTTP/1.1'
        )


def _name(environ: Environ) -> str:
    return environ.get('SERVER_SOFTWARE') or 'this WSGI server'
