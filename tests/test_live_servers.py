"""The fixture live_server of pytest-flask and of pytest-django, in runs of their own.

Both are plugins that load in every run, and would disturb this one: each is loaded by name there.
Django's LiveServerTestCase is tested in testing_django.py.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_layers import ROOT

FLASK = """
import pytest
from tests.test_testing import app as application
from faye_wsgi import Client
from faye_wsgi.testing import ws_url


@pytest.fixture(scope="session")
def app():
    return application


def test_echo(live_server):
    with Client(ws_url(live_server, "/echo")) as ws:
        ws.send("hello")
        assert ws.receive(5) == "hello"
"""
DJANGO = """
from tests.testing_django import Client, connect, ws_url


def test_agent(live_server):
    with Client(ws_url(live_server, "/agent"), headers={"User-Agent": "live"}) as ws:
        assert ws.receive_json(5)[0] == "live"


def test_count(client, db, django_user_model):
    django_user_model.objects.create(username="ada")
    with connect(client, "/count") as ws:
        ws.send("x")
        assert ws.receive_json() == 1
"""


@pytest.mark.parametrize("patch", ["false", "true"])
@pytest.mark.parametrize(("plugin", "code"), [("pytest_flask", FLASK), ("pytest_django", DJANGO)])
def test_live_server(plugin: str, code: str, patch: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(plugin) is None:
        pytest.skip(f"{plugin} is not installed")
    (tmp_path / "test_project.py").write_text(code, "utf-8")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nfaye_wsgi_patch = {patch}", "utf-8")
    plugins = ["-p", "faye_wsgi.pytest_plugin", "-p", f"{plugin}.plugin", "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "test_project.py"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{code.count('def test_')} passed" in result.stdout
