"""The plugin of pytest, in runs of their own, as of somebody's project."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

from .test_layers import ROOT, fresh_python

USED = """
from faye_wsgi import WebSocket

ended = []


def echo(environ, start_response):
    with WebSocket(environ) as ws:
        for message in ws:
            ws.send(message)
    ended.append(ws.close_code)
    return ws.response(environ, start_response)


def test_fixture(ws_connect):
    one, two = ws_connect(echo, "/"), ws_connect(echo, "/")
    two.send("2")
    one.send("1")
    assert (one.receive(), two.receive()) == ("1", "2")


def test_they_were_closed():
    assert ended == [1000, 1000]


def test_events(es_connect):
    from faye_wsgi import EventSource

    def feed(environ, start_response):
        es = EventSource(environ)
        es.send("hello")
        es.close()
        return es.response(environ, start_response)

    assert es_connect(feed, "/").receive().data == "hello"
"""
PATCHED = """
from gevent.monkey import is_module_patched


def test_threads_are_patched():
    assert is_module_patched("threading")
"""
UNUSED = """
import sys


def test_nothing_is_loaded():
    names = {"gevent", "faye_wsgi.testing", "faye_wsgi.client"}
    assert not names & set(sys.modules)
"""


def run(folder: Path, code: str) -> str:
    (folder / "test_project.py").write_text(code, "utf-8")
    plugin = ["-p", "faye_wsgi.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, "test_project.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_fixtures_close_what_they_have_opened(tmp_path: Path) -> None:
    assert "3 passed" in run(tmp_path, USED)


def test_a_run_that_does_not_use_it_loads_nothing(tmp_path: Path) -> None:
    assert "1 passed" in run(tmp_path, UNUSED)


def test_a_line_of_the_configuration_patches_before_conftest(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfaye_wsgi_patch = true", "utf-8")
    (tmp_path / "conftest.py").write_text(f"{PATCHED}\n\ntest_threads_are_patched()", "utf-8")
    assert "1 passed" in run(tmp_path, PATCHED)


def test_the_entry_point_names_the_plugin() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    entry = config["options.entry_points"]["pytest11"].strip()
    assert entry == "faye_wsgi = faye_wsgi.pytest_plugin"
    script = "import faye_wsgi.pytest_plugin as p; print(*p.__all__)"
    assert fresh_python(script) == "es_connect ws_connect"
