"""What a connection leaves in the hub when it is over: no greenlet, whatever its listeners."""

from __future__ import annotations

import gc
from typing import Any

import gevent
import greenlet
import pytest

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.transport.connection import Connection
from faye_wsgi.transport.settings import Settings

from ..support import frames
from .harness import Sink, pair, until

TIMES = 20


def live_greenlets() -> int:
    """Those that have started and not ended, of any kind."""
    gevent.sleep(0.01)
    gc.collect()
    return sum(
        issubclass(type(thing), greenlet.greenlet) and bool(thing) for thing in gc.get_objects()
    )


def one_that_listens() -> None:
    with pair() as both:
        both.sink.record("open", "message", "ping", "close")
        both.peer.send(frames.text("x") + frames.frame(frames.PING) + frames.close(1000))
        until(lambda: both.connection.state == ReadyState.CLOSED)
        until(lambda: both.sink.names == ["open", "message", "ping", "close"])


def one_that_is_refused() -> None:
    sink = Sink()
    sink.connection = Connection(sink, Settings())
    sink.record("error", "close")
    sink.connection.fail("no such thing", 1002, "refused")
    until(lambda: sink.names == ["error", "close"])


def one_that_is_given_up() -> None:
    with pair() as both:
        both.sink.record("close")
        both.peer.close()
        until(lambda: both.sink.names == ["close"])


@pytest.mark.parametrize("use", [one_that_listens, one_that_is_refused, one_that_is_given_up])
def test_no_greenlet_is_left(use: Any) -> None:
    use()
    before = live_greenlets()
    for _ in range(TIMES):
        use()
    assert live_greenlets() - before <= 1, "at most one rests for the next listener"


def test_no_greenlet_is_left_of_many_at_once() -> None:
    """Listeners that all sleep need a greenlet each, and give it back."""
    before = live_greenlets()
    pairs = [pair() for _ in range(TIMES)]
    made = [manager.__enter__() for manager in pairs]
    for both in made:
        both.sink.on("message", lambda event: gevent.sleep(0.02))
        both.sink.record("message")
        both.peer.send_text("x")
    until(lambda: all(both.sink.names == ["message"] for both in made))
    for manager in pairs:
        manager.__exit__(None, None, None)
    assert live_greenlets() - before <= 1


def test_a_listener_has_no_other_listeners_context() -> None:
    """Context variables that one sets are not seen by the next."""
    import contextvars

    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    def listen(event: Any) -> None:
        seen.append(variable.get())
        variable.set(1)

    for _ in range(2):
        with pair() as both:
            both.sink.on("message", listen)
            both.peer.send_text("x")
            until(lambda: seen)
    assert set(seen) == {0}
