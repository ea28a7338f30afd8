"""WebSocket extensions (RFC 6455 §9), sans-I/O and public for authors of extensions.

Imports ``faye_wsgi.errors`` and ``http``, and the standard library.
"""
