"""The standard library's server, and Django's ``runserver`` on it."""

from __future__ import annotations

from typing import Any

from faye_wsgi.adapters.base import Environ, Place

__all__ = ['locate']


def locate(environ: Environ) -> Place | None:
    """The input is the buffered file on the socket; Django puts a limit around it."""
    if not str(environ.get('SERVER_SOFTWARE', '')).startswith('WSGIServer/'):
        return None
    body = environ['wsgi.input']
    reader: Any = getattr(getattr(body, '_read', None), '__self__', body)
    return Place('wsgiref', reader.raw._sock, reader=reader)
