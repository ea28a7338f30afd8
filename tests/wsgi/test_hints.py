"""Hints: a listener that uses the context of a request that is over is told what to do."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from flask import Flask, current_app, g, request, session
from werkzeug.local import LocalProxy

from faye_wsgi.wsgi.hints import find_hint

from ..test_websocket import Exchange, exchange
from ..transport.harness import until

__all__ = ["exchange"]

# As Flask-Login has it: a function that returns None where there is no request.
current_user: Any = LocalProxy(lambda: None)
missing: Any = None


def hint_for(function: Callable[[], object]) -> str:
    try:
        function()
    except Exception as error:
        return find_hint(error)
    raise AssertionError("it raised nothing")


def helper() -> Any:
    return current_user.id


def imported_here() -> Any:
    from tests.wsgi.test_hints import current_user as user

    return user.id


@pytest.mark.parametrize(
    "function",
    [
        lambda: request.args,
        lambda: session["room"],
        lambda: g.user,
        lambda: current_app.config,
        lambda: current_user.id,
        lambda: setattr(current_user, "seen", True),
        lambda: [one for one in "ab" if current_user.knows(one)],
        helper,
        imported_here,
    ],
)
def test_a_missing_context_is_explained(function: Callable[[], object]) -> None:
    hint = hint_for(function)
    assert "keep their values in the view (user_id = current_user.id)" in hint
    assert "with app.app_context():" in hint


def working_outside() -> None:
    raise RuntimeError("Working outside of request context.")


def another_none() -> Any:
    return missing.id


def another_attribute() -> Any:
    assert not current_user
    return [].id  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "function", [working_outside, another_none, another_attribute, lambda: 1 / 0]
)
def test_another_error_is_left_as_it_is(function: Callable[[], object]) -> None:
    assert hint_for(function) == ""


def test_an_error_inside_of_a_context_is_left_as_it_is() -> None:
    with Flask(__name__).app_context():
        assert hint_for(lambda: g.user) == ""


def test_a_proxy_that_raises_does_no_harm() -> None:
    broken = LocalProxy(lambda: 1 / 0)

    def use_both() -> Any:
        return (missing.id, broken)

    assert hint_for(use_both) == ""


def test_an_error_without_a_traceback_has_no_hint() -> None:
    assert find_hint(RuntimeError()) == ""


def log_of(made: Exchange, listener: Any, caplog: pytest.LogCaptureFixture) -> str:
    ws = made.accept()
    ws.on("message", listener)
    made.peer.send_text("hello")
    assert made.peer.read_close().close_code == 1011
    until(lambda: caplog.records)
    assert len(caplog.records) == 1
    return caplog.text


def test_the_log_has_the_hint(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    log = log_of(exchange(), lambda event: current_user.id, caplog)
    assert "a listener raised: 1011 closes <WebSocket ws://example.com/chat OPEN>. A list" in log
    assert "A listener runs outside of Flask's request" in log and "Traceback" in log


def test_the_log_has_no_hint_where_there_is_none(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    log = log_of(exchange(), lambda event: 1 / 0, caplog)
    assert "a listener raised: 1011 closes <WebSocket ws://example.com/chat OPEN>\n" in log
