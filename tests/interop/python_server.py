"""A server of the `websockets` library, as a process of its own: it prints its port.

What it does is in the path, as in node/server.js. It ends with its standard input.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from websockets.sync.server import serve

PROTOCOLS: Any = ["irc", "amqp"]


def choose(connection: Any, offered: Any) -> Any:
    """The first that we speak; none in common opens too, unlike the default."""
    return next((name for name in offered if name in PROTOCOLS), None)


def handle(connection: Any) -> None:
    path = connection.request.path
    if path == "/echo":
        for message in connection:
            connection.send(message)
    elif path == "/close":
        connection.close(4001, "because")
    elif path == "/ping":
        connection.ping("hello").wait(5)
        connection.send("pong hello")
        for _ in connection:
            pass
    elif path == "/fragments":
        connection.send(iter(["one ", "two ", "three"]))
        for _ in connection:
            pass
    elif path == "/terminate":
        connection.socket.shutdown(2)


def main() -> None:
    options: Any = {"subprotocols": PROTOCOLS, "select_subprotocol": choose}
    with serve(handle, "127.0.0.1", 0, **options) as server:
        threading.Thread(target=wait_for_the_end, daemon=True).start()
        print(server.socket.getsockname()[1], flush=True)
        server.serve_forever()


def wait_for_the_end() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
