"""The memory of large messages is given back when things are quiet."""

from __future__ import annotations

import threading
from typing import Any

import gevent
import pytest

from faye_wsgi.transport import hubs, memory
from faye_wsgi.transport.settings import MAX_WORK

from ..support import frames
from .harness import TIMEOUT, pair, until

LARGE = frames.text("x" * 200_000, mask=b"\0\0\0\0")


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What has been given back; quiet times are short."""
    calls: list[bool] = []
    monkeypatch.setattr(memory, "give_back", lambda: calls.append(True))
    monkeypatch.setattr(hubs, "QUIET", 0.02)
    return calls


@pytest.mark.parametrize(
    "data",
    [LARGE, (frames.text("", fin=False) + frames.frame(frames.CONTINUATION, "x")) * MAX_WORK],
    ids=["large", "heavy"],
)
def test_after_large_messages_memory_is_given_back(given_back: list[bool], data: bytes) -> None:
    with pair() as both:
        both.sink.on("message", lambda event: None)
        for _ in range(3):
            sender = gevent.spawn(both.peer.send, data)
            sender.get(timeout=TIMEOUT)
        until(lambda: bool(given_back))
        gevent.sleep(0.1)
        assert given_back == [True]


def test_small_messages_leave_nothing_to_give_back(given_back: list[bool]) -> None:
    with pair() as both:
        for _ in range(10):
            both.peer.send_text("x" * 1000)
            both.connection.inbox.receive(TIMEOUT)
        gevent.sleep(0.1)
    assert given_back == []


def test_the_end_of_the_last_connection_does_not_forget_it(
    given_back: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "QUIET", 1000.0)
    with pair() as both:
        gevent.spawn(both.peer.send, LARGE)
        both.connection.inbox.receive(TIMEOUT)
        assert given_back == []
    until(lambda: given_back == [True])


def test_it_runs_in_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    done = threading.Event()

    def trim(size: int) -> None:
        called.append((size, threading.get_ident() == here))
        done.set()

    here = threading.get_ident()
    monkeypatch.setattr(memory, "_find_trim", lambda: trim)
    memory.give_back()
    assert done.wait(TIMEOUT) and called == [(0, False)]


def test_a_library_without_such_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_find_trim", lambda: None)
    memory.give_back()
