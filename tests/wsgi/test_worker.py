"""The worker that stops: how it is found, and that its connections go away with 1001 or 1012."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import gevent
import pytest

from faye_wsgi import EventSource
from faye_wsgi.wsgi import worker

from ..support import servers
from ..support.frames import TEXT
from ..support.peer import Peer
from ..support.waiting import wait_until
from ..test_websocket import Exchange, exchange
from ..transport.harness import TIMEOUT

__all__ = ["exchange"]


class Worker:
    """As gunicorn's: it answers SIGTERM with a method of its own."""

    alive = True

    def handle_exit(self, *args: Any) -> None:
        self.alive = False


@pytest.fixture
def stopping() -> Iterator[Worker]:
    """The worker of this process, as long as the test lasts."""
    mine = Worker()
    before = signal.signal(signal.SIGTERM, mine.handle_exit)
    yield mine
    signal.signal(signal.SIGTERM, before)


def test_gunicorns_worker_tells_that_it_stops() -> None:
    base = pytest.importorskip("gunicorn.workers.base")
    assert "self.alive = True" in inspect.getsource(base.Worker.__init__)
    assert "self.alive = False" in inspect.getsource(base.Worker.handle_exit)
    assert "SIGTERM, self.handle_exit" in inspect.getsource(base.Worker.init_signals)


def test_gunicorns_worker_counts_its_requests() -> None:
    base = pytest.importorskip("gunicorn.workers.base")
    source = inspect.getsource(base.Worker.__init__)
    assert "self.nr = 0" in source and "self.max_requests = " in source


def test_gunicorn_calls_the_hooks_for_the_end() -> None:
    base = pytest.importorskip("gunicorn.workers.base")
    arbiter = pytest.importorskip("gunicorn.arbiter")
    assert "self.cfg.worker_exit(self, worker)" in inspect.getsource(arbiter.Arbiter.spawn_worker)
    assert "self.cfg.worker_int(self)" in inspect.getsource(base.Worker.handle_quit)
    assert "self.cfg.worker_abort(self)" in inspect.getsource(base.Worker.handle_abort)


def test_a_worker_is_found_by_its_signal_handler() -> None:
    mine = Worker()
    before = signal.signal(signal.SIGTERM, mine.handle_exit)
    try:
        is_stopping = worker.find_stop_sign()
        assert is_stopping is not None and not is_stopping()
        mine.handle_exit()
        assert is_stopping()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert worker.find_stop_sign() is None


def test_workers_are_counted() -> None:
    class Arbited(Worker):
        cfg = SimpleNamespace(workers=3)

    assert worker.count_workers() == 1
    before = signal.signal(signal.SIGTERM, Arbited().handle_exit)
    try:
        assert worker.count_workers() == 3
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, lambda *args: None, [].append])
def test_another_handler_is_no_workers(handler: Any) -> None:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        assert worker.find_stop_sign() is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_connection_goes_away_when_the_worker_stops(
    stopping: Worker, exchange: Callable[..., Exchange]
) -> None:
    made = exchange()
    ws = made.accept()
    ws.on("message", lambda event: ws.send(event.data))
    made.peer.send_text("still here")
    assert made.peer.read_text() == "still here"
    stopping.handle_exit()
    assert made.peer.read_close().close_code == 1001
    made.peer.send_close(1001)
    ws.wait_closed(TIMEOUT)
    assert ws.close_code == 1001


def test_a_connection_that_comes_after_the_sign_goes_away_too(
    stopping: Worker, exchange: Callable[..., Exchange]
) -> None:
    """gunicorn's worker accepts connections for up to a second more."""
    first = exchange()
    ws = first.accept()
    stopping.handle_exit()
    assert first.peer.read_close().close_code == 1001
    second = exchange()
    late = second.accept()  # while the first one still waits for its peer's close frame
    assert ws.ready_state == ws.CLOSING
    assert second.peer.read_close().close_code == 1001
    for made, one in ((first, ws), (second, late)):
        made.peer.send_close(1001)
        one.wait_closed(TIMEOUT)


def test_streams_end_when_the_worker_stops(
    stopping: Worker, exchange: Callable[..., Exchange]
) -> None:
    """Each client is told another time to come back, since browsers add nothing random to it."""
    streams = [exchange(HTTP_UPGRADE=None, HTTP_ACCEPT="text/event-stream") for _ in range(5)]
    kept = [EventSource(made.environ, ping=None, retry=2) for made in streams]
    assert [made.peer.read_head().status for made in streams] == [200] * 5
    stopping.handle_exit()
    told = set()
    for made, es in zip(streams, kept):
        es.wait_closed(TIMEOUT)
        first, last = re.findall(rb"retry: (\d+)\r\n\r\n", made.peer.read_available())
        assert first == b"2000" and 2000 <= int(last) <= 4000
        told.add(last)
    assert len(told) > 1


# A worker that takes its time


def configured(**settings: Any) -> Any:
    """A worker with gunicorn's own configuration, found as the one of this process."""
    config = pytest.importorskip("gunicorn.config").Config()
    for name, value in settings.items():
        config.set(name, value)
    made: Any = Worker()
    made.cfg, made.nr, made.max_requests = config, 7, 10
    return made


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAYE_WSGI_CLOSE_SPREAD", "20")


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan", "1,5"])
def test_a_time_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAYE_WSGI_CLOSE_SPREAD", text)
    with pytest.raises(ValueError, match="FAYE_WSGI_CLOSE_SPREAD is a number of seconds, not"):
        worker._read_spread()


@pytest.mark.parametrize(("text", "seconds"), [("", 0.0), ("0", 0.0), ("20", 20.0), ("1.5", 1.5)])
def test_a_time(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAYE_WSGI_CLOSE_SPREAD", text)
    assert worker._read_spread() == seconds


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 20.0),
        ({"graceful_timeout": 10}, 6.0),
        ({"timeout": 9}, 5.0),
        ({"timeout": 0}, 20.0),
        ({"graceful_timeout": 2}, 0.0),
    ],
)
def test_the_time_that_gunicorn_leaves(
    settings: dict[str, int], seconds: float, spread: None
) -> None:
    stopping = configured(**settings)
    sign = worker._Sign(stopping)
    assert sign() is None
    stopping.handle_exit()
    code, left = sign() or pytest.fail("it stops")
    assert code == 1012 and seconds - 1 < left <= seconds
    later = sign()
    assert later is not None and later.left <= left, "it does not begin anew"


@pytest.mark.parametrize(("workers", "seconds"), [(1, 0.0), (2, 20.0)])
def test_a_single_worker_that_is_replaced_when_it_has_ended(
    workers: int, seconds: float, spread: None
) -> None:
    """With `max_requests` gunicorn starts the next one only then."""
    stopping = configured(workers=workers)
    stopping.nr = stopping.max_requests
    stopping.handle_exit()
    stop = worker._Sign(stopping)()
    assert stop is not None and seconds - 1 < stop.left <= seconds


@pytest.mark.parametrize("name", ["worker_int", "worker_abort"])
def test_a_worker_that_is_hurried(name: str, spread: None) -> None:
    """By SIGQUIT, SIGINT and the reloader, or by SIGABRT. The application's hook is called, too."""
    called: list[Any] = []
    stopping = configured(**{name: lambda worker: called.append(worker)})
    sign = worker._Sign(stopping)
    stopping.handle_exit()
    assert sign() != (1001, 0.0)
    getattr(stopping.cfg, name)(stopping)
    assert sign() == (1001, 0.0) and called == [stopping]


def test_a_worker_ends_when_its_connections_have(
    spread: None, exchange: Callable[..., Exchange]
) -> None:
    """gunicorn's hook waits for those whose views have returned."""
    called: list[Any] = []
    stopping = configured(worker_exit=lambda arbiter, worker: called.append(worker))
    worker._Sign(stopping)
    exit_hook = stopping.cfg.worker_exit
    exit_hook(None, stopping)
    assert called == [stopping], "it does not stop: there is nothing to wait for"
    made = exchange()
    ws = made.accept()
    stopping.handle_exit()
    waiting = gevent.spawn(exit_hook, None, stopping)
    made.peer.send_text("still here")
    assert ws.receive(TIMEOUT) == "still here" and not waiting.dead
    made.peer.finish()
    waiting.join(TIMEOUT)
    assert called == [stopping] * 2


def test_without_the_option_gunicorns_hooks_are_left_alone(stopping: Worker) -> None:
    plain = configured()
    hooks = [getattr(plain.cfg, name) for name in ("worker_exit", "worker_int", "worker_abort")]
    sign = worker._Sign(plain)
    assert hooks == [
        getattr(plain.cfg, name) for name in ("worker_exit", "worker_int", "worker_abort")
    ]
    plain.handle_exit()
    assert sign() == (1001, 0.0)


# As many as need more than the second after which gunicorn's worker would end by itself.
CROWD = 180


@pytest.mark.parametrize(
    ("signal_name", "path", "code"),
    [("SIGHUP", "/events", 1012), ("SIGTERM", "/echo", 1012), ("SIGQUIT", "/events", 1001)],
)
def test_a_crowd_is_closed_bit_by_bit(signal_name: str, path: str, code: int) -> None:
    """Each is served until its close frame comes: 1012, unless there is no time."""
    environment = {"FAYE_WSGI_CLOSE_SPREAD": "60"}
    options = ["--graceful-timeout=20"]
    with servers.serve("gunicorn-gevent", options=options, env=environment) as server:
        peers = [Peer(server).open(path) for _ in range(CROWD)]
        server.signal(getattr(signal, signal_name))
        wait_until(lambda: readable(peers))
        # Not after SIGQUIT: a process that ends with unread bytes resets the connection.
        open_ones = set(peers) - readable(peers) if code == 1012 else set()
        for peer in open_ones:
            peer.send_text("still here")
        codes, answered = [], 0
        for peer in peers:
            frame = peer.read_frame()
            if peer in open_ones and frame.opcode == TEXT:
                answered += 1
                frame = peer.read_close()
            codes.append(frame.close_code)
            with contextlib.suppress(OSError):  # the worker may have waited too long for it
                peer.send_close(code)
            peer.close()
        assert codes == [code] * CROWD
        assert answered > CROWD // 4 or code != 1012
        assert "Traceback" not in server.log(), server.log()


def readable(peers: list[Peer]) -> set[Peer]:
    found = select.select([peer.sock for peer in peers], [], [], 0)[0]
    return {peer for peer in peers if peer.sock in found}


def test_connections_go_away_when_the_interpreter_ends(exchange: Callable[..., Exchange]) -> None:
    """SIGQUIT ends gunicorn's worker without a sign: only `atexit` is left."""
    made = exchange()
    ws = made.accept()
    made.peer.send_close(1001)  # ready to be read as the answer
    worker._at_exit()
    assert made.peer.read_close().close_code == 1001
    assert ws.close_code == 1001


def test_the_end_of_the_interpreter_is_not_held_up_by_a_silent_peer(
    exchange: Callable[..., Exchange],
) -> None:
    made = exchange()
    ws = made.accept()
    worker._at_exit()
    assert made.peer.read_close().close_code == 1001
    assert ws.ready_state == ws.CLOSING


def test_an_interpreter_without_a_hub_gets_none_at_its_end() -> None:
    hubs: list[Any] = []

    def end() -> None:
        worker._at_exit()
        hubs.append(gevent._hub_local.get_hub_if_exists())

    thread = threading.Thread(target=end)
    thread.start()
    thread.join(TIMEOUT)
    assert hubs == [None]


# Reloaders of development servers

FLASK = """
from flask import Flask
from faye_wsgi.flask import websocket

app = Flask(__name__)

@app.route("/view", websocket=True)
@websocket
def view(ws):
    for message in ws:
        ws.send(message)

@app.route("/listener", websocket=True)
@websocket
def listener(ws):
    ws.on("message", lambda event: ws.send(event.data))
"""
DJANGO = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
from django.urls import path
from faye_wsgi.django import websocket

settings.configure(
    ALLOWED_HOSTS=["*"], DEBUG=True, ROOT_URLCONF=__name__, SECRET_KEY="for tests only"
)

@websocket
def view(request, ws):
    for message in ws:
        ws.send(message)

@websocket
def listener(request, ws):
    ws.on("message", lambda event: ws.send(event.data))

urlpatterns = [path("view", view), path("listener", listener)]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""
RELOADING = {
    "flask": (FLASK, ["-m", "flask", "--app", "app", "run", "--debug", "--port"]),
    "django": (DJANGO, ["app.py", "runserver"]),
}


@contextlib.contextmanager
def reloading(code: str, command: list[str], folder: Path) -> Iterator[tuple[Path, int]]:
    """A development server with its reloader: the file of its application, and its port."""
    if not servers.MAY_START:
        pytest.skip("it starts a server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "app.py"
    file.write_text(code, "utf-8")
    process = subprocess.Popen(
        [sys.executable, *command, str(port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(servers.ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield file, port
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own: the reloader and its child
        process.wait(TIMEOUT)


def connect(port: int) -> Peer | None:
    """The peer, as soon as the server listens."""
    try:
        return Peer(sock=socket.create_connection(("127.0.0.1", port), TIMEOUT), timeout=TIMEOUT)
    except ConnectionRefusedError:
        return None


def touch(file: Path) -> None:
    """Once more: Django's reloader may not have looked at the file for the first time yet."""
    seconds = file.stat().st_mtime + 1
    os.utime(file, (seconds, seconds))


def is_readable(peer: Peer) -> bool:
    return bool(select.select([peer.sock], [], [], 0.5)[0])


@pytest.mark.parametrize("path", ["/view", "/listener"])
@pytest.mark.parametrize("kind", list(RELOADING))
def test_a_connection_goes_away_when_a_development_server_reloads(
    kind: str, path: str, tmp_path: Path
) -> None:
    with reloading(*RELOADING[kind], tmp_path) as (file, port):
        peer = wait_until(lambda: connect(port), 30)
        with peer.open(path):
            peer.send_text("here")
            assert peer.read_text() == "here"
            wait_until(lambda: touch(file) or is_readable(peer), 30)
            assert peer.read_close().close_code == 1001
