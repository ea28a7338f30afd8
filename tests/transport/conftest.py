"""What goes wrong inside the hub makes the test fail."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from faye_wsgi.transport import closing, hubs

from .harness import until


@pytest.fixture(autouse=True)
def hub_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The exceptions that reached the hub: none, unless the test empties the list."""
    errors: list[str] = []
    hub = gevent.get_hub()

    def note(context: Any, type: Any, value: Any, trace: Any) -> None:
        errors.append("".join(traceback.format_exception(type, value, trace)))

    monkeypatch.setattr(hub, "handle_error", note)
    yield errors
    assert not errors, "\n".join(errors)


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most peers here do not end TCP themselves."""
    monkeypatch.setattr(closing, "LINGER", 0.1)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Each test ends all its connections."""
    yield
    until(lambda: not hubs.members(gevent.get_hub()), what="the end of all connections")
