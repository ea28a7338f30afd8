"""Fifteen seconds of the abuser: the worker is afterwards what it was, and served all the time."""

from __future__ import annotations

import random

from faye_wsgi.driver.events import ErrorEvent
from faye_wsgi.driver.hybi import Hybi

from ..support.servers import serve
from . import grammar, harness
from .abuser import MEGABYTE, abuse

SECONDS = 15.0


def test_an_abuser_harms_itself_alone() -> None:
    with serve("gunicorn-gevent", harness.APP) as server:
        report = abuse(server, SECONDS, seed=1)
    print(report)
    assert report.counts["frames"] > 10_000 and report.counts["cuts"] > 100
    assert report.counts.get("timeouts", 0) == 0
    assert report.said == ""
    # What comes and goes with 40 connections of 64 KiB buffers; a leak would be far more.
    assert report.most["rss"] - report.before["rss"] < 40 * MEGABYTE
    assert report.after["rss"] - report.before["rss"] < 16 * MEGABYTE
    # Milliseconds, where the machine has nothing else to do.
    assert report.wait(0.5) < 0.3 and report.wait(0.99) < 2.0


def test_the_grammar_is_mostly_valid() -> None:
    """A test of the test: sessions that break at once would reach nothing."""
    dice = random.Random(1)
    events = [
        event
        for _ in range(100)
        for event in Hybi().receive_data(grammar.make_session(dice, False).data)
    ]
    errors = sum(isinstance(event, ErrorEvent) for event in events)
    assert 10 < errors <= 100 and len(events) > 50 * errors
