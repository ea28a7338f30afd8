"""Each example runs with the command in its head, on a real gunicorn.

The chat has tests of its own beside it, and in tests/browser.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from faye_wsgi import Client, EventSourceClient

from .conftest import find_program
from .support import servers
from .support.redis import RedisServer
from .support.servers import ROOT, STOP_TIMEOUT, Server, serve

EXAMPLES = ROOT / "examples"
BOUND = 60.0  # seconds, for what comes in one or two


def test_the_handbook_names_each_example() -> None:
    text = (ROOT / "docs/recipes.md").read_text("utf-8")
    named = set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
    assert named == {path.name for path in EXAMPLES.iterdir() if path.name[0] not in "._"}


def command(file: str, program: str) -> list[str]:
    """The words of the first command in the head of an example that runs `program`."""
    head = ast.get_docstring(ast.parse((EXAMPLES / file).read_text("utf-8"))) or ""
    commands = [line.split() for line in head.splitlines() if line.strip()]
    return next(words for words in commands if words[0] == program)


@contextlib.contextmanager
def example(file: str, port: int = 0, **env: str) -> Iterator[Server]:
    """Run an example as its head says, but for the port."""
    gunicorn, *kind, app = command(file, "gunicorn")
    assert kind[:2] == ["-k", "gevent"]
    with serve("gunicorn-gevent", app, options=kind[2:], port=port, env=env) as server:
        yield server


@contextlib.contextmanager
def running(arguments: list[str], **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of Python's, whose standard output is read; it ends with the block."""
    if not servers.MAY_START:
        pytest.skip("it starts a program")
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            # Its session is its own, with the processes that it has started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_TIMEOUT)


def line_of(process: subprocess.Popen[bytes]) -> str:
    """The next line of its output."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], BOUND)[0], "it printed nothing"
    return process.stdout.readline().decode().strip()


def post(url: str, **form: object) -> Any:
    with urlopen(url, urlencode(form).encode(), timeout=BOUND) as answer:
        return json.load(answer)


def data_of(es: EventSourceClient) -> Any:
    return json.loads(es.receive(BOUND).data)["data"]


def test_all_examples_are_tested() -> None:
    files = [path for path in EXAMPLES.iterdir() if path.name not in ("flask_app", "__pycache__")]
    assert len(files) >= 6
    assert [path.stem for path in files if f"test_{path.stem}" not in globals()] == []


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(file: Path) -> None:
    """Thirty lines at most, without the head and the empty ones."""
    tree = ast.parse(file.read_text("utf-8"))
    head = tree.body[0].end_lineno or 0
    code = [line for line in file.read_text("utf-8").splitlines()[head:] if line.strip()]
    assert len(code) <= 30


def test_flask_echo() -> None:
    with example("flask_echo.py") as server, Client(server.url("/echo", "ws")) as ws:
        ws.send("hello")
        assert ws.receive(BOUND) == "hello"


def test_wsgi_echo() -> None:
    with example("wsgi_echo.py") as server, Client(server.url("/", "ws")) as ws:
        ws.send(b"\0\xff")
        assert ws.receive(BOUND) == b"\0\xff"
        assert server.get("/") == (200, b"Connect here with a WebSocket.\n")


def test_django_project() -> None:
    with example("django_project/wsgi.py") as server:
        url = server.url("/rooms/tea", "ws")
        with Client(url) as ann, Client(url) as bob:
            ann.send("hello")
            for ws in (ann, bob):
                assert json.loads(ws.receive(BOUND))["data"] == "hello"
        assert json.loads(server.get("/rooms/tea/history")[1]) == {"messages": ["hello"]}


def test_the_commands_of_the_django_project() -> None:
    program, file, _ = command("django_project/wsgi.py", "python")
    with running([file, "check"]) as process:
        assert process.wait(BOUND) == 0


def test_eventsource_replay() -> None:
    with example("eventsource_replay.py") as server:
        url = server.url("/news")
        with EventSourceClient(url) as es:
            es.wait_open(BOUND)
            first = post(url, text="first")["id"]
            assert data_of(es) == "first"
        post(url, text="while it was away")
        with EventSourceClient(url, last_event_id=first) as es:
            assert data_of(es) == "while it was away"


def test_reconnecting_client() -> None:
    python, file, _ = command("reconnecting_client.py", "python")
    with example("flask_echo.py") as server:
        url, port = server.url("/echo", "ws"), server.port
        with running([file, url]) as client:
            assert line_of(client) == "hello"
            server.stop()
            with example("flask_echo.py", port=port):
                assert line_of(client) == "hello"


@pytest.mark.skipif(not importlib.util.find_spec("celery"), reason="Celery is not installed")
def test_celery_progress() -> None:
    worker = command("celery_progress.py", "celery")
    with RedisServer(find_program("redis-server")) as redis:
        with (
            running(["-m", *worker], REDIS=redis.url),
            example("celery_progress.py", REDIS=redis.url) as server,
        ):
            url = f"{server.url('/tasks')}/{post(server.url('/tasks'), steps=3)['id']}"
            with EventSourceClient(url) as es:
                assert [data_of(es) for _ in range(3)] == [{"done": n, "of": 3} for n in (1, 2, 3)]
