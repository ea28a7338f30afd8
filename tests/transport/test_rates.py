"""Rates: how often a peer may send, and what happens above that."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from faye_wsgi import WebSocket
from faye_wsgi.driver.base import ReadyState
from faye_wsgi.extensions.negotiation import negotiate
from faye_wsgi.extensions.permessage_deflate import permessage_deflate
from faye_wsgi.flask import websocket
from faye_wsgi.testing import connect
from faye_wsgi.transport import rates
from faye_wsgi.transport.rates import Bucket
from faye_wsgi.transport.settings import Settings, make_settings

from ..support import frames
from .harness import TIMEOUT, Pair, pair, turn, until


class Clock:
    """Stands for ``perf_counter``: how full a bucket is, is decided by it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rates, "perf_counter", made)
    return made


def listen(both: Pair) -> list[Any]:
    """The messages that listeners get."""
    seen: list[Any] = []
    both.sink.on("message", lambda event: seen.append(event.data))
    both.sink.record("close")
    return seen


@contextlib.contextmanager
def metered(settings: Settings, **options: Any) -> Iterator[Pair]:
    """A pair whose peer's end may come behind more than its rate lets through."""
    with pair(settings, **options) as both:
        yield both
        both.connection.call_soon(both.connection.closing.lose, "the test is over")


def rests(both: Pair) -> bool:
    """Whether reading has stopped by a rate."""
    return bool(both.connection.meter.is_resting)  # type: ignore[union-attr]


def go_on(both: Pair) -> None:
    """The pause ends, as by its timer, which may have come while no time has passed."""
    both.connection.guard(both.connection.meter._go_on)  # type: ignore[union-attr]


# The bucket


def test_a_bucket() -> None:
    bucket = Bucket(10, 5, 0.0)
    assert bucket.fill(0.0) == 5 and bucket.wait(5, 0.0) == 0
    assert bucket.spend(5, 0.0) == 0
    assert bucket.wait(1, 0.0) == pytest.approx(0.1)
    assert bucket.spend(2, 0.0) == pytest.approx(0.2)  # a debt
    assert bucket.fill(0.1) == pytest.approx(-1)
    assert bucket.fill(60.0) == 5  # no more than it holds


def test_a_pause_is_not_too_short_and_not_too_long() -> None:
    slow, fast, small = Bucket(2, 10, 0.0), Bucket(1000, 100, 0.0), Bucket(1000, 1, 0.0)
    for bucket, left in ((slow, 10), (fast, 100), (small, 1)):
        assert bucket.pause(0.0) == 0
        bucket.spend(left, 0.0)
    assert slow.pause(0.0) == pytest.approx(0.5)
    assert fast.pause(0.0) == pytest.approx(rates.PAUSE)
    assert small.pause(0.0) == pytest.approx(0.001)


# Pauses


TINY = frames.text("")


@pytest.mark.parametrize("settings", [Settings(rate=(1, 10)), Settings(rate=(1, 10), max_queue=3)])
def test_no_more_messages_than_are_allowed(clock: Clock, settings: Settings) -> None:
    """Though a thousand of them would come in one read."""
    with metered(settings) as both:
        seen = listen(both)
        both.peer.send(TINY * 1000)
        until(lambda: len(seen) == 10 and rests(both))
        go_on(both)
        turn(10)
        assert len(seen) <= 11  # a pause too short brings no more than a part of a message
        clock.now += 5
        go_on(both)
        until(lambda: 14 <= len(seen) <= 15 and rests(both))
        assert both.connection.state == ReadyState.OPEN


def test_a_view_that_waits_gets_no_more_either(clock: Clock) -> None:
    with metered(Settings(rate=(1, 10))) as both:
        seen: list[Any] = []

        def view() -> None:
            while (message := both.connection.inbox.take()) is not None:
                seen.append(message)

        greenlet = gevent.spawn(view)
        for _ in range(20):
            both.peer.send_text("one at a time")
        until(lambda: len(seen) == 10 and rests(both))
        turn()
        assert len(seen) == 10
        both.connection.close(1000)
        both.peer.read_close()
        both.peer.send_close()
        greenlet.join(TIMEOUT)


def test_a_long_message_is_one(clock: Clock) -> None:
    """And it is not read in a thousand pieces."""
    reads: list[int] = []
    with metered(Settings(rate=(1, 2))) as both:
        seen = listen(both)
        received = both.connection.stream._data_received  # type: ignore[union-attr]

        def count(data: bytes) -> None:
            reads.append(len(data))
            received(data)

        both.connection.stream._data_received = count  # type: ignore[union-attr]
        gevent.spawn(both.peer.send, frames.text("x" * 500_000) + TINY)
        until(lambda: len(seen) == 2 and rests(both))
        assert len(seen[0]) == 500_000
        assert len([size for size in reads if size < 100]) <= 6


def test_compressed_messages_are_counted_as_they_come_out(clock: Clock) -> None:
    pipeline = negotiate([permessage_deflate], "permessage-deflate", 2**20)
    settings = Settings(rate=(1, 10), max_queue_bytes=50_000)
    message = packed("x" * 40_000)
    with metered(settings, pipeline=pipeline) as both:
        seen = listen(both)
        both.peer.send(message * 50)
        until(lambda: rests(both))
        until(lambda: not both.connection.dispatcher.is_busy)
        assert 0 < len(seen) <= 10
        clock.now += 100
        go_on(both)
        until(lambda: len(seen) > 10 and rests(both))
        assert len(seen) <= 20


def packed(message: str) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    payload = packer.compress(message.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
    return frames.frame(frames.TEXT, payload[:-4], rsv=4)


def test_pings_count(clock: Clock) -> None:
    with metered(Settings(rate=(1, 5))) as both:
        both.peer.send(frames.frame(frames.PING, b"") * 100)
        until(lambda: rests(both))
        for _ in range(5):
            assert both.peer.read_frame().opcode == frames.PONG
        turn()
        assert both.connection.driver.output() == b""  # type: ignore[union-attr]


def test_no_more_bytes_than_are_allowed(clock: Clock) -> None:
    with metered(Settings(rate_bytes=(1000, 5000))) as both:
        seen = listen(both)
        gevent.spawn(both.peer.send, frames.text("x" * 94) * 1000)  # 100 bytes each
        until(lambda: len(seen) == 50 and rests(both))
        clock.now += 1
        go_on(both)
        until(lambda: len(seen) == 60 and rests(both))


def test_it_goes_on_by_itself() -> None:
    with metered(Settings(rate=(200, 1))) as both:
        seen = listen(both)
        both.peer.send(TINY * 20)
        until(lambda: len(seen) == 20)


def test_the_pause_and_a_full_backlog(clock: Clock) -> None:
    """Reading goes on when both allow it, whichever comes last."""
    with metered(Settings(rate=(1, 10), max_queue=4)) as both:
        stream: Any = both.connection.stream
        both.peer.send(TINY * 100)
        until(lambda: rests(both))
        inbox = both.connection.inbox
        clock.now += 10
        go_on(both)
        assert not stream.is_reading  # nothing has been taken
        for _ in range(10):
            inbox.take()
        until(lambda: rests(both))
        while inbox.is_busy and inbox._messages:
            inbox.take()
        turn()
        assert not stream.is_reading  # there is room, but the rate is used up
        clock.now += 10
        go_on(both)
        assert stream.is_reading


def test_a_pause_does_not_hold_up_the_close(clock: Clock) -> None:
    with metered(Settings(rate=(0.001, 3))) as both:
        listen(both)
        both.peer.send(TINY * 100)
        until(lambda: rests(both))
        both.connection.close(1000)
        assert both.peer.read_close().close_code == 1000
        both.peer.send_close()
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 1000


def test_the_end_leaves_no_timer(clock: Clock) -> None:
    with metered(Settings(rate=(0.001, 3))) as both:
        both.peer.send(TINY * 100)
        until(lambda: rests(both))
        both.connection.call_soon(both.connection.closing.lose, "gone")
        until(lambda: both.connection.state == ReadyState.CLOSED)
        assert not rests(both)
        assert both.connection.meter._timer is None  # type: ignore[union-attr]


def test_a_paused_peer_is_not_held_for_dead() -> None:
    with metered(Settings(rate=(0.001, 3), ping=0.02, ping_timeout=0.01)) as both:
        both.sink.record("close")
        both.peer.send(TINY * 100)
        until(lambda: rests(both))
        for _ in range(4):
            assert both.peer.read_frame().opcode == frames.PING
        assert both.connection.state == ReadyState.OPEN


# rate_policy='close'


@pytest.mark.parametrize(
    "options, allowed, reason",
    [
        ({"rate": (1, 10)}, 10, rates.TOO_OFTEN),
        ({"rate_bytes": (1, 100)}, 1000, rates.TOO_MUCH),
        ({"rate": (1, 10), "rate_bytes": (1, 100)}, 10, rates.TOO_OFTEN),
    ],
)
def test_above_the_rate_it_is_closed(
    clock: Clock, options: dict[str, Any], allowed: int, reason: str
) -> None:
    """What came before counts, and what is too much does not."""
    with metered(make_settings(**options, rate_policy="close", max_queue=2000)) as both:
        seen = listen(both)
        both.peer.send(TINY * 1000)
        frame = both.peer.read_close()
        assert (frame.close_code, frame.close_reason) == (1008, reason)
        until(lambda: both.sink.names == ["close"])
        assert len(seen) == allowed


def test_within_the_rate_it_is_not(clock: Clock) -> None:
    with metered(make_settings(rate=(1, 10), rate_bytes=(1, 100), rate_policy="close")) as both:
        seen = listen(both)
        both.peer.send(TINY * 10)
        until(lambda: len(seen) == 10)
        clock.now += 100
        both.peer.send(TINY * 10)
        until(lambda: len(seen) == 20)
        assert both.connection.state == ReadyState.OPEN


# Options


@pytest.mark.parametrize("name", ["rate", "rate_bytes"])
@pytest.mark.parametrize(
    "wrong", [10, (10,), (0, 10), (10, 0), (-1, 1), ("1", 2), (True, 2), [1, 2], (1, float("inf"))]
)
def test_wrong_rates(name: str, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        make_settings(**{name: wrong})  # type: ignore[misc]
    with pytest.raises((TypeError, ValueError), match=name):
        websocket(**{name: wrong})(lambda ws: None)


def test_a_wrong_policy() -> None:
    with pytest.raises(ValueError, match="rate_policy is 'pause' or 'close'"):
        make_settings(rate_policy="drop")  # type: ignore[typeddict-item]


def test_without_a_rate_nothing_is_counted() -> None:
    with pair() as both:
        assert both.connection.meter is None


def test_over_a_socket() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        ws = WebSocket(environ, rate=(0.001, 3), rate_policy="close")
        for message in ws:
            ws.send(message)
        return ws.response(environ, start_response)

    with connect(app, "/") as ws:
        for number in range(4):
            ws.send(str(number))
        assert [ws.receive() for _ in range(3)] == ["0", "1", "2"]
        assert ws.wait_closed() == 1008
