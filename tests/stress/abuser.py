"""An abuser against a real worker, with honest clients beside it.

    python -m tests.stress.abuser --seconds 300

The worker's memory, descriptors, greenlets and log must be afterwards what they were, and the
honest clients are answered all the time, in order. What the abuser sends is in ``grammar.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gevent

from ..support.servers import ROOT, Server, serve
from . import harness

HONEST = 5  # clients
PAUSE = 0.05  # seconds between two messages of one
WARM_UP = 4.0  # seconds of abuse before the memory is looked at
MEGABYTE = 1 << 20


@dataclass
class Report:
    """What was done, and what it cost."""

    counts: dict[str, int]
    waits: list[float]  # seconds, of all honest messages
    before: dict[str, int]
    after: dict[str, int]
    most: dict[str, int] = field(default_factory=dict)
    said: str = ""  # what is new in the log

    def wait(self, share: float) -> float:
        """The time within which that share of the honest messages was answered."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))]

    def __str__(self) -> str:
        done = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        waits = ", ".join(f"{p}: {self.wait(p) * 1000:.1f} ms" for p in (0.5, 0.99, 0.999, 1.0))
        grown = (self.after["rss"] - self.before["rss"]) / MEGABYTE
        return (
            f"abuse: {done}\nhonest messages: {len(self.waits)}, answered within {waits}\n"
            f"memory: {self.before['rss'] / MEGABYTE:.1f} MiB after the warm-up, "
            f"{self.most['rss'] / MEGABYTE:.1f} at most, {grown:+.1f} MiB in the end\n"
            f"descriptors: {self.before['descriptors']}, {self.most['descriptors']} at most, "
            f"{self.after['descriptors']} in the end\n"
            f"greenlets: {self.before['greenlets']}, {self.after['greenlets']} in the end\n"
            f"the log: {len(self.said)} characters"
        )


def abuse(server: Server, seconds: float, seed: int) -> Report:
    """Attack ``server`` for so long; what came of it."""
    with attack(server, WARM_UP, seed + 1) as running:
        running.wait(timeout=WARM_UP + 60)
    before = harness.settled(server)
    start = harness.stats(server)["rss"]
    said = len(server.log())
    waits: list[float] = []
    most = {"rss": 0, "descriptors": 0}
    clients = [harness.Client(server).open("/counted_events") for _ in range(HONEST)]
    with attack(server, seconds, seed) as running:
        honest = [gevent.spawn(talk, client, waits, running) for client in clients]
        (worker,) = server.worker_pids()
        deadline = time.monotonic() + seconds + 60
        while running.poll() is None:
            assert time.monotonic() < deadline, "the attack does not end"
            for name, value in sizes(worker):
                most[name] = max(most[name], value)
            gevent.sleep(0.5)
        for one in honest:
            one.get(timeout=30)
        assert running.stdout is not None and running.returncode == 0
        counts = json.loads(running.stdout.read())
    harness.run_all([client.finish for client in clients])
    harness.wait_for_held(server, before, timeout=60)
    end = harness.stats(server)["rss"]
    return Report(
        counts, waits, before | {"rss": start}, before | {"rss": end}, most, server.log()[said:]
    )


@contextlib.contextmanager
def attack(server: Server, seconds: float, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    """The process of the attack, which ends by itself, or with the context."""
    command = [sys.executable, "-m", "tests.stress.attack", server.host, str(server.port)]
    command += ["--seconds", str(seconds), "--seed", str(seed)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


def talk(client: harness.Client, waits: list[float], running: subprocess.Popen[bytes]) -> None:
    """Send a message and wait for its echo, as long as the attack goes on."""
    number = 0
    while running.poll() is None:
        started = time.monotonic()
        client.echo(f"honest {number}")
        waits.append(time.monotonic() - started)
        number += 1
        gevent.sleep(PAUSE)


def sizes(pid: int) -> Iterator[tuple[str, int]]:
    """Memory and descriptors, without a request, which would cost the worker a collection."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    yield "rss", pages * os.sysconf("SC_PAGE_SIZE")
    yield "descriptors", len(os.listdir(f"/proc/{pid}/fd"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.abuser", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with serve("gunicorn-gevent", harness.APP) as server:
        report = abuse(server, options.seconds, options.seed)
    print(report)
    print(report.said[-5000:])


if __name__ == "__main__":
    main()
