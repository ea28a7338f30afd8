"""Streams and pipes of a WebSocket, in this process.

Events and listeners are tested in test_events.py, blocking calls in test_websocket.py, and
streams through real servers in test_streams.py.
"""

from __future__ import annotations

from typing import Any, Callable

import pytest

from faye_wsgi import CloseCode, ConnectionClosed, WebSocket

from .support import frames
from .support.peer import Peer
from .test_websocket import TIMEOUT, Exchange, exchange, pair
from .transport.harness import NOTHING_FOR, turn, until

__all__ = ["exchange", "pair"]


class Target:
    """What a pipe may end in; `end` is called at the close."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.got: list[Any] = []
        self.ended = 0
        self.failure = failure

    def write(self, data: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.got.append(data)

    def end(self) -> None:
        self.ended += 1
        raise ConnectionClosed(1000, "it was closed already")  # which is no failure


class Sender:
    def __init__(self) -> None:
        self.got: list[Any] = []

    def send(self, data: Any) -> None:
        self.got.append(data)


def test_write_tells_whether_there_is_room(exchange: Callable[..., Exchange]) -> None:
    made = exchange()
    ws = made.accept(high_water=1 << 20)
    assert ws.write("small") is True
    assert made.peer.read_text() == "small"


def test_end_sends_a_last_message(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.end("last")
    assert peer.read_text() == "last"
    assert peer.read_close().close_code == 1000


def test_end_without_a_message(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.end()
    assert peer.read_close().close_code == 1000


def test_a_pause_holds_messages_back_until_it_is_over(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    got: list[Any] = []
    ws.on("message", lambda event: got.append(event.data))
    ws.pause()
    peer.send(frames.text("a") + frames.text("b") + frames.close(1000))
    turn()
    with pytest.raises(TimeoutError):
        ws.wait_closed(NOTHING_FOR)
    assert got == []
    ws.resume()
    until(lambda: got == ["a", "b"])
    peer.close()
    ws.wait_closed(TIMEOUT)


def test_a_pipe_into_itself_is_an_echo(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    assert ws.pipe(ws) is ws
    peer.send(frames.text("a") + frames.frame(frames.BINARY, b"b"))
    assert peer.read_text() == "a"
    assert peer.read_frame()[:2] == (frames.BINARY, b"b")
    peer.finish()


def test_a_pipe_ends_in_write_send_or_a_function(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    target, sender, called = Target(), Sender(), []
    assert ws.pipe(target) is target
    ws.pipe(sender)
    ws.pipe(called.append)
    peer.send_text("x")
    until(lambda: target.got == sender.got == called == ["x"])
    peer.send_close()
    until(lambda: target.ended == 1)
    peer.read_close()


@pytest.mark.parametrize("wrong", [None, "a place", 7, object()])
def test_what_a_pipe_cannot_end_in(pair: tuple[WebSocket, Peer], wrong: Any) -> None:
    ws, _ = pair
    with pytest.raises(TypeError, match="pipe"):
        ws.pipe(wrong)
    assert not ws.has_any_listeners


def test_a_pipe_may_leave_its_destination_open(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    target = Target()
    ws.pipe(target, end=False)
    closed: list[int] = []
    ws.on("close", lambda event: closed.append(event.code))
    peer.send(frames.text("x") + frames.close(1000))
    peer.read_close()
    peer.close()
    until(lambda: closed == [1000])
    assert (target.got, target.ended) == (["x"], 0)


def test_a_destination_that_closes_ends_its_source(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.pipe(Target(ConnectionClosed(1006, "")))
    peer.send(frames.text("x") * 3)
    assert peer.read_close().close_code == CloseCode.GOING_AWAY
    assert not ws.has_listeners("message")
