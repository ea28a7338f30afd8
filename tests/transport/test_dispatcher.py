"""Listeners: one at a time, in order, in a greenlet that goes when there is nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import pytest
from greenlet import getcurrent

from ..support import frames
from .harness import TIMEOUT, Pair, pair, turn, until


@pytest.fixture
def both() -> Iterator[Pair]:
    with pair() as made:
        yield made


def test_they_never_run_in_the_hub_nor_in_the_caller(both: Pair) -> None:
    ran: list[Any] = []
    both.sink.on("message", lambda event: ran.append(getcurrent()))
    both.peer.send_text("x")
    until(lambda: ran)
    assert ran[0] is not gevent.get_hub() and ran[0] is not getcurrent()


def test_events_and_messages_keep_their_order(both: Pair) -> None:
    both.sink.record("message", "ping", "close")
    sent = frames.text("1") + frames.frame(frames.PING, b"p") + frames.text("2")
    both.peer.send(sent + frames.close(1000))
    until(lambda: both.sink.names == ["message", "ping", "message", "close"])


def test_one_that_blocks_holds_back_its_own_connection_alone(both: Pair) -> None:
    gate = gevent.event.Event()
    ran: list[str] = []

    def listen(event: Any) -> None:
        ran.append(event.data)
        gate.wait(TIMEOUT)

    both.sink.on("message", listen)
    both.peer.send(frames.text("1") + frames.text("2"))
    with pair() as other:
        other.sink.record("message")
        other.peer.send_text("x")
        until(lambda: other.sink.names == ["message"])
    assert ran == ["1"] and both.connection.dispatcher.is_busy
    gate.set()
    until(lambda: ran == ["1", "2"])


def test_pause_holds_back_messages_and_what_follows(both: Pair) -> None:
    both.sink.record("message", "ping")
    both.connection.dispatcher.pause()
    both.peer.send(frames.text("1") + frames.frame(frames.PING, b"p"))
    assert both.peer.read_frame()[:2] == (frames.PONG, b"p"), "a ping is answered all the same"
    turn()
    assert both.sink.names == []
    both.connection.dispatcher.resume()
    until(lambda: both.sink.names == ["message", "ping"])


def test_a_job_of_ones_own_has_its_turn(both: Pair) -> None:
    both.sink.record("message")
    ran: list[list[str]] = []
    both.connection.dispatcher.put("first")
    both.connection.dispatcher.run(lambda: ran.append(both.sink.names))
    until(lambda: ran)
    assert ran == [["message"]]


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, gevent.GreenletExit, gevent.Timeout])
def test_whatever_one_raises_closes_its_connection_with_1011(
    both: Pair, kind: type[BaseException]
) -> None:
    def fail(event: Any) -> None:
        raise kind()

    both.sink.on("message", fail)
    both.sink.record("close")
    both.peer.send_text("x")
    assert both.peer.read_close().close_code == 1011
    both.peer.send_close(1011)
    both.peer.close()
    until(lambda: both.sink.names == ["close"])


def test_messages_that_wait_for_a_view_go_to_a_listener_that_comes(both: Pair) -> None:
    both.peer.send(frames.text("1") + frames.text("2") + frames.frame(frames.PING, b"p"))
    assert both.peer.read_frame().opcode == frames.PONG
    counted = both.connection.backlog._count
    both.sink.record("message")
    assert both.connection.backlog._count == counted == 2, "they count on"
    until(lambda: [event.data for event in both.sink.seen] == ["1", "2"])
    assert both.connection.backlog._count == 0
