"""Threaded servers: each connection has a hub of its own, which ends with it."""

from __future__ import annotations

import pytest

from ..support.servers import Server
from ..support.servers import serve as run_server
from .harness import APP, ends, run_all, settled
from .test_leaks import (
    STYLES,
    bad_origin,
    blocked,
    clean_close,
    fin,
    job,
    never_answered,
    protocol_error,
    reset,
    servers_close,
    silent,
)

ENDINGS = [clean_close, servers_close, reset, fin, protocol_error, silent, never_answered]
ENDINGS += [blocked, bad_origin]
TIMES = 5


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "wsgiref"])
def test_one_close_event_for_each_and_nothing_left(kind: str) -> None:
    with run_server(kind, APP) as server:
        run_part(server, 1)
        before, counted = settled(server), sum(ends(server).values())
        expected = run_part(server, TIMES)
        after = settled(server)
        told = sum(ends(server).values()) - counted
    assert told == expected, "one close event for each"
    # gthread makes its threads when it needs them, up to a number, and keeps them.
    allowed = dict(before, threads=max(before["threads"], 17 + 1))
    for name, value in after.items():
        assert value <= allowed[name] + 2, f"left behind: {after}, before: {before}"


def run_part(server: Server, times: int) -> int:
    jobs = [(ending, style) for ending in ENDINGS for style in STYLES] * times
    run_all([lambda e=e, s=s: job(server, e, s) for e, s in jobs], at_once=8)
    return len(jobs)
