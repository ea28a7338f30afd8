"""What waits before it can go out, and in which order it goes then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from faye_wsgi.errors import ConnectionClosed

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
