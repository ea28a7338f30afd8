"""Pings by hand and by the clock, and what their pongs answer.

The deadlines themselves are tested in test_connection.py, with the ends that they lead to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import gevent
import pytest

from faye_wsgi.driver.base import STEP, ReadyState
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport import keepalive
from faye_wsgi.transport.settings import Settings, make_settings

from ..support import frames
from .harness import TIMEOUT, Pair, pair, until


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


# Messages that have arrived in part


HALVES = [
    frames.text("half")[:1],
    frames.text("half")[:-1],
    frames.text("half", fin=False),
    frames.text("x" * 70_000)[:-1],
    frames.frame(frames.PING, b"half")[:-1],
    frames.text("whole") + frames.text("half")[:3],
]


class Clock:
    """Stands for ``perf_counter``: what is late is decided by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(keepalive, "perf_counter", made)
    return made


def look(both: Pair, name: str) -> None:
    """What a timer does when it fires, which it does early under such a clock."""
    both.connection.guard(getattr(both.connection.clock, name))


def has_arrived(both: Pair, data: bytes) -> None:
    """Send ``data``, which changes what is unfinished, and wait until it has been read."""
    driver: Any = both.connection.driver
    before = driver.unfinished
    both.peer.send(data)
    until(lambda: driver.unfinished != before)


@pytest.mark.parametrize("half", HALVES)
def test_a_message_that_does_not_end(half: bytes) -> None:
    with pair(Settings(message_timeout=0.05)) as both:
        both.sink.record("error", "close")
        both.peer.send(half)
        answer = both.peer.read_close()
        assert (answer.close_code, answer.close_reason) == (1008, keepalive.LATE_MESSAGE)
        until(lambda: both.sink.names == ["error", "close"])
        assert both.sink.close_event.code == 1008


def test_a_message_that_drips(clock: Clock) -> None:
    """A byte now and then is no progress."""
    with pair(Settings(message_timeout=60)) as both:
        has_arrived(both, frames.text("x" * 1000)[:10])
        clock.now = 59
        both.connection.data_received(b"x")
        look(both, "_check_message")
        assert both.connection.state == ReadyState.OPEN
        clock.now = 61
        look(both, "_check_message")
        assert both.peer.read_close().close_code == 1008


def test_a_slow_upload_goes_on_while_it_gets_forward(clock: Clock) -> None:
    whole = frames.text("x" * 3 * STEP)
    with pair(Settings(message_timeout=60)) as both:
        for number in range(3):
            has_arrived(both, whole[number * (STEP + 4) :][: STEP + 4])
            clock.now += 59
            look(both, "_check_message")
        assert both.connection.state == ReadyState.OPEN
        both.peer.send(whole[3 * (STEP + 4) :])
        assert len(both.connection.inbox.receive(TIMEOUT)) == 3 * STEP


def test_each_message_has_a_time_of_its_own(clock: Clock) -> None:
    half, rest = frames.text("x")[:3], frames.text("x")[3:]
    with pair(Settings(message_timeout=60)) as both:
        has_arrived(both, half)
        clock.now = 59
        has_arrived(both, rest + half)
        clock.now = 118
        look(both, "_check_message")
        assert both.connection.state == ReadyState.OPEN
        clock.now = 120
        look(both, "_check_message")
        assert both.peer.read_close().close_code == 1008


def test_a_message_that_ended_leaves_no_timer(clock: Clock) -> None:
    with pair(Settings(message_timeout=60)) as both:
        has_arrived(both, frames.text("x")[:3])
        has_arrived(both, frames.text("x")[3:])
        clock.now = 61
        look(both, "_check_message")
        assert both.connection.clock._arriving is None
        has_arrived(both, frames.text("y")[:3])
        clock.now = 122
        look(both, "_check_message")
        assert both.peer.read_close().close_code == 1008


def test_what_has_arrived_is_read_before_it_is_late(clock: Clock) -> None:
    """After a busy time of the hub, its end waits in the kernel."""
    with pair(Settings(message_timeout=60)) as both:
        has_arrived(both, frames.text("x")[:3])
        both.peer.send(frames.text("x")[3:])
        clock.now = 61
        look(both, "_check_message")
        assert both.connection.inbox.receive(TIMEOUT) == "x"
        assert both.connection.state == ReadyState.OPEN


def test_a_pause_of_ours_does_not_count(clock: Clock) -> None:
    """The queue is full, and the peer cannot help it."""
    half, rest = frames.text("c")[:3], frames.text("c")[3:]
    with pair(Settings(message_timeout=60, max_queue=2)) as both:
        has_arrived(both, frames.text("a") + frames.text("b") + half)
        assert both.connection.stream is not None and not both.connection.stream.is_reading
        clock.now = 100
        look(both, "_check_message")
        clock.now = 159
        assert [both.connection.inbox.receive(TIMEOUT) for _ in range(2)] == ["a", "b"]
        clock.now = 161
        look(both, "_check_message")
        both.peer.send(rest)
        assert both.connection.inbox.receive(TIMEOUT) == "c"


# Peers that do not read


def fill(both: Pair) -> None:
    """Send until many bytes wait for the kernel."""
    stream: Any = both.connection.stream
    while stream.waiting_size < 300_000:
        stream.write(frames.text("x" * 20_000, mask=None))


@pytest.mark.parametrize("pieces", [1, 3], ids=["whole", "in fragments"])
def test_a_peer_that_does_not_read_ends_and_its_sender_hears_of_it(pieces: int) -> None:
    """It is alive, and says so."""
    with pair(Settings(send_timeout=0.2), buffers=8192) as both:
        both.sink.record("error", "close")
        data = "x" * 300_000
        message = data if pieces == 1 else iter([data] * pieces)
        sender = gevent.spawn(code_of_the_end, both, message)
        both.peer.send(frames.frame(frames.PONG) * 10)
        assert sender.get(timeout=TIMEOUT) == 1006
        until(lambda: both.sink.names == ["error", "close"])
        assert not both.descriptor_is_open


def code_of_the_end(both: Pair, message: Any) -> int | None:
    """What ``send`` raises."""
    with pytest.raises(ConnectionClosed) as caught:
        both.connection.outbox.send(message)
    return caught.value.code


def test_a_thread_that_sends_to_it_hears_of_it() -> None:
    codes: list[int | None] = []
    with pair(Settings(send_timeout=0.2), buffers=8192) as both:
        send = partial(code_of_the_end, both, "x" * 300_000)
        thread = threading.Thread(target=lambda: codes.append(send()))
        thread.start()
        until(lambda: not thread.is_alive())
        assert codes == [1006]


def test_what_is_broadcast_to_it_ends_it_too() -> None:
    with pair(Settings(send_timeout=0.2), buffers=8192) as both:
        both.sink.record("close")
        while both.connection.outbox.send_shared("x" * 20_000, {}):
            pass
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 1006


def test_a_peer_that_reads_a_little_stays(clock: Clock) -> None:
    with pair(Settings(send_timeout=60), buffers=8192) as both:
        fill(both)
        stream: Any = both.connection.stream
        for _ in range(3):
            clock.now += 59
            before = stream.waiting_size
            while stream.waiting_size == before:
                both.peer.sock.recv(4096)
                gevent.sleep(0)
            look(both, "_check_sending")
            assert both.connection.state == ReadyState.OPEN and stream.is_blocked
        clock.now += 61
        look(both, "_check_sending")
        assert both.connection.state == ReadyState.CLOSED


def test_room_that_the_kernel_has_meanwhile_counts(clock: Clock) -> None:
    """After a busy time of the hub the timer may come first."""
    with pair(Settings(send_timeout=60), buffers=8192) as both:
        fill(both)
        sock: Any = both.peer.sock
        sock.setblocking(False)
        clock.now = 61
        with pytest.raises(BlockingIOError):
            while True:
                sock.recv(65536)
        look(both, "_check_sending")
        assert both.connection.state == ReadyState.OPEN


def test_no_timer_is_left_where_all_was_read(clock: Clock) -> None:
    with pair(Settings(send_timeout=60), buffers=8192) as both:
        fill(both)
        stream: Any = both.connection.stream
        while stream.is_blocked:
            both.peer.sock.recv(65536)
            gevent.sleep(0)
        clock.now = 61
        look(both, "_check_sending")
        assert both.connection.clock._sending is None
        assert both.connection.state == ReadyState.OPEN


@pytest.mark.parametrize("never", [None, 0])
def test_without_these_deadlines_nothing_is_late(clock: Clock, never: float | None) -> None:
    settings = make_settings(message_timeout=never, send_timeout=never)
    with pair(settings, buffers=8192) as both:
        fill(both)
        has_arrived(both, frames.text("x")[:3])
        assert both.connection.clock._arriving is both.connection.clock._sending is None
