"""Every kind of server starts, answers an ordinary request, logs it and stops."""

from __future__ import annotations

import os
from typing import Callable

import pytest

from .support.servers import KINDS, Server, serve
from .support.waiting import wait_until

BARE = "tests.support.apps.bare:application"

CASES = [
    pytest.param(kind, {name: True for name in ways}, id="-".join((kind, *ways)))
    for kind, what in KINDS.items()
    if kind != "django"
    for ways in [(), *((("tls",),) if what.tls else ()), *((("unix",),) if what.unix else ())]
]


@pytest.mark.parametrize("kind, how", CASES)
def test_starts_answers_and_stops(kind: str, how: dict[str, bool]) -> None:
    with serve(kind, BARE, **how) as server:
        status, body = server.get("/page")
        assert (status, body) == (200, b"bare\n")
        wait_until(lambda: '"GET /page HTTP/1.0' in server.access_log())
        assert len(server.worker_pids()) == 1
        assert "Traceback" not in server.log()
    assert server.process.poll() is not None
    assert not os.path.exists(server.folder)


def test_two_workers(serve: Callable[..., Server]) -> None:
    server = serve("gunicorn-gevent", BARE, workers=2)
    wait_until(lambda: len(server.worker_pids()) == 2, what="two workers")


def test_the_same_port_again() -> None:
    with serve("gunicorn-gevent", BARE) as first:
        pass
    with serve("gunicorn-gevent", BARE, port=first.port) as second:
        assert second.port == first.port
        assert second.get("/")[0] == 200
