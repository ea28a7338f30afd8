"""The test application with a driver that runs out of memory at certain messages."""

from __future__ import annotations

from typing import Any

from faye_wsgi.driver import server_handshake
from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.hybi import Hybi

from . import app
from .harness import IN_A_PONG, IN_A_READ

application = app.application


class FailingHybi(Hybi):
    """Fails in the hub, where gevent would stop the watcher."""

    def receive_data(self, data: Any, room: Any = None) -> Any:
        events = super().receive_data(data, room)
        if IN_A_READ in events:
            raise MemoryError(IN_A_READ)
        return events

    def output(self) -> bytes:
        output = super().output()
        if IN_A_PONG in output and self.state == ReadyState.OPEN:
            raise MemoryError("no memory in a pong")
        return output


server_handshake.Hybi = FailingHybi  # type: ignore[misc]
