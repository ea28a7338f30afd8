"""Metrics through gunicorn's logger for statsd, to a socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.instrument.statsd import Statsd as Logger

from faye_wsgi.exporters import statsd
from faye_wsgi.exporters.statsd import Statsd
from faye_wsgi.transport import tally
from faye_wsgi.transport.tally import CONNECTIONS, LAG, MESSAGES, RECONNECTS


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def test_names_and_values(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config()
    config.set("statsd_host", ":".join(map(str, listener.getsockname())))
    config.set("statsd_prefix", "shop")
    logger: Any = Logger(config)
    monkeypatch.setattr(statsd, "find_statsd", lambda: logger)
    reporter = Statsd()
    sent: list[tuple[tally.Metric, tuple[str, ...], float]] = [
        (RECONNECTS, (), 1),
        (MESSAGES, ("websocket", "/rooms/<room>", "in"), 12),
        (MESSAGES, ("websocket", "/", "in"), 0.12345),
        (CONNECTIONS, ("eventsource", ""), 2),
        (CONNECTIONS, ("eventsource", ""), -1),
        (LAG, (), 0.25),
    ]
    got = []
    for metric, labels, value in sent:
        reporter.record(metric, labels, value)
        got.append(listener.recv(1000).decode().replace("|@1.0", ""))
    logger.sock.close()
    assert got == [
        "shop.faye_wsgi.broker_reconnects:1|c",
        "shop.faye_wsgi.messages.websocket.rooms_room.in:12|c",
        "shop.faye_wsgi.messages.websocket.none.in:0.123|c",
        "shop.faye_wsgi.connections.eventsource.none:+2|g",
        "shop.faye_wsgi.connections.eventsource.none:-1|g",
        "shop.faye_wsgi.hub_lag_seconds:250.0|ms",
    ]


def test_without_statsd_nothing_happens() -> None:
    Statsd().record(RECONNECTS, (), 1)
