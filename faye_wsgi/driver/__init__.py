"""The protocols, sans-I/O: bytes in, messages, events and bytes out.

Nothing in this folder uses a socket, a clock, a greenlet or a WSGI environ. It imports
``faye_wsgi.errors``, ``http`` and ``extensions``, and the standard library.
"""
