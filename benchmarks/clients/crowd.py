"""A part of the clients of stampede.py: each comes back when it is sent away, and counts.

Called with a port, a kind of client, their number, the seconds after which they come back and the
cursor to begin with. Event streams come back after the last ``retry``, as browsers do, unless these
seconds are above 0. It reads commands, and answers each with a line of JSON when it is true:
``opened`` and ``back`` of all clients, ``got N`` for the message with this number. ``report`` is
answered at once.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from collections import Counter
from typing import Any

import gevent
from gevent import socket

RATE = 100  # clients that are opened in a second, at first
PATIENCE = 300.0
MOST = 1000  # messages
HEADS = {
    "websocket": (
        "GET /resume?since={} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
    "eventsource": (
        "GET /resume_events?since={} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Accept: text/event-stream\r\n\r\n"
    ),
}


class Client:
    """One client, and what it has got."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd, self._number = crowd, number
        self._since, self._wait = crowd.since, crowd.wait
        self.seen = bytearray(MOST)
        self.opened = 0

    def live(self) -> None:
        gevent.sleep(self._number / RATE)
        while True:
            self._crowd.attempts.append(time.monotonic())
            try:
                self._connect()
            except (OSError, EOFError):
                pass  # it was sent away, or could not come
            gevent.sleep(self._wait or 1.0)

    def _connect(self) -> None:
        crowd = self._crowd
        with socket.create_connection(("127.0.0.1", crowd.port), PATIENCE) as sock:
            sock.sendall(HEADS[crowd.kind].format(self._since).encode())
            reader = sock.makefile("rb")
            status = reader.readline()
            if b" 101 " not in status and b" 200 " not in status:
                crowd.ends["refused"] += 1
                raise EOFError
            while reader.readline().strip():
                pass
            self.opened += 1
            sock.settimeout(None)
            read = self._read_frames if crowd.kind == "websocket" else self._read_events
            try:
                read(sock, reader)
            except (OSError, EOFError):
                crowd.ends["lost"] += 1

    def _read_frames(self, sock: socket.socket, reader: Any) -> None:
        while True:
            head = reader.read(2)
            if len(head) < 2:
                raise EOFError
            size = head[1]
            if size == 126:  # RFC 6455, 5.2
                (size,) = struct.unpack("!H", reader.read(2))
            payload = reader.read(size)
            if head[0] == 0x88:
                self._crowd.ends[str(int.from_bytes(payload[:2], "big"))] += 1
                sock.sendall(b"\x88\x82\0\0\0\0" + payload[:2])
                return
            if payload[:1] == b"{":
                self._take(json.loads(payload))
            else:
                self._since = payload.decode()  # where it begins

    def _read_events(self, sock: socket.socket, reader: Any) -> None:
        while line := reader.readline():
            name, _, value = line.decode().strip().partition(": ")
            if name == "data":
                self._take(json.loads(value))
            elif name == "retry" and not self._crowd.wait:
                self._wait = int(value) / 1000
        self._crowd.ends["end of the stream"] += 1

    def _take(self, message: dict[str, Any]) -> None:
        if "reset" in message:
            self._crowd.ends["reset"] += 1
        else:
            self.seen[message["data"]] += 1
        self._since = message["id"]


class Crowd:
    """All clients of this process."""

    def __init__(self, port: str, kind: str, count: str, wait: str, since: str) -> None:
        self.port, self.kind, self.wait, self.since = int(port), kind, float(wait), since
        self.attempts: list[float] = []
        self.ends: Counter[str] = Counter()
        self.clients = [Client(self, number) for number in range(int(count))]
        self.greenlets = [gevent.spawn(client.live) for client in self.clients]

    def obey(self, command: str, number: int) -> dict[str, Any]:
        if command == "report":
            seen = [client.seen[1 : number + 1] for client in self.clients]
            return {
                "attempts": self.attempts,
                "ends": self.ends,
                "lost": sum(one.count(0) for one in seen),
                "twice": sum(number - one.count(0) - one.count(1) for one in seen),
            }
        is_true = {
            "opened": lambda client: client.opened > 0,
            "back": lambda client: client.opened > 1,
            "got": lambda client: client.seen[number],
        }[command]
        deadline = time.monotonic() + PATIENCE
        while not all(map(is_true, self.clients)):
            if time.monotonic() > deadline:
                missing = sum(not is_true(client) for client in self.clients)
                return {"error": f"{missing} clients are not {command} {number}: {self.ends}"}
            gevent.sleep(0.05)
        return {"at": time.monotonic()}


def main() -> None:
    crowd = Crowd(*sys.argv[1:])
    while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
        command, _, number = line.strip().partition(" ")
        print(json.dumps(crowd.obey(command, int(number or 0))), flush=True)


main()
