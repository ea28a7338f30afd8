"""Debugging: what turns it on and off, and that nothing is started where it is off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import pytest
from django.conf import settings
from django.test import override_settings
from flask import Flask

from faye_wsgi.testing import connect
from faye_wsgi.transport import watchdog
from faye_wsgi.wsgi import debug

from ..support.apps.wsgi_app import application as echo
from ..test_websocket import Exchange, exchange

__all__ = ["exchange"]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAYE_WSGI_DEBUG", "FLASK_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The hubs that would be watched."""
    found: list[Any] = []
    monkeypatch.setattr(watchdog, "watch", found.append)
    yield found
    assert not watchdog._watchdogs


def test_it_is_off_by_itself() -> None:
    assert not debug.is_on()


@pytest.mark.parametrize("value, is_on", [("1", True), ("0", False), ("", False)])
def test_the_environment_decides(value: str, is_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAYE_WSGI_DEBUG", value)
    assert debug.is_on() == is_on


@pytest.mark.parametrize("is_on", [True, False])
def test_flasks_application_decides(is_on: bool) -> None:
    app = Flask(__name__)
    app.debug = is_on
    with app.app_context():
        assert debug.is_on() == is_on
    assert not debug.is_on()


@pytest.mark.parametrize("is_on", [True, False])
def test_djangos_settings_decide(is_on: bool) -> None:
    if not settings.configured:
        settings.configure()
    with override_settings(DEBUG=is_on):
        assert debug.is_on() == is_on


def test_the_environment_overrules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAYE_WSGI_DEBUG", "0")
    app = Flask(__name__)
    app.debug = True
    with app.app_context():
        assert not debug.is_on()


def test_pythons_development_mode_decides() -> None:
    script = "from faye_wsgi.wsgi import debug; print(debug.is_on())"
    for options, answer in (["-X", "dev"], "True"), ([], "False"):
        result = subprocess.run(
            [sys.executable, *options, "-c", script], capture_output=True, text=True, timeout=30
        )
        assert result.stdout.strip() == answer, result.stderr


def test_the_hub_is_watched_from_the_first_connection_on(
    exchange: Callable[..., Exchange], watched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAYE_WSGI_DEBUG", "1")
    exchange().accept().close()
    assert watched == [gevent.get_hub()]


def test_nothing_is_started_where_it_is_off(
    exchange: Callable[..., Exchange], watched: list[Any]
) -> None:
    exchange().accept().close()
    assert not watched


def test_a_thread_that_serves_one_connection_may_block(
    watched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A threaded server: the others have threads of their own."""
    monkeypatch.setenv("FAYE_WSGI_DEBUG", "1")
    with connect(echo, "/echo") as ws:
        ws.send("hello")
        assert ws.receive() == "hello"
    assert not watched
