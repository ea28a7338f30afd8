"""The yardstick: a gevent socket that sends what it gets, without a protocol."""

from __future__ import annotations

import socket as native

from gevent import socket
from meter import Meter

meter = Meter()
sock = socket.create_connection(("127.0.0.1", meter.port))
sock.setsockopt(native.IPPROTO_TCP, native.TCP_NODELAY, 1)
data = meter.message.encode() * meter.window
got = 0
sock.sendall(data)
while True:
    data = sock.recv(65536)
    got += len(data)
    messages, got = divmod(got, len(meter.message))
    if not meter.goes_on(messages):
        break
    sock.sendall(data)
