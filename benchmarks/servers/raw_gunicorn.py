"""The least that a WebSocket costs under gunicorn: a canned handshake, no checks, one echo.

What a library adds to this is its own; the answer to any other key than the load generator's
is wrong, and so is a message in several frames or reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from socket import SHUT_RDWR
from typing import Any

HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
CLOSE = 8


def unmasked(data: bytes) -> bytes:
    """A client's frame as a server would send it."""
    size, start = data[1] & 127, 2
    if size == 126:
        size, start = int.from_bytes(data[2:4], "big"), 4
    key, payload = data[start : start + 4], data[start + 4 : start + 4 + size]
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    plain = (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")
    return bytes((data[0], data[1] & 127)) + data[2:start] + plain


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Under either of gunicorn's workers on gevent."""
    connection = environ.get("gunicorn.socket") or environ["gunicorn.sock"]
    connection.sendall(HEAD)
    while True:
        data = connection.recv(65536)
        if not data:
            break
        connection.sendall(unmasked(data))
        if data[0] & 15 == CLOSE:
            break
    try:
        connection.shutdown(SHUT_RDWR)
    except OSError:
        pass
    start_response("101 Switching Protocols", [])
    return []
