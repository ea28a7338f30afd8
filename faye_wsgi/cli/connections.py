"""Who is connected, over all workers: a table, drawn again each second on a terminal.

python -m faye_wsgi connections redis://localhost:6379/0
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from faye_wsgi.channels import Channels
from faye_wsgi.cli.arguments import printable

__all__ = ["show", "table"]

PAUSE = 1.0  # seconds between two drawings
HEAD = ("KIND", "USER", "PATH", "AGE", "LATENCY", "WAITING", "CHANNELS")

# ECMA-48: erase the whole display; the cursor to the top left; erase to the end of the line, and
# of the display. Lines are written over, so that nothing flickers.
CLEAR, HOME, END_OF_LINE, END_OF_PAGE = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"


def show(channels: Channels, *, is_live: bool) -> int:
    """Print the table: once, or again and again until Ctrl-C. The exit status."""
    if not is_live:
        print("\n".join(table(channels.connections())), flush=True)
        return 0
    print(CLEAR, end="")
    while True:
        lines = table(channels.connections())
        print(_page(lines, *shutil.get_terminal_size()), end="", flush=True)
        threading.Event().wait(PAUSE)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The lines for what ``Channels.connections`` has returned: a summary, the head, the rows."""
    kinds = Counter(row["kind"] for row in rows)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    users = len({row["user"] for row in rows} - {None})
    plural = "" if len(rows) == 1 else "s"
    summary = f"{len(rows)} connection{plural}, {users} user{'' if users == 1 else 's'}"
    if not rows:
        return [summary]
    ordered = sorted(rows, key=lambda row: (row["path"] or "", row["user"] or "", -row["age"]))
    cells = [HEAD, *map(_cells, ordered)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return [f"{summary}: {counts}", "", *lines]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    latency = row["latency"]
    return (
        row["kind"],
        printable(row["user"] or "-"),
        printable(row["path"] or "-"),
        _age(row["age"]),
        "-" if latency is None else f"{latency * 1000:.0f} ms",
        str(row["waiting"]),
        printable(" ".join(row["channels"])),
    )


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"  # the clocks of two machines may differ


def _page(lines: Sequence[str], columns: int, height: int) -> str:
    """The lines that a terminal has room for; the last row stays free for the cursor."""
    room = max(height - 1, 2)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"... and {len(lines) - room + 1} more"]
    return HOME + "".join(f"{line[:columns]}{END_OF_LINE}\n" for line in lines) + END_OF_PAGE
