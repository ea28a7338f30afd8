"""Many clients, while the workers of a server are replaced: how long until all have resumed.

Called with a port, a path and the number of clients. Each takes the id of the last message that it
got, comes back within a second at random, and names it. A message is published meanwhile, which
each client must get once. Prints one line of JSON, with ``error`` where it came to nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
import time
from collections import Counter
from contextlib import nullcontext
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
WITHOUT_NEWS = ("/connect", "/resume_own")  # of another channel, or none
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
        self.port, self.path = port, path
        self.opened: set[int] = set()
        self.resumed: set[int] = set()
        self.news: Counter[int] = Counter()
        self.failures = 0  # attempts, such as those at a worker that stops
        self.last_resumed = 0.0
        self._slots = gevent.lock.Semaphore(OPENING)
        self.greenlets = [gevent.spawn(self._live, number) for number in range(count)]

    def _live(self, number: int) -> None:
        since = ""
        while True:
            try:
                with nullcontext() if since else self._slots:
                    client, reader, since = self._open(since, number)
            except (OSError, EOFError):
                self.failures += 1
            else:
                since = self._read(client, reader, number) or since
            gevent.sleep(random.random() * BACK)

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
        news = 0
        while not (text := self._read_text(reader))[:1].isdigit():
            news += MESSAGE in text
        if news:  # not before: a client that must ask once more gets them once more
            self.news[number] += news
        client.settimeout(None)
        if since:
            self.resumed.add(number)
            self.last_resumed = time.monotonic()
        self.opened.add(number)
        return client, reader, text

    def _read_text(self, reader: Any) -> str:
        head = reader.read(2)
        if len(head) < 2 or head[0] != 0x81:
            raise EOFError("closed")
        size = head[1]
        if size >= 126:  # RFC 6455, 5.2; the news of a thousand members take 127
            form = "!H" if size == 126 else "!Q"
            size = struct.unpack(form, reader.read(struct.calcsize(form)))[0]
        return str(reader.read(size).decode())

    def _read(self, client: socket.socket, reader: Any, number: int) -> str:
        """Read until the server closes; returns the id of the last message."""
        since = ""
        try:
            while True:
                text = self._read_text(reader)
                if MESSAGE in text:
                    self.news[number] += 1
                    since = json.loads(text)["id"]
        except (OSError, EOFError):
            pass
        try:
            client.sendall(GOING)
        except OSError:
            pass
        client.close()
        return since


def cpu_of(pid: int) -> float:
    """Seconds of a process and its children, those that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(map(int, fields[11:15]))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return ticks / os.sysconf("SC_CLK_TCK") + sum(cpu_of(int(child)) for child in children)


COMMANDS = ("eval", "evalsha", "info", "ping", "publish", "subscribe", "unsubscribe")


def calls_of(server: redis.Redis) -> int:
    """How many commands Redis has got from the workers, with what their scripts publish."""
    found = server.info("commandstats")
    return int(sum(found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in COMMANDS))


def reads_of(server: redis.Redis) -> int:
    """How often Redis has read from a connection; one for each pipeline. 0 before Redis 7."""
    return int(server.info("stats").get("total_reads_processed", 0))


def wait_for(crowd: Crowd, name: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(getattr(crowd, name)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{len(getattr(crowd, name))} of {count} clients are {name}, "
                f"after {crowd.failures} failures"
            )
        gevent.sleep(0.01)


def measure(port: int, path: str, count: int) -> dict[str, Any]:
    master = int((folder_of(str(port)) / "pid").read_text())
    url = url_of(str(port))
    server, channels = redis.Redis.from_url(url), Channels(url, history=1000)
    crowd = Crowd(port, path, count)
    wait_for(crowd, "opened", count)
    gevent.sleep(1)
    cpu, calls, reads = cpu_of(master), calls_of(server), reads_of(server)
    failures, started = crowd.failures, time.monotonic()
    os.kill(master, signal.SIGHUP)
    wait_for(crowd, "resumed", 1)
    channels.publish("all", MESSAGE)
    wait_for(crowd, "resumed", count)
    gevent.sleep(2)  # the old workers end
    if path not in WITHOUT_NEWS:
        wait_for(crowd, "news", count)
    return {
        "clients": count,
        "seconds": crowd.last_resumed - started,
        "cpu_us": (cpu_of(master) - cpu) * 1e6 / count,
        "calls": (calls_of(server) - calls) / count,
        "reads": (reads_of(server) - reads) / count,
        "once": sum(number == 1 for number in crowd.news.values()),  # clients with the news once
        "failures": crowd.failures - failures,
    }


def main() -> None:
    port, path, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    try:
        figures = measure(port, path, count)
    except Exception as error:
        figures = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(figures), flush=True)
    os._exit(0)  # thousands of greenlets would be ended one by one


main()
