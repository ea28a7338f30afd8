"""What the tests of the chat have in common: visitors with Flask's test client."""

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


class Window:
    """A page of the chat: a browser with cookies, and its WebSocket."""

    def __init__(self, client: Any, ws: Any) -> None:
        self.client, self.ws = client, ws

    def ask(self, **message: Any) -> Any:
        """Send a message to the endpoint; its answer, or refusal."""
        self.ws.send_json({**message, "ref": "asked"})
        return self.until(lambda one: one.get("ref") == "asked")

    def until(self, fits: Callable[[Any], bool]) -> Any:
        """The next message that fits; others may come before it."""
        while True:
            message = self.ws.receive_json()
            if fits(message):
                return message

    def say(self, text: str, room: str = "general", id: str = "") -> Any:
        said = {"id": id or text, "text": text}
        return self.ask(publish=f"room:{room}", data=said, key=said["id"])

    def hear(self, channel: str = "room:general") -> Any:
        """The data of the next message of a channel."""
        return self.until(lambda one: one.get("channel") == channel and "data" in one)["data"]


@pytest.fixture
def client() -> Any:
    return app.test_client()


@pytest.fixture
def join() -> Iterator[Callable[..., Window]]:
    """``join('ann')``: a window of the chat, which is closed after the test."""
    with ExitStack() as stack:

        def join(name: str) -> Window:
            client = app.test_client()
            assert client.post("/me", json={"name": name}).status_code == 200
            return Window(client, stack.enter_context(connect(client, "/channels")))

        yield join
