"""Threads: servers whose connections each have a hub of their own, and senders in others."""

from __future__ import annotations

import pytest

from ..support import frames
from ..support.servers import Server
from ..support.servers import serve as run_server
from .harness import APP, Client, ends, run_all, settled
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


def test_native_threads_that_send_are_all_let_go(clean: Server) -> None:
    """Each blocks its thread until the peer has read, and no longer."""
    threads, size = 60, 100_000
    for _ in range(3):
        with Client(clean).open(f"/native_threads?n={threads}&size={size}") as client:
            for _ in range(threads):
                assert len(client.read().payload) == size
            assert client.read().text == str(threads)
            client.finish()


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread", "wsgiref"])
@pytest.mark.parametrize("last", ["", "last"])
def test_what_a_thread_has_sent_comes_before_the_end(kind: str, last: str) -> None:
    with run_server(kind, APP) as server, Client(server) as client:
        client.open(f"/joined_thread?n=10&last={last}")
        expected = [str(number) for number in range(10)] + ([last] if last else [])
        assert [client.read().text for _ in expected] == expected
        assert client.read().opcode == frames.CLOSE
