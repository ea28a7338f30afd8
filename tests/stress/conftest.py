"""One server for the tests of a file, and what each test must leave behind: nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.servers import Server
from ..support.servers import serve as run_server
from . import harness

COMPLAINTS = ("Traceback", "Error", "WARNING", "CRITICAL")


@pytest.fixture(scope="module", params=["gunicorn-gevent", "pywsgi"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    options = ["--worker-connections", "4000"] if "gunicorn" in request.param else []
    with run_server(request.param, harness.APP, options=options) as running:
        with harness.Client(running) as client:
            client.open("/echo").finish()
        IDLE[running] = harness.settled(running)
        yield running


# What each server holds when nothing is going on.
IDLE: dict[Server, dict[str, int]] = {}


@pytest.fixture
def clean(server: Server) -> Iterator[Server]:
    """Afterwards it holds no more than when idle, and has said nothing."""
    said = len(server.log())
    yield server
    harness.wait_for_held(server, IDLE[server])
    new = server.log()[said:]
    assert not any(word in new for word in COMPLAINTS), new
