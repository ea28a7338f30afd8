"""WebSocket extensions, sans-I/O and public for authors of extensions.

Imports the standard library, ``faye_wsgi.errors`` and ``faye_wsgi.driver`` only.
"""
