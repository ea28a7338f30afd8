"""What waits before it can go out, and in which order it goes then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import pytest

from faye_wsgi.errors import ConnectionClosed

from ..support import frames
from .harness import TIMEOUT, Pair, pair, until


@pytest.fixture
def both() -> Iterator[Pair]:
    with pair() as made:
        yield made


@pytest.mark.parametrize("message", [None, 1, object(), {"a": "b"}, {"a"}])
def test_what_is_no_message(both: Pair, message: Any) -> None:
    with pytest.raises(TypeError):
        both.connection.outbox.send(message)
    both.connection.outbox.send("still good")
    assert both.peer.read_text() == "still good"


@pytest.mark.parametrize(
    "message, says",
    [
        ({"a": 1}, r"not dict: send_json\(...\) sends it as JSON"),
        (1, r"not int: send_json\(...\) sends it as JSON"),
        (
            ["joined", "ann"],
            r"not list: send_json\(...\) .* send\(iter\(...\)\) sends its items as the",
        ),
        (
            ("joined", "ann"),
            r"not tuple: send_json\(...\) .* send\(iter\(...\)\) sends its items as the",
        ),
        ({"a"}, "generator or iterator of the pieces of one message, not set"),
        (range(3), "generator or iterator of the pieces of one message, not range"),
    ],
)
def test_the_error_says_what_to_send(both: Pair, message: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        both.connection.outbox.send(message)


@pytest.mark.parametrize("pieces", [["a", b"b"], [b"a", "b"], ["a", 1]])
def test_an_iterable_of_two_kinds(both: Pair, pieces: list[Any]) -> None:
    """It is seen before its first fragment goes out."""
    with pytest.raises(TypeError):
        both.connection.outbox.send(iter(pieces))
    both.connection.outbox.send("still good")
    assert both.peer.read_text() == "still good"


@pytest.mark.parametrize("pieces", [["a", "a", b"b"], [b"a", b"a", "b"]])
def test_an_iterable_that_turns_bad_ends_the_connection(both: Pair, pieces: list[Any]) -> None:
    """Its first fragment has gone out, and the rest never comes."""
    with pytest.raises(TypeError):
        both.connection.outbox.send(iter(pieces))
    assert both.peer.read_frame().payload == b"a"
    assert both.peer.read_close().close_code == 1011


def test_nothing_at_all_is_no_message(both: Pair) -> None:
    both.connection.outbox.send(iter(()))
    both.connection.outbox.send("next")
    assert both.peer.read_text() == "next"


def test_messages_wait_for_the_end_of_one_in_fragments(both: Pair) -> None:
    gate = gevent.event.Event()

    def pieces() -> Iterator[str]:
        yield "a"
        yield "b"
        gate.wait(TIMEOUT)
        yield "c"

    sender = gevent.spawn(both.connection.outbox.send, pieces())
    assert both.peer.read_frame()[:3] == (frames.TEXT, b"a", False)
    both.connection.outbox.send("between")
    assert both.connection.ping(b"p"), "control frames may come between"
    assert both.peer.read_frame()[:2] == (frames.PING, b"p")
    gate.set()
    sender.get(timeout=TIMEOUT)
    assert [both.peer.read_frame()[:3] for _ in range(2)] == [
        (frames.CONTINUATION, b"b", False),
        (frames.CONTINUATION, b"c", True),
    ]
    assert both.peer.read_text() == "between"
    assert both.connection.outbox.buffered == 0


def test_bytes_of_a_thread_count_until_they_are_written(both: Pair) -> None:
    outbox = both.connection.outbox
    thread = threading.Thread(target=outbox.send, args=(b"x" * 1000,))
    thread.start()
    thread.join(TIMEOUT)  # which does not let the hub run
    assert outbox.buffered == 1000
    until(lambda: outbox.buffered == 0)
    assert len(both.peer.read_frame().payload) == 1000


def test_nothing_is_sent_behind_our_close_frame(both: Pair) -> None:
    both.connection.close(1000)
    with pytest.raises(ConnectionClosed) as caught:
        both.connection.outbox.send("late")
    assert caught.value.code == 1000
    assert both.connection.outbox.send_shared("late", {}), "a broadcast passes it over"
    assert both.peer.read_close().close_code == 1000
