"""From the figures of a run to docs/performance.md: its tables, and the plot beside it.

    python -m benchmarks --peers --json results.json
    python -m benchmarks.report results.json

What stands between the two marks of the document is replaced; the rest of it is written by hand.
"""

from __future__ import annotations

import json
import statistics
import sys
from html import escape
from pathlib import Path
from typing import Any

from .measure import notes
from .scenarios import SCENARIOS, Scenario

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
PLOTTED = ("b", "c", "d", "e")
OURS, OTHERS = "#1f6feb", "#9aa4b2"
WIDTH, LABEL, BAR, GAP, MOST = 760, 190, 14, 5, 12.0

Rows = list[tuple[str, dict[str, Any]]]


def rows_of(report: dict[str, Any], scenario: Scenario) -> Rows:
    """Each server's medians over the rounds, and its ratios to the yardstick in each round."""
    rounds = [tuple(one.values()) for one in report["rounds"] if one["scenario"] == scenario.key]
    base = {one[2]: one[3] for one in rounds if one[1] == scenario.baseline}
    rows = []
    for name in dict.fromkeys(one[1] for one in rounds):
        mine = [one for one in rounds if one[1] == name]
        row: dict[str, Any] = {"notes": notes([one[3] for one in mine])}
        for key in ("cpu_us", "rate", "p50_us", "p99_us", "memory_kib", "seconds", "calls"):
            values = [one[3][key] for one in mine if key in one[3]]
            if values:
                row[key] = statistics.median(values)
        key = "memory_kib" if scenario.mode == "idle" else "cpu_us"
        ratios = [one[3][key] / base[one[2]][key] for one in mine if base.get(one[2])]
        row["ratio"] = statistics.median(ratios) if ratios else float("nan")
        rows.append((name, row))
    return sorted(rows, key=lambda row: row[1]["ratio"])


def time_of(microseconds: float) -> str:
    """Empty where there is none: streams and clients are not timed."""
    return f"{microseconds:,.0f}" if microseconds else ""


def table(scenario: Scenario, rows: Rows) -> str:
    lines = [f"### ({scenario.key}) {scenario.title}", ""]
    if scenario.mode == "idle":
        lines += ["| server | KiB each | ratio |", "|---|--:|--:|"]
        lines += [
            f"| {name} | {row['memory_kib']:.1f} | {row['ratio']:.2f} |" for name, row in rows
        ]
    elif scenario.mode == "deploy":
        lines += [
            "| server | seconds until the last | CPU µs each | ratio | calls of Redis each |",
            "|---|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {name} | {row['seconds']:.2f} | {row['cpu_us']:,.0f} | {row['ratio']:.2f} "
            f"| {row['calls']:.4f} |"
            for name, row in rows
        ]
    else:
        lines += [
            "| server | CPU µs a message | ratio | messages/s | p50 µs | p99 µs | |",
            "|---|--:|--:|--:|--:|--:|---|",
        ]
        lines += [
            f"| {name} | {row['cpu_us']:.2f} | {row['ratio']:.2f} | {row['rate']:,.0f} "
            f"| {time_of(row['p50_us'])} | {time_of(row['p99_us'])} | {row['notes']} |"
            for name, row in rows
        ]
    return "\n".join([*lines, ""])


def plot(chosen: list[tuple[Scenario, Rows]]) -> str:
    """Bars: processor time per message, the raw gevent echo being 1."""
    parts: list[str] = []
    y = 10
    for scenario, rows in chosen:
        most = min(max(row["ratio"] for _, row in rows), MOST)
        parts.append(
            f'<text x="10" y="{y + 14}" class="t">({scenario.key}) {escape(scenario.title)}</text>'
        )
        y += 26
        for name, row in rows:
            length = (WIDTH - LABEL - 90) * min(row["ratio"], most) / most
            color = OURS if name.startswith("faye_wsgi") else OTHERS
            more = " …" if row["ratio"] > most else ""
            parts.append(
                f'<text x="{LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
                f'<rect x="{LABEL}" y="{y}" width="{length:.0f}" height="{BAR}" fill="{color}"/>'
                f'<text x="{LABEL + length + 6:.0f}" y="{y + 11}">{row["ratio"]:.2f}{more}</text>'
            )
            y += BAR + GAP
        y += 14
    style = "text{font:12px sans-serif;fill:#24292f}.t{font-weight:bold}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = [(scenario, rows_of(report, scenario)) for scenario in SCENARIOS]
    found = [(scenario, rows) for scenario, rows in found if rows]
    machine = report["machine"]
    about = (
        f"Measured on {machine['system'].split('-')[0]}, Python {machine['python']}, "
        f"{machine['processors']} processors.\n"
    )
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    tables = "\n".join(table(scenario, rows) for scenario, rows in found)
    after = rest.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{about}\n{tables}\n{END}{after}", encoding="utf-8")
    plotted = [(scenario, rows) for scenario, rows in found if scenario.key in PLOTTED]
    DOCUMENT.with_suffix(".svg").write_text(plot(plotted), encoding="utf-8")


if __name__ == "__main__":
    main()
