"""Metrics in a registry of prometheus_client; tests/test_metrics.py has its multiprocess mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from faye_wsgi.transport import tally

from ..support.metrics import parse

prometheus_client = pytest.importorskip("prometheus_client")

from faye_wsgi.exporters.prometheus import Prometheus  # noqa: E402


@pytest.fixture
def registry() -> Iterator[Any]:
    made = prometheus_client.CollectorRegistry(auto_describe=True)
    reporter = Prometheus(made)
    tally.turn_on(reporter)
    yield made
    tally.turn_off(reporter)


def scrape(registry: Any) -> dict[str, float]:
    return parse(prometheus_client.generate_latest(registry).decode())


def test_a_scrape_has_what_was_counted_just_before(registry: Any) -> None:
    tally.count(tally.REFUSED, ("websocket", "/rooms/<room>", "origin"))
    tally.count(tally.RECONNECTS)
    tally.count(tally.CONNECTIONS, ("websocket", "/"), 3)
    tally.count(tally.CONNECTIONS, ("websocket", "/"), -1)
    for lag in (0.0001, 0.3, 60):
        tally.count(tally.LAG, (), lag)
    seen = scrape(registry)
    refused = 'faye_wsgi_refused_total{kind="websocket",reason="origin",route="/rooms/<room>"}'
    assert seen[refused] == 1
    assert seen["faye_wsgi_broker_reconnects_total"] == 1
    assert seen['faye_wsgi_connections{kind="websocket",route="/"}'] == 2
    assert seen['faye_wsgi_hub_lag_seconds_bucket{le="0.001"}'] == 1
    assert seen['faye_wsgi_hub_lag_seconds_bucket{le="0.5"}'] == 2
    assert seen['faye_wsgi_hub_lag_seconds_bucket{le="+Inf"}'] == 3


def test_every_metric_can_be_reported(registry: Any) -> None:
    for metric in tally.METRICS:
        tally.count(metric, tuple("x" for _ in metric.labels))
    seen = {family.name for family in registry.collect()}
    assert seen == {f"faye_wsgi_{metric.name}" for metric in tally.METRICS}
