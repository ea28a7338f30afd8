"""Everything that touches a request: its environ, its server, its socket, its response.

Imports the rooms below it: ``errors``, ``http``, ``extensions``, ``driver``, ``transport``.
"""
