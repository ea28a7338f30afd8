"""The only place with gevent, sockets, TLS and time.

It runs a driver on a socket, in gevent's hub. It never sees an environ or a framework. Imports the
rooms below it: ``errors``, ``http``, ``extensions``, ``driver``.
"""
