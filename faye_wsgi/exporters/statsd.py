"""Metrics for statsd, through gunicorn's own logger (``--statsd-host``), with its prefix.

statsd has no labels: they are parts of the name. Several workers would overwrite each other's
gauges. So a gauge is sent as a difference (``+1|g``), and statsd has the sum.
"""

from __future__ import annotations

import re

from faye_wsgi.transport import tally
from faye_wsgi.wsgi.worker import find_statsd

__all__ = ["PREFIX", "Statsd"]

PREFIX = "faye_wsgi"

_OTHERS = re.compile(r"[^A-Za-z0-9_-]+")


class Statsd:
    """Metrics through the logger of this process's worker; none where it has no statsd."""

    def record(self, metric: tally.Metric, labels: tally.Labels, value: float) -> None:
        """Send a counter's or gauge's difference, or a sample in milliseconds."""
        # Looked up each time: with ``--preload`` metrics are turned on before there is a worker.
        log = find_statsd()
        if log is None:
            return
        name = ".".join([PREFIX, metric.name, *map(_part, labels)])
        if metric.kind == "counter":
            log.increment(name, round(value, 3))
        elif metric.kind == "gauge":
            log.gauge(name, f"{int(value):+d}")
        else:
            # Before gunicorn had ``timer``, its ``histogram`` sent milliseconds.
            send = getattr(log, "timer", log.histogram)
            send(name, round(value * 1000, 3))


def _part(label: str) -> str:
    """A label as a part of a name: ``/rooms/<room>`` is ``rooms_room``."""
    return _OTHERS.sub("_", label).strip("_") or "none"
