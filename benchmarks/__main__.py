"""The benchmark driver: its arguments, its rounds and its tables."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import measure, peers
from .measure import notes
from .scenarios import SCENARIOS, Scenario
from .servers import SERVERS, Server

DESCRIPTION = """\
What a WebSocket message costs a server.

A load generator in C, which never sleeps while it measures, talks to one echo server after the
other. The yardstick is a bare gevent server that echoes bytes with recv and sendall: all figures
are also given as a ratio to it (x), the median of the ratios within each round. Compare ratios:
they hold from machine to machine, absolute figures do not. "CPU us" is the processor time, user
and system, of all processes of the server for one message (the same number as seconds for a
million).
"""

EPILOG = """\
A C compiler (cc, or $CC) is needed, and Linux. --peers installs the others' servers into
benchmarks/.peers, from PyPI and npm. Close other programs first: two processors are needed for
good figures, and both must be free. 10,000 connections need `ulimit -n` of 12,000.

  python -m benchmarks                        faye_wsgi and the yardstick, all but 10,000 idle
  python -m benchmarks --scenario b,c --peers
  python -m benchmarks --scenario g10 --rounds 1 --json memory.json
"""

COLUMNS = (
    ("rate", "messages/s", 0),
    ("cpu_us", "CPU us", 2),
    ("p50_us", "p50 us", 0),
    ("p99_us", "p99 us", 0),
)
MEMORY_COLUMNS = (("memory_kib", "KiB each", 2),)
DEPLOY_COLUMNS = (
    ("seconds", "seconds", 2),
    ("cpu_us", "CPU us each", 0),
    ("calls", "calls each", 4),
    ("reads", "trips each", 4),
)
SPECIAL_COLUMNS = {"idle": MEMORY_COLUMNS, "deploy": DEPLOY_COLUMNS}

Column = tuple[str, str, int]

BASELINES = {scenario.key: scenario.baseline for scenario in SCENARIOS}


class Result(NamedTuple):
    """One round of one server in one scenario."""

    scenario: str
    server: str
    round: int
    figures: measure.Figures


# ---------------------------------------------------------------- measuring


def usable(chosen: list[Server], left_out: dict[str, str]) -> list[Server]:
    """The servers that can be started here; why not the others goes to `left_out`."""
    found = []
    for server in chosen:
        absent = [name for name in server.modules if importlib.util.find_spec(name) is None]
        problem = f"{', '.join(absent)} is not here" if absent else None
        if server.pip or server.npm:
            print(f"installing {server.name} …", flush=True)
            problem = peers.install(server)
        if problem:
            left_out[server.name] = problem
            print(f"left out: {server.name}: {problem}", flush=True)
        else:
            found.append(server)
    return found


def takes_part(server: Server, scenario: Scenario) -> bool:
    """Whether a server is measured in a scenario."""
    if scenario.servers:
        return server.name in (scenario.baseline, *scenario.servers)
    return not server.special or server.name in scenario.also


def run_scenario(
    scenario: Scenario, servers: list[Server], rounds: int, seconds: float, failures: dict[str, str]
) -> list[Result]:
    """All rounds of a scenario. The servers take turns, so that a noisy minute hits them all."""
    results: list[Result] = []
    with contextlib.ExitStack() as stack:
        running = []
        for server in servers:
            if not takes_part(server, scenario):
                continue
            try:
                running.append(stack.enter_context(measure.Running(server)))
            except measure.Failed as error:
                failures[server.name] = str(error)
        for number in range(rounds):
            for one in running if number % 2 == 0 else reversed(running):
                if one.server.name in failures:
                    continue
                try:
                    figures = measure.measure(one, scenario, seconds)
                except measure.Failed as error:
                    failures[one.server.name] = str(error)
                else:
                    results.append(Result(scenario.key, one.server.name, number, figures))
    return results


# ---------------------------------------------------------------- the table


def of_server(results: list[Result], name: str) -> list[Result]:
    return [result for result in results if result.server == name]


def ratio(results: list[Result], name: str, key: str) -> float:
    """The median over the rounds of a server's figure through the yardstick's."""
    baseline = BASELINES[results[0].scenario]
    base = {result.round: result.figures[key] for result in of_server(results, baseline)}
    ratios = [
        result.figures[key] / base[result.round]
        for result in of_server(results, name)
        if base.get(result.round)
    ]
    return statistics.median(ratios) if ratios else float("nan")


def row(results: list[Result], name: str, columns: Sequence[Column]) -> str:
    mine = of_server(results, name)
    cells = []
    for key, _, digits in columns:
        middle = statistics.median(result.figures[key] for result in mine)
        cells.append(f"{middle:12,.{digits}f} {ratio(results, name, key):6.2f}")
    return f"{name:22}" + "".join(cells) + "  " + notes([result.figures for result in mine])


def print_table(
    scenario: Scenario, servers: list[Server], results: list[Result], failures: dict[str, str]
) -> None:
    """One scenario's table; a server that failed has a line that says why."""
    columns = SPECIAL_COLUMNS.get(scenario.mode, COLUMNS)
    print(f"\n({scenario.key}) {scenario.title}")
    print(f"{'':22}" + "".join(f"{title:>12} {'x':>6}" for _, title, _ in columns))
    for server in servers:
        if server.name in failures:
            print(f"{server.name:22}  failed: {failures[server.name]}")
        elif of_server(results, server.name):
            print(row(results, server.name, columns).rstrip())


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processors": len(measure.processors()),
        "load": os.getloadavg()[0],
    }


# ---------------------------------------------------------------- the command


def parse(arguments: Any = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = "; ".join(f"{scenario.key}: {scenario.title}" for scenario in SCENARIOS)
    listed = listed.replace("%", "%%")  # argparse formats it
    parser.add_argument(
        "--scenario", metavar="KEYS", default="a,b,c,d,e,f,g", help=f"which, with commas. {listed}"
    )
    parser.add_argument("--peers", action="store_true", help="measure other libraries too")
    parser.add_argument(
        "--server",
        metavar="WORD",
        help="only the servers that have this in their name, and the yardstick",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default 5)")
    parser.add_argument("--seconds", type=float, default=2, help="measured in a round (default 2)")
    parser.add_argument("--json", metavar="FILE", help="write every round to this file")
    return parser.parse_args(arguments)


def wanted(options: argparse.Namespace) -> tuple[list[Scenario], list[Server]]:
    """What the command line asks for."""
    keys = options.scenario.split(",")
    unknown = set(keys) - {scenario.key for scenario in SCENARIOS}
    if unknown:
        raise SystemExit(f"no such scenario: {', '.join(sorted(unknown))}")
    scenarios = [scenario for scenario in SCENARIOS if scenario.key in keys]
    servers = [
        server
        for server in SERVERS
        if any(takes_part(server, scenario) for scenario in scenarios)
        and (
            server.name in BASELINES.values()
            or ((options.peers or not server.peer) and (options.server or "") in server.name)
        )
    ]
    return scenarios, servers


def main() -> None:
    options = parse()
    scenarios, chosen = wanted(options)
    measure.raise_limits()
    measure.build()
    if measure.is_shared():
        print("There is only one processor: server and load generator disturb each other.")
    left_out: dict[str, str] = {}
    servers = usable(chosen, left_out)
    report: dict[str, Any] = {
        "machine": machine(),
        "left_out": left_out,
        "failures": {},
        "rounds": [],
    }
    for scenario in scenarios:
        failures: dict[str, str] = {}
        # Memory does not vary with the hour as time does: one round of a slow scenario is enough.
        rounds = 1 if scenario.mode in SPECIAL_COLUMNS else options.rounds
        results = run_scenario(scenario, servers, rounds, options.seconds, failures)
        print_table(scenario, servers, results, failures)
        report["failures"][scenario.key] = failures
        report["rounds"] += [result._asdict() for result in results]
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
