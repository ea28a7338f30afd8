"""The echo of websockets, with its threads; compression and pings off, as in the others."""

from __future__ import annotations

import sys
from typing import Any

from websockets.sync.server import serve


def echo(connection: Any) -> None:
    for message in connection:
        connection.send(message)


with serve(
    echo, "127.0.0.1", int(sys.argv[1]), compression=None, ping_interval=None, max_size=None
) as server:
    server.socket.listen(2048)
    server.serve_forever()
