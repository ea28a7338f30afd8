"""The yardstick: gevent's own server, echoing bytes with recv and sendall, and no protocol."""
from __future__ import annotations

import sys

from gevent import socket
from gevent.server import StreamServer


def echo(connection: socket.socket, address: object) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        data = connection.recv(65536)
        if not data:
            return
        connection.sendall(data)


StreamServer(('127.0.0.1', int(sys.argv[1])), echo, backlog=2048).serve_forever()
