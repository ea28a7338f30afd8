"""Metrics for Prometheus, by ``prometheus_client``, in its multiprocess mode, too.

They are ordinary metrics of that package, which its registry or, with PROMETHEUS_MULTIPROC_DIR, its
files hold. What is new is added to them every few seconds, and before each scrape of the registry.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from faye_wsgi.transport import tally

__all__ = ["PREFIX", "Prometheus"]

PREFIX = "faye_wsgi"


class Prometheus:
    """Metrics in a registry of ``prometheus_client``."""

    def __init__(self, registry: Any) -> None:
        # A registry asks in the order of registration, so this is asked before the metrics.
        registry.register(_Fresh())
        self._metrics = {metric: _make(metric, registry) for metric in tally.METRICS}

    def record(self, metric: tally.Metric, labels: tally.Labels, value: float) -> None:
        """Add to a counter or gauge, or a sample to a histogram."""
        made = self._metrics[metric]
        child = made.labels(*labels) if metric.labels else made
        if metric.kind == "histogram":
            child.observe(value)
        else:
            child.inc(value)


class _Fresh:
    """Has no metrics, but lets the others be up to date."""

    def collect(self) -> list[Any]:
        tally.report()
        return []

    def describe(self) -> list[Any]:
        return []


def _make(metric: tally.Metric, registry: Any) -> Any:
    names: dict[str, Any] = {"labelnames": metric.labels, "namespace": PREFIX, "registry": registry}
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, **names)
    if metric.kind == "gauge":
        # The sum over the processes that live; those that were killed are left out when
        # ``mark_process_dead`` was called for them.
        return Gauge(metric.name, metric.help, multiprocess_mode="livesum", **names)
    return Histogram(metric.name, metric.help, buckets=metric.buckets, **names)
