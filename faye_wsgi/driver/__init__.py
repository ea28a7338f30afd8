"""The protocols, sans-I/O: bytes in, events and bytes out.

Nothing in this folder knows a socket, a clock, a greenlet or a WSGI environ; it
imports the standard library and ``faye_wsgi.errors`` only.
"""
