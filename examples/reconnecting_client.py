"""A client that connects again, for as long as it runs, and prints what it gets.

    python examples/reconnecting_client.py ws://127.0.0.1:8000/echo

Each pause between two attempts is longer than the last one, up to a minute, and cut at random,
so that a server that comes back is not met by all clients at once.
"""

from __future__ import annotations

import logging
import sys

from faye_wsgi import Client, ConnectionClosed

logging.basicConfig(level=logging.INFO)  # why a connection was lost, and when the next one is made


def main(url: str) -> None:
    for ws in Client.reconnecting(url, first_delay=0.5, ping=25):
        try:
            ws.send("hello")
            for message in ws:
                print(message, flush=True)
        except ConnectionClosed:
            pass  # lost: the loop makes the next connection


if __name__ == "__main__":
    main(sys.argv[1])
