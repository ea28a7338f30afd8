"""What is counted of connections, and how it gets to the reporters."""

from __future__ import annotations

import _thread
import gc
import logging
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from faye_wsgi.transport import served, tally
from faye_wsgi.transport.iterable import IterableStream
from faye_wsgi.transport.settings import Settings

from ..support import frames
from ..support.metrics import Recorder, recording
from .harness import Pair, pair, turn, until
from .test_fork import in_child

LABELS = ("websocket", "/room")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recording() as made:
        yield made


@pytest.fixture
def both(recorder: Recorder) -> Iterator[Pair]:
    with pair() as made:
        tally.enter(made.connection.closing, *LABELS)
        yield made


def close(both: Pair, code: int) -> None:
    both.peer.send_close(code)
    both.peer.read_close()
    both.peer.close()
    both.connection.wait_closed(5)


def test_a_connection_is_there_until_it_ends(both: Pair, recorder: Recorder) -> None:
    assert recorder["connections", "websocket", "/room"] == 1
    assert recorder["opened", "websocket", "/room"] == 1
    close(both, 1000)
    assert recorder["connections", "websocket", "/room"] == 0
    assert recorder["closed", "websocket", "/room", "1000"] == 1
    assert recorder["opened", "websocket", "/room"] == 1


def test_messages_and_bytes_both_ways(both: Pair, recorder: Recorder) -> None:
    connection = both.connection
    gevent.spawn(lambda: [connection.outbox.send(connection.inbox.take()) for _ in range(2)])
    turn()
    both.peer.send_text("one")
    assert both.peer.read_text() == "one"
    # A ping and its pong are bytes, and no messages.
    both.peer.send_frame(frames.PING, b"p")
    assert both.peer.read_frame()[0] == frames.PONG
    both.peer.send_text("three")
    assert both.peer.read_text() == "three"
    for way, size in (("in", 9 + 7 + 11), ("out", 5 + 3 + 7)):
        assert recorder["messages", "websocket", "/room", way] == 2
        assert recorder["bytes", "websocket", "/room", way] == size
        assert recorder["bytes", "websocket", "/room", way] == size, "it is counted once"
    close(both, 1000)
    assert recorder["messages", "websocket", "/room", "in"] == 2


def test_each_way_of_sending_is_counted(both: Pair, recorder: Recorder) -> None:
    turn()
    outbox = both.connection.outbox
    outbox.send("plain")
    outbox.send("timed", 5)
    outbox.send(iter(["in ", "pieces"]))
    assert outbox.send_shared("shared", {})
    outbox.send("x" * 100_000)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (outbox.send("elsewhere"), done.set()))
    thread.start()
    read = [both.peer.read_frame()[1] for _ in range(7)]
    assert read[-1] == b"elsewhere"
    thread.join(5)
    assert recorder["messages", "websocket", "/room", "out"] == 6


def test_messages_for_listeners_are_counted(recorder: Recorder) -> None:
    with pair() as both:
        tally.enter(both.connection.closing, *LABELS)
        both.sink.record("message")
        both.peer.send_text("a")
        both.peer.send_text("b")
        until(lambda: len(both.sink.seen) == 2)
        assert recorder["messages", "websocket", "/room", "in"] == 2


@pytest.mark.parametrize(
    "code, label", [(1001, "1001"), (3000, "3xxx"), (3999, "3xxx"), (4123, "4xxx")]
)
def test_peers_cannot_choose_among_thousands_of_codes(
    both: Pair, recorder: Recorder, code: int, label: str
) -> None:
    close(both, code)
    assert recorder["closed", "websocket", "/room", label] == 1


def test_a_code_of_ours_is_told(both: Pair, recorder: Recorder) -> None:
    turn()
    both.connection.close(4401, "logged out")
    assert both.peer.read_close().payload[:2] == (4401).to_bytes(2, "big")
    both.peer.send_close(4401)
    both.peer.close()
    both.connection.wait_closed(5)
    assert recorder["closed", "websocket", "/room", "4401"] == 1


def test_a_lost_connection(both: Pair, recorder: Recorder) -> None:
    both.peer.close()
    both.connection.wait_closed(5)
    assert recorder["closed", "websocket", "/room", "1006"] == 1


def test_pings(both: Pair, recorder: Recorder) -> None:
    turn()
    both.connection.ping(b"p")
    both.peer.read_frame()
    both.peer.send_frame(frames.PONG, b"p")
    until(lambda: both.connection.clock.latency is not None)
    tally.report()
    assert recorder.samples[-1] == ("ping_seconds", both.connection.clock.latency)


@pytest.mark.parametrize("timeout", [None, 30])
def test_a_sender_that_waits(recorder: Recorder, timeout: float | None) -> None:
    with pair(Settings(high_water=1), buffers=4096) as both:
        tally.enter(both.connection.closing, *LABELS)
        turn()
        both.connection.outbox.send("x" * 200_000, 0)
        sender = gevent.spawn(both.connection.outbox.send, "y" * 200_000, timeout)
        turn()
        assert recorder["send_blocked_seconds", "websocket", "/room"] == 0
        for _ in range(2):
            both.peer.read_frame()
        sender.get(timeout=5)
        assert recorder["send_blocked_seconds", "websocket", "/room"] > 0


def test_a_thread_that_waits(recorder: Recorder) -> None:
    with pair(Settings(high_water=1), buffers=4096) as both:
        tally.enter(both.connection.closing, *LABELS)
        turn()
        send = both.connection.outbox.send
        thread = threading.Thread(target=lambda: [send("x" * 200_000), send("y" * 9, 30)])
        thread.start()
        for _ in range(2):
            both.peer.read_frame()
        thread.join(5)
        assert recorder["send_blocked_seconds", "websocket", "/room"] > 0


def test_a_send_that_does_not_wait_leaves_nothing(both: Pair) -> None:
    turn()
    tally.report()
    both.connection.outbox.send("quick", 5)
    assert not tally._events


def test_the_lag_of_a_hub(recorder: Recorder) -> None:
    """Its greenlets run while it is late, so the test waits in one of them."""

    def watched() -> None:
        with pair():
            turn()
            until(lambda: tally.report() or recorder.samples)

    gevent.spawn(watched).get(timeout=10)
    (name, lag), *_ = recorder.samples
    assert name == "hub_lag_seconds" and lag >= 0


def test_a_stream_that_the_server_never_used(recorder: Recorder) -> None:
    stream = IterableStream(object(), Settings(), b"")  # type: ignore[arg-type]
    tally.enter(stream, "eventsource", "/feed")
    assert recorder["connections", "eventsource", "/feed"] == 1
    del stream
    gc.collect()
    assert recorder["connections", "eventsource", "/feed"] == 0


def test_a_stream_through_the_iterable(recorder: Recorder) -> None:
    class Sink:
        def has_listeners(self, type: str) -> bool:
            return False

    stream = IterableStream(Sink(), Settings(), b"")  # type: ignore[arg-type]
    tally.enter(stream, "eventsource", "/feed")
    stream.send(b"data: 1\r\n\r\n")
    stream.close()
    assert b"".join(stream) == b"data: 1\r\n\r\n"
    assert recorder["messages", "eventsource", "/feed", "out"] == 1
    assert recorder["bytes", "eventsource", "/feed", "out"] == 11
    assert recorder["closed", "eventsource", "/feed", "none"] == 1


def test_off_it_counts_nothing() -> None:
    with pair() as both:
        tally.enter(both.connection.closing, *LABELS)
        tally.count(tally.RECONNECTS)
        served.leave(both.connection.closing)
        assert both.connection.closing.life is None and not tally._events


# Reporting


def test_it_reports_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "INTERVAL", 0.01)
    with recording() as recorder:
        tally.count(tally.RECONNECTS)
        until(lambda: recorder.totals["broker_reconnects",])


def test_another_thread_begins_where_the_first_reports_nothing(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(_thread, "start_new_thread", lambda function, args: started.append(args))
    tally.count(tally.RECONNECTS)
    tally.count(tally.RECONNECTS)
    assert len(started) == 1
    monkeypatch.setattr(tally, "_overdue", 0.0)  # the time is up
    tally.count(tally.RECONNECTS)
    assert len(started) == 2 and tally._runner is started[1][0]


def test_a_reporter_that_fails_is_logged(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "record", fail)
        tally.count(tally.RECONNECTS)
        with caplog.at_level(logging.ERROR):
            tally.report()
    assert "the disk is full" in caplog.text
    tally.count(tally.RECONNECTS)
    assert recorder["broker_reconnects",] == 1


def test_a_child_begins_at_nothing(both: Pair, recorder: Recorder) -> None:
    tally.count(tally.RECONNECTS)
    tally.report()
    tally.count(tally.RECONNECTS)

    def count_again() -> list[Any]:
        before = dict(recorder.totals)
        tally.count(tally.RECOVERIES, ("complete",))
        tally.report()
        return [list(name) for name in recorder.totals if name not in before]

    assert in_child(count_again) == [["recoveries", "complete"]]
    assert recorder["broker_reconnects",] == 2
    assert recorder["connections", "websocket", "/room"] == 1
