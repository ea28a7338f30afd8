"""The yardstick: gevent's own server, without a protocol: an echo, with TLS or not, or a feed."""

from __future__ import annotations

import sys

from gevent import socket
from gevent.server import StreamServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
EVENT = b"data: " + b"x" * 100 + b"\n\n"


def echo(connection: socket.socket, address: object) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        data = connection.recv(65536)
        if not data:
            return
        connection.sendall(data)


def feed(connection: socket.socket, address: object) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.recv(65536)
    connection.sendall(HEAD)
    try:
        while True:
            connection.sendall(EVENT)
    except OSError:
        pass


port, *what = sys.argv[1:]
secure = {"certfile": what[1], "keyfile": what[2]} if what[:1] == ["tls"] else {}
serve = feed if what == ["feed"] else echo
StreamServer(("127.0.0.1", int(port)), serve, backlog=2048, **secure).serve_forever()
