"""What the tests of the chat have in common: Flask's test client, and people who join."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as --chdir does for gunicorn

from app import app  # noqa: E402

from faye_wsgi.testing import connect  # noqa: E402


@pytest.fixture
def client() -> Any:
    return app.test_client()


@pytest.fixture
def join(client: Any) -> Iterator[Callable[..., Any]]:
    """``join('ann')``: a window of the chat, which is closed after the test."""
    with ExitStack() as stack:

        def join(name: str, channel: str = "tests") -> Any:
            ws = stack.enter_context(connect(client, f"/channels/{channel}"))
            ws.send_json({"name": name, "key": f"the secret of {name}"})
            return ws

        yield join
