"""Werkzeug's development server, which ``flask run`` starts."""

from __future__ import annotations

from faye_wsgi.adapters.base import Environ, Place

__all__ = ['locate']


def locate(environ: Environ) -> Place | None:
    """Werkzeug tells its socket in the environ."""
    sock = environ.get('werkzeug.socket')
    if sock is None:
        return None
    return Place("Werkzeug's development server", sock, reader=environ['wsgi.input'])
