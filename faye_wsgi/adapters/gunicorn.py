"""gunicorn's workers: gevent, gthread and sync with its own parser, gevent_pywsgi with gevent's."""

from __future__ import annotations

from typing import Any

from faye_wsgi.adapters.base import Environ, Place
from faye_wsgi.adapters.pywsgi import input_file

__all__ = ['locate']


def locate(environ: Environ) -> Place | None:
    """gunicorn tells its socket in the environ: under one key, or under another."""
    if 'gunicorn.sock' in environ:
        return Place(
            'gunicorn gevent_pywsgi', environ['gunicorn.sock'], reader=input_file(environ)
        )
    sock = environ.get('gunicorn.socket')
    if sock is None:
        return None

    if not environ.get('wsgi.multithread'):
        cure = 'it serves one request at a time: start gunicorn with "-k gevent"'
        return Place("gunicorn's sync worker", sock, refusal=cure)
    unreader = environ['wsgi.input'].reader.unreader
    return Place('gunicorn', sock, take_buffered=lambda: _take_buffered(unreader))


def _take_buffered(unreader: Any) -> bytes:
    take = getattr(unreader, 'take_buffered', None)  # gunicorn 27
    if take is not None:
        return bytes(take())
    data: bytes = unreader.buf.getvalue()
    unreader.buf.seek(0)
    unreader.buf.truncate()
    return data
