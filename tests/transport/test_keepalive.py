"""Pings by hand and by the clock, and what their pongs answer.

The deadlines themselves are tested in test_connection.py, with the ends that they lead to.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.transport.settings import Settings

from ..support import frames
from .harness import Pair, pair, until


@pytest.fixture
def both() -> Iterator[Pair]:
    with pair() as made:
        yield made


def ping(both: Pair, data: bytes, called: list[bytes]) -> None:
    assert both.connection.ping(data, lambda: called.append(data))
    assert both.peer.read_frame()[:2] == (frames.PING, data)


def pong(both: Pair, data: bytes) -> None:
    """A pong, and proof that it has been read: the peer's next ping is answered."""
    both.peer.send_frame(frames.PONG, data)
    both.peer.send_frame(frames.PING, b"after " + data)
    assert both.peer.read_frame()[:2] == (frames.PONG, b"after " + data)


def test_an_unasked_pong_answers_nothing(both: Pair) -> None:
    called: list[bytes] = []
    both.sink.record("pong")
    pong(both, b"unasked")
    ping(both, b"1", called)
    pong(both, b"another")
    assert called == [] and both.connection.clock.latency is None
    until(lambda: both.sink.names == ["pong", "pong"])
    pong(both, b"1")
    until(lambda: called == [b"1"])


def test_of_two_pings_with_the_same_data_both_are_answered(both: Pair) -> None:
    called: list[bytes] = []
    ping(both, b"", called)
    ping(both, b"", called)
    pong(both, b"")
    until(lambda: len(called) == 2)
    pong(both, b"")
    assert len(called) == 2


def test_pings_that_are_never_answered_are_not_kept_without_end(both: Pair) -> None:
    """A peer that answers none of them must not fill our memory."""
    called: list[bytes] = []
    for number in range(200):
        ping(both, b"%d" % number, called)
    pong(both, b"199")
    until(lambda: bool(called) and called[-1] == b"199")
    assert len(called) < 200 and called == [b"%d" % n for n in range(200 - len(called), 200)]


def test_no_callback_is_called_after_the_end(both: Pair) -> None:
    called: list[bytes] = []
    ping(both, b"x", called)
    both.sink.record("close")
    both.peer.send(frames.close(1000) + frames.frame(frames.PONG, b"x"))
    until(lambda: both.sink.names == ["close"])
    assert called == []


def test_pings_by_the_clock_stop_at_the_end() -> None:
    with pair(Settings(ping=0.01, ping_timeout=5.0)) as both:
        both.sink.record("close")
        assert both.peer.read_frame().opcode == frames.PING
        both.connection.close(1000)
        while (frame := both.peer.read_frame()).opcode == frames.PING:
            pass
        assert frame.opcode == frames.CLOSE
        both.peer.send_close()
        both.peer.read_eof()  # no ping comes behind the close frame
        until(lambda: both.connection.state == ReadyState.CLOSED)
