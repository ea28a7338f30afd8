"""What a deploy does to new workers: how many clients come back in a second, and what is lost.

    python -m benchmarks.stampede --clients 1000
    python -m benchmarks.stampede --clients 10000 --spread 0,20 --kind websocket

Two workers with a Redis are replaced by SIGHUP, once for each value of FAYE_WSGI_CLOSE_SPREAD,
while numbered messages are published. All clients are without a random delay of their own:
WebSockets come back after a second, as a simple page does; event streams after the last ``retry``
of the server, as browsers do. As ``eventsource-first`` they come back after the first one, as if
the server had told no random time. Printed is the most attempts to connect within a second, and
within 0.1 s; how long it took until all were back; and the messages that clients have lost, or got
twice. 10,000 clients need `ulimit -n` of 12,000.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any, Callable

from . import measure
from .servers import CLIENTS, FOLDER, SERVERS

sys.path.append(str(FOLDER))
from with_redis import folder_of, url_of  # noqa: E402

from faye_wsgi import Channels  # noqa: E402

EVERY = 1.0  # seconds between two messages
WAIT = {"websocket": 1.0, "eventsource": 0.0, "eventsource-first": 5.0}


def peak(attempts: list[float], window: float) -> int:
    """The most attempts within ``window`` seconds."""
    times, first, most = sorted(attempts), 0, 0
    for last, at in enumerate(times):
        while at - times[first] >= window:
            first += 1
        most = max(most, last - first + 1)
    return most


class Crowds:
    """The clients, in several processes."""

    def __init__(self, port: str, kind: str, count: int, parts: int, since: str) -> None:
        self._processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "crowd.py", port, kind.partition("-")[0]),
                    *(str(count // parts + (part < count % parts)), str(WAIT[kind]), since),
                ],
                cwd=CLIENTS,
                env=measure.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for part in range(parts)
        ]

    def ask(self, command: str, meanwhile: Callable[[], object] = bool) -> list[dict[str, Any]]:
        """The answers of all processes; ``meanwhile`` is called every ``EVERY`` seconds."""
        for process in self._processes:
            print(command, file=process.stdin, flush=True)
        pipes, found = [process.stdout for process in self._processes], []
        while pipes:
            ready = select.select(pipes, [], [], EVERY)[0]
            for pipe in ready:
                pipes.remove(pipe)
                found.append(json.loads(pipe.readline() or '{"error": "a crowd has died"}'))
                if "error" in found[-1]:
                    raise measure.Failed(found[-1]["error"])
            if not ready:
                meanwhile()
        return found

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def run(kind: str, count: int, spread: float, parts: int) -> dict[str, Any]:
    """Start the workers and the clients, and replace the workers."""
    (server,) = (one for one in SERVERS if one.name == "faye_wsgi, resumed")
    limits = f"-m gunicorn --graceful-timeout {spread + 10:.0f} --timeout 120"
    server = replace(
        server,
        start=server.start.replace("-m gunicorn", limits),
        environment=(("FAYE_WSGI_CLOSE_SPREAD", str(spread)),),
    )
    with measure.Running(server) as running:
        port = str(running.port)
        channels = Channels(url_of(port), history=1000)
        crowds = Crowds(port, kind, count, parts, channels.cursor("all"))
        try:
            return reload(int((folder_of(port) / "pid").read_text()), crowds, channels)
        finally:
            crowds.stop()


def reload(master: int, crowds: Crowds, channels: Channels) -> dict[str, Any]:
    """The figures of one reload."""
    numbers = itertools.count(1)

    def publish() -> int:
        number = next(numbers)
        channels.publish("all", number)
        return number

    crowds.ask("opened")
    publish()
    started = time.monotonic()
    os.kill(master, signal.SIGHUP)
    back = max(answer["at"] for answer in crowds.ask("back", publish))
    last = publish()
    crowds.ask(f"got {last}")
    reports = crowds.ask(f"report {last}")
    attempts = [at for report in reports for at in report["attempts"] if at > started]
    ends = sum((Counter(report["ends"]) for report in reports), Counter[str]())
    return {
        "a second": peak(attempts, 1.0),
        "0.1 s": peak(attempts, 0.1),
        "attempts": len(attempts),
        "seconds": round(back - started, 1),
        "messages": last,
        "lost": sum(report["lost"] for report in reports),
        "twice": sum(report["twice"] for report in reports),
        "ends": dict(ends),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4, help="that they are in; default 4")
    parser.add_argument("--spread", default="0,20", help="seconds, with commas; default 0,20")
    parser.add_argument("--kind", choices=WAIT, action="append", help="default: all")
    options = parser.parse_args()
    measure.raise_limits()
    measure.build()
    for kind in options.kind or WAIT:
        for spread in map(float, options.spread.split(",")):
            try:
                figures = run(kind, options.clients, spread, options.processes)
            except measure.Failed as error:
                figures = {"error": str(error)}
            print(kind, options.clients, f"spread {spread:g}:", json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
