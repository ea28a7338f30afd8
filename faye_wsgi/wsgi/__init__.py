"""Everything that touches a request: its environ, its server, the taking of its socket.

Imports the rooms below it: ``errors``, ``http``, ``extensions``, ``driver``, ``transport``.
"""
