"""Many clients, while the workers of a server are replaced: how long until all have resumed.

Called with a port, a path and the number of clients. Each takes the id of the last message that it
got, comes back within a second at random, and names it. A message is published meanwhile, which
each client must get once. Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import gevent.lock
import redis
from gevent import socket

sys.path.append(str(Path(__file__).resolve().parent.parent / "servers"))
from with_redis import folder_of, url_of  # noqa: E402

from faye_wsgi import Channels  # noqa: E402

OPENING = 200  # at once, at first
BACK = 1.0  # seconds, within which a client comes back
PATIENCE = 100.0
MESSAGE = "news"
HEAD = (
    "GET {}?since={}&id={} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# The client's half of the closing handshake: 1001, with a masking key of zeros.
GOING = b"\x88\x82\0\0\0\0" + struct.pack("!H", 1001)


class Crowd:
    """The clients, and what they have noticed."""

    def __init__(self, port: int, path: str, count: int) -> None:
        self.port, self.path, self.count = port, path, count
        self.opened = 0
        self.resumed = 0
        self.news = 0
        self.last_resumed = 0.0
        self._slots = gevent.lock.Semaphore(OPENING)
        self.greenlets = [gevent.spawn(self._live, number) for number in range(count)]

    def _live(self, number: int) -> None:
        with self._slots:
            client, reader, since = self._open("", number)
        self.opened += 1
        self._read(client, reader)
        while True:
            gevent.sleep(random.random() * BACK)
            try:
                client, reader, _ = self._open(since, number)
                break
            except (OSError, EOFError):
                continue
        self.resumed += 1
        self.last_resumed = time.monotonic()
        self._read(client, reader)

    def _open(self, since: str, number: int) -> tuple[socket.socket, Any, str]:
        """Connect, and wait for the place that the server names."""
        client = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        client.sendall(HEAD.format(self.path, since, number).encode())
        reader = client.makefile("rb")
        line = reader.readline()
        if b"101" not in line:
            raise EOFError("no WebSocket")
        while line.strip():
            line = reader.readline()
        # The replay comes before the place.
        while not (text := self._read_text(reader))[:1].isdigit():
            self.news += MESSAGE in text
        client.settimeout(None)
        return client, reader, text

    def _read_text(self, reader: Any) -> str:
        head = reader.read(2)
        if len(head) < 2 or head[0] != 0x81:
            raise EOFError("closed")
        size = head[1]
        if size == 126:
            size = struct.unpack("!H", reader.read(2))[0]
        return str(reader.read(size).decode())

    def _read(self, client: socket.socket, reader: Any) -> None:
        """Read until the server closes."""
        try:
            while True:
                self.news += MESSAGE in self._read_text(reader)
        except (OSError, EOFError):
            pass
        try:
            client.sendall(GOING)
        except OSError:
            pass
        client.close()


def cpu_of(pid: int) -> float:
    """Seconds of a process and its children, those that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(map(int, fields[11:15]))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return ticks / os.sysconf("SC_CLK_TCK") + sum(cpu_of(int(child)) for child in children)


COMMANDS = ("eval", "evalsha", "info", "ping", "publish", "subscribe", "unsubscribe")


def calls_of(server: redis.Redis) -> int:
    """How many commands Redis has got from the workers; scripts publish next to nothing here."""
    found = server.info("commandstats")
    return int(sum(found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in COMMANDS))


def reads_of(server: redis.Redis) -> int:
    """How often Redis has read from a connection; one for each pipeline. 0 before Redis 7."""
    return int(server.info("stats").get("total_reads_processed", 0))


def wait_for(crowd: Crowd, name: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while getattr(crowd, name) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{getattr(crowd, name)} of {count} clients are {name}")
        gevent.sleep(0.01)


def main() -> None:
    port, path, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    master = int((folder_of(str(port)) / "pid").read_text())
    url = url_of(str(port))
    server, channels = redis.Redis.from_url(url), Channels(url, history=1000)
    crowd = Crowd(port, path, count)
    wait_for(crowd, "opened", count)
    gevent.sleep(1)
    cpu, calls, reads = cpu_of(master), calls_of(server), reads_of(server)
    started = time.monotonic()
    os.kill(master, signal.SIGHUP)
    wait_for(crowd, "resumed", 1)
    channels.publish("all", MESSAGE)
    wait_for(crowd, "resumed", count)
    gevent.sleep(2)  # the old workers end, and the news reach the last client
    figures = {
        "clients": count,
        "seconds": crowd.last_resumed - started,
        "cpu_us": (cpu_of(master) - cpu) * 1e6 / count,
        "calls": (calls_of(server) - calls) / count,
        "reads": (reads_of(server) - reads) / count,
        "news": crowd.news,
    }
    print(json.dumps(figures), flush=True)
    os._exit(0)  # thousands of greenlets would be ended one by one


main()
