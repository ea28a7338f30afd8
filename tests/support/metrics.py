"""A reporter that keeps what it gets, and a text of Prometheus as numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from faye_wsgi.transport import tally


class Recorder:
    """`totals` of counters and gauges by name and labels, and the `samples` of histograms."""

    def __init__(self) -> None:
        self.totals: Counter[tuple[str, ...]] = Counter()
        self.samples: list[tuple[str, float]] = []

    def record(self, metric: tally.Metric, labels: tally.Labels, value: float) -> None:
        if metric.kind == "histogram":
            self.samples.append((metric.name, value))
        else:
            self.totals[(metric.name, *labels)] += value  # type: ignore[assignment]

    def __getitem__(self, name: tuple[str, ...]) -> float:
        tally.report()
        return self.totals[name]


@contextmanager
def recording() -> Iterator[Recorder]:
    recorder = Recorder()
    tally.turn_on(recorder)
    try:
        yield recorder
    finally:
        tally.turn_off(recorder)


SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def parse(text: str) -> dict[str, float]:
    """`name` or `name{label="value",…}`, with the labels in order, and its value."""
    found = {}
    for name, labels, value in SAMPLE.findall(text):
        ordered = ",".join(sorted(re.findall(r'\w+="[^"]*"', labels)))
        found[f"{name}{{{ordered}}}" if ordered else name] = float(value)
    return found
