"""One file a WSGI server: says where its socket and its read-ahead are in an environ.

Adapters look and do no I/O; ``transport.hijack`` acts on what they say.
"""
