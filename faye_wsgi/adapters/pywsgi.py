"""gevent.pywsgi."""

from __future__ import annotations

from typing import Any

from faye_wsgi.adapters.base import Environ, Place

__all__ = ['input_file', 'locate']


def locate(environ: Environ) -> Place | None:
    """The socket is below the input's file."""
    if not str(environ.get('SERVER_SOFTWARE', '')).startswith('gevent/'):
        return None
    reader = input_file(environ)
    return Place('gevent.pywsgi', reader.raw._sock, reader=reader)


def input_file(environ: Environ) -> Any:
    """The buffered file on the socket: with Upgrade the input itself, else inside it."""
    body = environ['wsgi.input']
    return getattr(body, 'rfile', body)
