"""docs/tutorial.md: its room, its test, and what it says of a server that is stopped.

tests/test_channels_guide.py and tests/browser/test_tutorial.py run the chat with which it ends.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faye_wsgi import Client

from .support.servers import serve
from .test_layers import fresh_python
from .test_readme import ROOT, blocks

PAGE = ROOT / "docs/tutorial.md"
TIMEOUT = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the files of step 5: those of step 3, but for the view, which step 4 replaces."""
    echo, page, room, test = (block.code for block in blocks(PAGE))
    start = page.index("@route(app, '/room'")
    (tmp_path / "app.py").write_text(page[:start] + room, "utf-8")
    (tmp_path / "test_app.py").write_text(test, "utf-8")
    (tmp_path / "echo.py").write_text(echo, "utf-8")
    return tmp_path


def test_its_test(folder: Path) -> None:
    path = f"import sys; sys.path.insert(0, {str(folder)!r})"
    fresh_python(f"{path}\nfrom test_app import test_all_hear_it\ntest_all_hear_it()")


def test_two_windows(folder: Path) -> None:
    with serve("gunicorn-gevent", "app:app", cwd=folder) as server:
        status, page = server.get("/")
        assert status == 200 and b"/room" in page
        with Client(server.url("/room", "ws")) as ada, Client(server.url("/room", "ws")) as ben:
            ada.send("hello")
            assert ada.receive(TIMEOUT) == ben.receive(TIMEOUT) == "hello"


def test_a_server_that_goes_away(folder: Path) -> None:
    """The command line says 1001."""
    with serve("gunicorn-gevent", "echo:app", cwd=folder) as server:
        talk = subprocess.Popen(
            [sys.executable, "-m", "faye_wsgi", server.url("/echo", "ws")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            assert talk.stdin and talk.stdout
            talk.stdin.write("hello\n")
            talk.stdin.flush()
            assert talk.stdout.readline() == "hello\n"
            server.signal(signal.SIGTERM)
            _, said = talk.communicate(timeout=TIMEOUT)
        finally:
            talk.kill()
    assert re.search(r"\b1001\b", said) and talk.returncode == 1
