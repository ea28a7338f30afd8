"""The worker that stops: how it is found, and that its connections go away with 1001."""

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
from ..support.peer import Peer
from ..support.waiting import wait_until
from ..test_websocket import Exchange, exchange
from ..transport.harness import TIMEOUT, until

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
        until(lambda es=es: es.closed, what="the end of the stream")
        first, last = re.findall(rb"retry: (\d+)\r\n\r\n", made.peer.read_available())
        assert first == b"2000" and 2000 <= int(last) <= 4000
        told.add(last)
    assert len(told) > 1


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
