"""Failures in the hub of a worker: they take their own connections with them, and no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support import frames
from ..support.servers import Server
from ..support.servers import serve as run_server
from .harness import IN_A_PONG, IN_A_READ, Client, ends, run_all, settled, wait_for_held

VIEWS = ["/counted_echo", "/counted_events"]
FAILURES = [frames.text(IN_A_READ), frames.frame(frames.PING, IN_A_PONG)]
TIMES = 6


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with run_server("gunicorn-gevent", "tests.stress.failing:application") as running:
        yield running


def fail(server: Server, view: str, data: bytes) -> None:
    with Client(server) as client:
        client.open(view)
        client.echo("before")
        client.send(data)
        client.read_eof()


def test_no_memory_in_the_hub(server: Server) -> None:
    jobs = [(view, data) for view in VIEWS for data in FAILURES]
    with Client(server) as first:
        fail(server, "/counted_echo", FAILURES[0])
        first.open("/echo").finish()
    before, counted, said = settled(server), ends(server).get("1006", 0), len(server.log())
    honest = [Client(server).open(view) for view in VIEWS]

    run_all([lambda v=v, d=d: fail(server, v, d) for v, d in jobs * TIMES])

    run_all([client.echo for client in honest])
    for client in honest:
        client.finish()
    wait_for_held(server, before)
    failures = len(jobs) * TIMES
    assert ends(server)["1006"] - counted == failures, "one close event for each"
    log = server.log()[said:]
    assert log.count("a connection failed: 1006 closes") == failures
    assert log.count("Traceback") == failures, "each is logged once"
    assert "failed with MemoryError" not in log, "none of them came to gevent"
