"""The abuser itself, in a process of its own: ``python -m tests.stress.attack HOST PORT``.

It prints what it has done, as JSON, when its time is up.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator

import gevent
import gevent.pool
import gevent.socket

from ..support import frames
from . import grammar

AT_ONCE = 40  # connections
SESSIONS = 120  # that are made, and sent again and again with other cuts
PATIENCE = 10.0  # seconds for each call of a socket
TARGETS = (
    "/counted_events",
    "/counted_events?max_length=500",
    "/counted_events?deflate=1",
    "/careful_echo",
    "/careful_echo?max_fragments=4",
)
OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"}


class Attack:
    """What is sent to one address, and the counts of it."""

    def __init__(self, address: tuple[str, int], seed: int) -> None:
        self.address = address
        self.dice = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.sessions = {
            deflate: [grammar.make_session(self.dice, deflate) for _ in range(SESSIONS)]
            for deflate in (False, True)
        }
        self._cuts = self._endless_cuts()

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        pool = gevent.pool.Pool(AT_ONCE)
        while time.monotonic() < deadline:
            pool.spawn(self._attack, self.dice.choice([self._send_session] * 4 + [self._cut]))
        pool.join(timeout=PATIENCE)
        pool.kill()

    def _attack(self, act: object) -> None:
        assert callable(act)
        sock = gevent.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        # The worker may have gone away from us in the middle; that is what this is about.
        try:
            sock.connect(self.address)
            act(sock)
        except socket.timeout:
            self.counts["timeouts"] += 1
        except OSError:
            self.counts["refused"] += 1
        finally:
            sock.close()
            self.counts["connections"] += 1

    def _send_session(self, sock: gevent.socket.socket) -> None:
        """A session, in random pieces, and one of five endings."""
        target = self.dice.choice(TARGETS)
        deflate = "deflate" in target
        session = self.dice.choice(self.sessions[deflate])
        sock.sendall(handshake(target, deflate))
        reader = gevent.spawn(read_all, sock)
        try:
            for piece in grammar.pieces(self.dice, session.data):
                sock.sendall(piece)
                if self.dice.random() < 0.1:
                    gevent.sleep(0)
            self.counts["frames"] += session.frames
            end = self.dice.choice(["close", "fin", "reset", "silence", "cut"])
            self.counts[end] += 1
            if end == "close":
                sock.sendall(frames.close(1000))
            elif end == "fin":
                sock.shutdown(socket.SHUT_WR)
            elif end == "silence":
                reader.join(timeout=0.2)
            if end in ("close", "fin"):
                reader.join(timeout=2)
            if end == "reset":
                reset(sock)
        finally:
            reader.kill()

    def _cut(self, sock: gevent.socket.socket) -> None:
        """The next byte of a session at which it is cut."""
        data, is_reset = next(self._cuts)
        sock.sendall(data)
        self.counts["cuts"] += 1
        if is_reset:
            reset(sock)
        else:
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)

    def _endless_cuts(self) -> Iterator[tuple[bytes, bool]]:
        whole = handshake("/counted_events", False)
        whole += frames.text("hello") + frames.text("h\u00e9", fin=False)
        whole += frames.frame(frames.PING, b"ping") + frames.frame(frames.CONTINUATION, b"llo")
        whole += frames.frame(frames.BINARY, bytes(200)) + frames.close(1000, "bye")
        for is_reset in itertools.cycle([False, True]):
            for end in range(1, len(whole)):
                yield whole[:end], is_reset
            self.counts["sweeps of all cuts"] += 1


def handshake(target: str, deflate: bool) -> bytes:
    return frames.handshake(target, headers=OFFER if deflate else None)


def read_all(sock: gevent.socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 18):
            pass


def reset(sock: gevent.socket.socket) -> None:
    """RST instead of FIN, when it is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.attack", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    attack = Attack((options.host, options.port), options.seed)
    attack.run(options.seconds)
    print(json.dumps(attack.counts))


if __name__ == "__main__":
    main()
