"""Nobody starves: what one connection gets done before the others have their turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from faye_wsgi.transport.hotpath import TURN, TURN_BYTES

from ..support import frames
from .harness import Pair, pair, until

READ_SIZE = 65536
ENOUGH = 20 * TURN


def swallow(both: Pair) -> None:
    """The kernel takes everything, as it does while a peer reads as fast as it can."""
    assert both.connection.stream is not None
    both.connection.stream._send = len


def serve(both: Pair, view: Callable[[Any], None]) -> Any:
    return gevent.spawn(view, both.connection)


@pytest.mark.parametrize("size", [1, 1000, 30_000])
def test_who_sends_on_and_on_lets_others_go_first(size: int) -> None:
    sent_at_turns: list[int] = []
    sent = 0

    def flood(connection: Any) -> None:
        nonlocal sent
        while sent < ENOUGH:
            connection.send("x" * size)
            sent += 1

    def other() -> None:
        while sent < ENOUGH:
            sent_at_turns.append(sent)
            gevent.sleep(0)

    def run() -> None:
        with pair() as both:
            swallow(both)
            gevent.joinall([serve(both, flood), gevent.spawn(other)], timeout=10)

    gevent.spawn(run).join(15)  # not in the main greenlet, which has its own rule
    longest = max(b - a for a, b in zip(sent_at_turns, sent_at_turns[1:]))
    assert 0 < longest <= TURN // (1 + size // TURN_BYTES) + 1


def test_a_listener_that_sends_on_and_on_does_too() -> None:
    """Its writes are gathered as long as the batch is dealt with."""
    turns = 0
    with pair() as both:
        done: list[bool] = []

        def flood(event: Any) -> None:
            for _ in range(20 * READ_SIZE // 1000):
                both.connection.send("x" * 1000)
            done.append(True)

        swallow(both)
        both.sink.on("message", flood)
        both.peer.send_text("go")
        until(lambda: bool(both.sink.has_listeners("message")))
        while not done:
            turns += 1
            gevent.sleep(0)
    assert turns >= 10


def test_a_batch_of_messages_is_bounded() -> None:
    """A connection with much to read gives way after each read."""
    served: list[str] = []
    payload = "x" * 100
    count = 4 * READ_SIZE // len(frames.text(payload))

    def view(name: str) -> Callable[[Any], None]:
        def run(connection: Any) -> None:
            while connection.take() is not None:
                served.append(name)

        return run

    with pair() as busy, pair() as quiet:
        for both, name in ((busy, "busy"), (quiet, "quiet")):
            serve(both, view(name))
        busy.peer.sock.sendall(frames.text(payload) * (count // 2))
        quiet.peer.send_text("one")
        until(lambda: "quiet" in served)
        before = served.index("quiet")
        until(lambda: len(served) > count // 2)
    assert before <= READ_SIZE // len(frames.text(payload)) + 1
