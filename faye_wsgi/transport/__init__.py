"""The only place with gevent, sockets, TLS and time.

It drives a driver over a socket, in the hub; it knows neither environs nor users.
"""
