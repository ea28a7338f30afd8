"""2,000 connections at once in one worker, each answered, blocking and detached."""

from __future__ import annotations

import time
from functools import partial

import pytest

from ..support.servers import Server
from .harness import Client, held, run_all

CROWD = 2000


@pytest.mark.parametrize("path, greenlets", [("/echo", CROWD), ("/events", 0)])
def test_two_thousand_at_once(clean: Server, path: str, greenlets: int) -> None:
    before = held(clean)
    clients = run_all([lambda: Client(clean).open(path)] * CROWD)
    try:
        now = held(clean)
        assert now["descriptors"] - before["descriptors"] >= CROWD
        if not greenlets:
            assert now["greenlets"] - before["greenlets"] < 50, "idle ones need none"
        for number in range(2):
            run_all([partial(c.echo, f"{number}:{n}") for n, c in enumerate(clients)], CROWD)
        started = time.monotonic()
        assert clean.get("/plain")[0] == 200
        assert time.monotonic() - started < 2
        run_all([client.finish for client in clients])
    finally:
        for client in clients:
            client.close()
