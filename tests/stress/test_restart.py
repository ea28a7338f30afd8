"""Restarts under load: every client is told with 1001, and the old worker is gone soon."""

from __future__ import annotations

import os
import signal
import time

import gevent
import pytest

from ..support import frames
from ..support.servers import Server
from ..support.servers import serve as run_server
from .harness import APP, Client, run_all

CROWD = 200
PATIENCE = 4.0  # for the machine's noise: it takes about a second


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def last_words(client: Client) -> int | None:
    """The code that a client sees, which it answers."""
    try:
        code = client.read_close()
    except (EOFError, OSError):
        return None
    client.send(frames.close(code))
    client.read_eof()
    client.close()
    return code


def restart(server: Server, trigger: str) -> None:
    if trigger == "max-requests":
        for _ in range(30):  # the crowd's handshakes count too
            server.get("/plain")
    else:
        server.signal(getattr(signal, trigger))


@pytest.mark.parametrize("trigger", ["SIGHUP", "SIGTERM", "SIGQUIT", "max-requests"])
def test_every_client_is_told(trigger: str) -> None:
    options = ["--max-requests", str(CROWD + 20)] if trigger == "max-requests" else []
    with run_server("gunicorn-gevent", APP, options=options) as server:
        (old,) = server.worker_pids()
        paths = ["/echo", "/events"] * (CROWD // 2)
        clients = run_all([lambda path=path: Client(server).open(path) for path in paths])
        run_all([client.echo for client in clients])
        readers = [gevent.spawn(last_words, client) for client in clients]
        gevent.sleep(0)
        started = time.monotonic()
        restart(server, trigger)
        while is_running(old) and time.monotonic() - started < 10:
            if trigger in ("SIGTERM", "SIGQUIT"):
                server.process.poll()
            gevent.sleep(0.01)
        took = time.monotonic() - started
        gevent.joinall(readers, timeout=5)
        codes = [reader.value for reader in readers]
        for client in clients:
            client.close()
        assert codes == [1001] * CROWD, {code: codes.count(code) for code in set(codes)}
        assert took < PATIENCE, f"{took:.1f} s"
        print(f"{trigger}: the old worker was gone after {took:.2f} s")
        if trigger in ("SIGHUP", "max-requests"):
            assert server.get("/plain")[0] == 200
            with Client(server) as client:
                client.open("/echo").finish()
        assert "Traceback" not in server.log(), server.log()
