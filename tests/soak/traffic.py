"""Mixed traffic with faults, and both ends count: plain WebSockets and EventSources, no channels.

    python -m tests.soak.traffic --seconds 1800 --output build/soak

Connections end in order, are reset, cut in the middle of a frame, or stop reading for a while;
workers are reloaded, killed, and stopped and continued. What arrives has no gap and is in order, on
every connection. Of a connection that was not cut, all arrives: the records of the client and of
the server are compared. Samples of memory, descriptors and latency are written as CSV, and drawn as
SVG.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import gevent
from gevent import monkey

from faye_wsgi import Client, ConnectionClosed, EventSourceClient, HandshakeError
from faye_wsgi import permessage_deflate as deflate

from ..stress import harness
from ..stress.abuser import sizes
from ..support import frames
from ..support.servers import ROOT, Server, serve
from .plot import Chart, draw

TALKERS, CUTTERS, STREAMS = 24, 8, 8  # clients of each kind
PATIENCE = 60.0  # seconds for anything at all; a stopped worker and a busy machine are in it
LIFE = 8.0  # seconds, on average, until a client ends its connection
IN_ORDER = (1000, 1001, 1012)
MEGABYTE = 1 << 20
TROUBLE = (OSError, EOFError, ConnectionClosed, HandshakeError, AssertionError, TimeoutError)


@dataclass
class Record:
    """What a client has counted on one connection."""

    id: str
    sent: int = 0
    received: int = 0
    code: int | None = None  # of the close event; None where the client has cut it
    told: int | None = None  # what the server said at the end that it has received
    wrong: str = ""


@dataclass
class Run:
    """All that the clients of a run share."""

    server: Server
    seed: int
    records: list[Record] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # seconds, since the last sample
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    is_over: bool = False
    open: int = 0  # connections

    def record(self, name: str) -> Record:
        made = Record(f"{name}.{len(self.records)}")
        self.records.append(made)
        return made


# Clients


def in_turn(run: Run, name: str, live: Callable[[Run, str, random.Random], None]) -> None:
    """One client: connection after connection, until the run is over."""
    dice = random.Random(f"{run.seed} {name}")
    while not run.is_over:
        run.open += 1
        try:
            live(run, name, dice)
        except HandshakeError:
            run.counts["not opened"] += 1
        finally:
            run.open -= 1
        gevent.sleep(dice.uniform(0, 0.3))


def path_of(record: Record, dice: random.Random) -> str:
    mode = dice.choice(["view", "listeners"])
    return f"/duplex?id={record.id}&mode={mode}&pause={dice.choice([0.02, 0.1, 0.5])}"


def note(record: Record, run: Run, message: str, times: dict[str, float]) -> None:
    """A message of the server: 'NUMBER:echo:NUMBER', 'NUMBER:push:…' or 'NUMBER:end:COUNT'."""
    number, kind, rest = message.split(":", 2)
    if int(number) != record.received:
        record.wrong += f"{number} came instead of {record.received}; "
    record.received += 1
    run.counts["messages"] += 1
    if kind == "echo" and rest in times:
        run.waits.append(time.monotonic() - times.pop(rest))
    elif kind == "end":
        record.told = int(rest)


def talk(run: Run, name: str, dice: random.Random) -> None:
    """A connection that ends in order, by the client or by its worker. It may stop reading."""
    record = run.record(name)
    extensions = deflate if dice.random() < 0.3 else ()
    url = run.server.url(path_of(record, dice), "ws")
    ws = Client(url, extensions=extensions, ping=5, ping_timeout=30, open_timeout=PATIENCE)
    ws.wait_open()
    times: dict[str, float] = {}
    sender = gevent.spawn(send_numbers, run, ws, record, times, dice)
    pauses = dice.random() < 0.2
    try:
        while True:
            note(record, run, ws.receive(PATIENCE), times)
            if pauses and record.received % 50 == 49:
                gevent.sleep(dice.uniform(1, 4))
                times.clear()  # these echoes are late by its own fault
                run.counts["stops of a reader"] += 1
            if record.told is not None:
                ws.close()
    except ConnectionClosed as error:
        record.code = error.code
        run.counts[f"ended with {error.code}"] += 1
    except TimeoutError:
        record.wrong += f"nothing came for {PATIENCE} s; "
        ws.close()
    sender.get(timeout=PATIENCE)


def send_numbers(
    run: Run, ws: Client, record: Record, times: dict[str, float], dice: random.Random
) -> None:
    end = time.monotonic() + dice.expovariate(1 / LIFE)
    padding = "y" * dice.choice([0, 50, 3000])
    try:
        while time.monotonic() < end and not run.is_over:
            times[str(record.sent)] = time.monotonic()
            record.sent += 1
            ws.send(f"{record.sent - 1}:{padding}", timeout=PATIENCE)
            gevent.sleep(dice.uniform(0, 0.1))
        ws.send("end", timeout=PATIENCE)
    except ConnectionClosed:
        pass
    except TimeoutError:
        record.wrong += f"send was blocked for {PATIENCE} s; "


def cut(run: Run, name: str, dice: random.Random) -> None:
    """A connection that the client cuts: by RST, by FIN, or in the middle of a frame."""
    record = run.record(name)
    how = dice.choice(["reset", "fin", "half a frame"])
    with harness.Client(run.server, timeout=PATIENCE) as client:
        try:
            client.open(path_of(record, dice))
            for number in range(dice.randint(0, 50)):
                record.sent += 1
                client.text(f"{number}:")
                if dice.random() < 0.8:
                    frame = client.read()
                    if frame.opcode == frames.PING:
                        continue
                    if frame.opcode == frames.CLOSE:
                        return
                    note(record, run, frame.text, {})
            if how == "half a frame":
                client.send(frames.text("x" * 100)[: dice.randint(1, 100)])
            if how != "fin":
                client.reset()
            run.counts[f"cut by {how}"] += 1
        except (OSError, EOFError, AssertionError):
            run.counts["lost while it was cut"] += 1


def follow(run: Run, name: str, dice: random.Random) -> None:
    """An event stream over many connections: each number once, in order."""
    record = run.record(name)
    url = run.server.url("/numbers")
    with EventSourceClient(url, first_delay=0.1, idle_timeout=20, open_timeout=PATIENCE) as events:
        for event in events:
            if int(event.id) != record.received + 1:
                record.wrong += f"{event.id} came instead of {record.received + 1}; "
            record.received += 1
            run.counts["events"] += 1
            if run.is_over:
                return


# Faults of the server


def do_harm(run: Run, dice: random.Random, seconds: float, marks: list[tuple[float, str]]) -> None:
    began = time.monotonic()
    while (left := seconds - (time.monotonic() - began)) > 0:
        gevent.sleep(min(left, dice.uniform(4, 12)))
        name = dice.choice(["reload", "reload", "kill", "stop"])
        workers = run.server.worker_pids()
        if name == "reload":
            run.server.signal(signal.SIGHUP)
        elif workers and name == "kill":
            os.kill(dice.choice(workers), signal.SIGKILL)
        elif workers:
            worker = dice.choice(workers)
            os.kill(worker, signal.SIGSTOP)
            gevent.sleep(dice.uniform(0.2, 2))
            os.kill(worker, signal.SIGCONT)
        marks.append((time.monotonic() - began, name))
        run.counts[f"workers: {name}"] += 1


# Samples

COLUMNS = ("seconds", "workers", "rss", "descriptors", "connections", "messages", "p50", "p99")


def sample(run: Run, began: float) -> dict[str, float]:
    """Memory in MiB, latency in ms, and the number of messages since the last sample."""
    waits, run.waits = sorted(run.waits), []
    found: Counter[str] = Counter()
    workers = run.server.worker_pids()
    for worker in workers:
        try:
            for name, value in sizes(worker):
                found[name] += value
        except OSError:
            pass  # it has just ended
    row: dict[str, float] = {
        "seconds": round(time.monotonic() - began, 1),
        "workers": len(workers),
        "rss": round(found["rss"] / MEGABYTE, 1),
        "descriptors": found["descriptors"],
        "connections": run.open,
        "messages": run.counts["messages"] + run.counts["events"],
    }
    if waits:
        row["p50"] = round(waits[len(waits) // 2] * 1000, 2)
        row["p99"] = round(waits[int(len(waits) * 0.99)] * 1000, 2)
    return row


def save(rows: list[dict[str, float]], marks: list[tuple[float, str]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "traffic.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)

    def curve(name: str) -> list[float | None]:
        return [row.get(name) for row in rows]

    charts = [
        Chart("memory of the workers, MiB", {"": curve("rss")}),
        Chart("open", {"descriptors": curve("descriptors"), "clients": curve("connections")}),
        Chart("latency of an echo, ms", {"p50": curve("p50"), "p99": curve("p99")}),
    ]
    picture = draw([row["seconds"] for row in rows], charts, [at for at, _ in marks])
    (folder / "traffic.svg").write_text(picture)


# The check


def check(records: list[Record], server: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What the two ends have counted, compared."""
    for one in records:
        if one.wrong:
            yield f"{one.id}: {one.wrong}"
        there = server.get(one.id)
        if one.code not in (*IN_ORDER, 1006, None):
            yield f"{one.id} ended with {one.code}: {one}"
        if there is None:
            if one.code in IN_ORDER:
                yield f"{one.id} ended with {one.code}, and the server has no record of it"
            continue
        if there["wrong"]:
            yield f"{one.id}, at the server: {there['wrong']}"
        if not (one.received <= there["begun"] and there["received"] <= one.sent):
            yield f"{one.id}: more has come than was sent: {one}, {there}"
        if one.code in IN_ORDER and one.received < there["sent"]:
            yield f"{one.id} has lost messages of the server: {one}, {there}"
        if one.code == 1000 and not one.told == there["received"] == one.sent:
            yield f"{one.id} has lost messages of the client: {one}, {there}"


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["id"]: record for record in map(json.loads, lines)}


def soak(seconds: float, seed: int, folder: Path, harmful: bool = True) -> Run:
    """Run it; ``faults`` of what is returned must be empty."""
    marks: list[tuple[float, str]] = []
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="traffic-") as place:
        path = Path(place) / "records"
        with serve(
            "gunicorn-gevent",
            "tests.soak.traffic_app:application",
            workers=2,
            env={"TRAFFIC_RECORDS": str(path)},
        ) as server:
            run = Run(server, seed)
            clients = [
                gevent.spawn(in_turn, run, f"{live.__name__}{number}", live)
                for live, count in ((talk, TALKERS), (cut, CUTTERS), (follow, STREAMS))
                for number in range(count)
            ]
            harm = gevent.spawn(do_harm, run, random.Random(seed), seconds * harmful, marks)
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                gevent.sleep(1)
                rows.append(sample(run, began))
            harm.get(timeout=PATIENCE)
            run.is_over = True
            gevent.joinall(clients, timeout=2 * PATIENCE)
            run.faults += [f"a client does not end: {one!r}" for one in clients if not one.dead]
            for client in clients:
                client.kill()
                if isinstance(client.exception, Exception):
                    run.faults.append(f"a client has failed: {client.exception!r}")
            run.faults += left_behind(server)
            if "Traceback" in server.log():
                run.faults.append(f"the log: {server.log()[-3000:]}")
        run.faults += check(run.records, read_records(path))
    save(rows, marks, folder)
    return run


def left_behind(server: Server) -> Iterator[str]:
    """Descriptors, once all clients have gone."""
    most = 25  # of a worker with nothing to do: its own, the master's, those of gevent's loop
    deadline = time.monotonic() + PATIENCE
    while True:
        held = {pid: dict(sizes(pid))["descriptors"] for pid in server.worker_pids()}
        if all(count <= most for count in held.values()):
            return
        if time.monotonic() > deadline:
            yield f"descriptors of workers without a client: {held}"
            return
        gevent.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.traffic", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "soak")
    options = parser.parse_args()
    print(f"traffic, seed {options.seed}", flush=True)
    run = soak(options.seconds, options.seed, options.output)
    ends = Counter(str(one.code) for one in run.records)
    print(f"{len(run.records)} connections: {dict(ends)}; {dict(sorted(run.counts.items()))}")
    print(f"samples: {options.output}/traffic.csv and traffic.svg")
    for fault in run.faults:
        print(fault)
    return 1 if run.faults else 0


if __name__ == "__main__":
    monkey.patch_all()
    sys.exit(main())
