"""Connection: receiving, sending, pings and the end, on a socket pair in one process."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import greenlet
import pytest

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.events import PongEvent
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.extensions.negotiation import negotiate
from faye_wsgi.extensions.permessage_deflate import permessage_deflate
from faye_wsgi.transport.settings import Settings

from ..support import frames
from .harness import NOTHING_FOR, TIMEOUT, Pair, is_open, pair, turn, until

MEGABYTE = 1 << 20


@pytest.fixture
def both() -> Iterator[Pair]:
    """A connection with the default settings, and its peer."""
    with pair() as made:
        yield made


# receive


def test_messages_in_order_and_of_both_kinds(both: Pair) -> None:
    both.peer.send(frames.text("one") + frames.frame(frames.BINARY, b"\x00") + frames.text(""))
    assert [both.connection.inbox.receive(TIMEOUT) for _ in range(3)] == ["one", b"\x00", ""]


def test_receive_waits_for_a_message(both: Pair) -> None:
    reader = gevent.spawn(both.connection.inbox.receive, TIMEOUT)
    turn()
    both.peer.send_text("late")
    assert reader.get(timeout=TIMEOUT) == "late"


@pytest.mark.parametrize("seconds", [0, 0.03])
def test_receive_gives_up_in_time(both: Pair, seconds: float) -> None:
    started = time.perf_counter()
    with pytest.raises(TimeoutError):
        both.connection.inbox.receive(seconds)
    assert seconds <= time.perf_counter() - started + 0.005 < seconds + 0.5
    both.peer.send_text("then")
    assert both.connection.inbox.receive(TIMEOUT) == "then", "no message was lost"


def test_a_receive_that_cannot_wait_takes_no_message(both: Pair) -> None:
    for wrong in ("1", object()):
        with pytest.raises(TypeError):
            both.connection.inbox.receive(wrong)  # type: ignore[arg-type]
    both.peer.send_text("for the next")
    assert both.connection.inbox.receive(TIMEOUT) == "for the next"


def test_receive_with_no_time_still_gives_what_is_there(both: Pair) -> None:
    both.peer.send_text("here")
    gevent.sleep(NOTHING_FOR)
    assert both.connection.inbox.receive(0) == "here"


def test_two_greenlets_are_both_served_in_order(both: Pair) -> None:
    got: list[tuple[int, Any]] = []

    def read(who: int) -> None:
        for _ in range(3):
            got.append((who, both.connection.inbox.receive(TIMEOUT)))

    readers = [gevent.spawn(read, who) for who in (1, 2)]
    turn()
    both.peer.send(b"".join(frames.text(str(n)) for n in range(6)))
    gevent.joinall(readers, timeout=TIMEOUT, raise_error=True)
    assert [data for _, data in got] == list("012345")
    assert got[0][0] == 1 and got[1][0] == 2, "who came first is served first"


def test_a_killed_reader_takes_no_message_with_it(both: Pair) -> None:
    victim = gevent.spawn(both.connection.inbox.receive)
    heir = gevent.spawn(both.connection.inbox.receive, TIMEOUT)
    turn()
    victim.kill()
    both.peer.send_text("mine")
    assert heir.get(timeout=TIMEOUT) == "mine"
    assert isinstance(victim.value, gevent.GreenletExit)


def test_a_message_and_a_kill_in_the_same_turn(both: Pair) -> None:
    """The message has arrived when the kill strikes: somebody must still get it."""
    victim = gevent.spawn(both.connection.inbox.receive)
    turn()
    both.peer.send_text("kept?")
    victim.kill(block=False)
    assert both.connection.inbox.receive(TIMEOUT) == "kept?" or victim.value == "kept?"


def test_gevents_own_timeout_is_thrown_into_receive(both: Pair) -> None:
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
        both.connection.inbox.receive()
    with gevent.Timeout(0.02, False):
        both.connection.inbox.receive(TIMEOUT)
    both.peer.send_text("after")
    assert both.connection.inbox.receive(TIMEOUT) == "after"


def test_receive_after_the_end_says_why_again_and_again(both: Pair) -> None:
    both.peer.send(frames.text("last") + frames.close(4001, "enough"))
    assert both.connection.inbox.receive(TIMEOUT) == "last"
    for _ in range(2):
        with pytest.raises(ConnectionClosed) as caught:
            both.connection.inbox.receive(TIMEOUT)
        assert (caught.value.code, caught.value.reason) == (4001, "enough")
        assert caught.value.target is both.sink


def test_all_readers_learn_of_the_end(both: Pair) -> None:
    readers = [gevent.spawn(catch, both.connection.inbox.receive) for _ in range(3)]
    turn()
    both.peer.send_close(1000)
    assert [reader.get(timeout=TIMEOUT).code for reader in readers] == [1000] * 3


def catch(function: Any, *args: Any) -> Any:
    with pytest.raises((ConnectionClosed, TimeoutError)) as caught:
        function(*args)
    return caught.value


def test_receive_from_another_thread_is_refused(both: Pair) -> None:
    errors: list[Exception] = []

    def read() -> None:
        for call in (both.connection.inbox.receive, both.connection.wait_closed):
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

    run_thread(read)
    assert len(errors) == 2


def run_thread(function: Any, *args: Any) -> None:
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    until(lambda: not thread.is_alive(), what="the end of a thread")


def test_a_listener_set_late_gets_what_waits(both: Pair) -> None:
    both.peer.send(frames.text("one") + frames.text("two"))
    gevent.sleep(NOTHING_FOR)
    both.sink.record("message")
    both.peer.send_text("three")
    until(lambda: len(both.sink.seen) == 3)
    assert [event.data for event in both.sink.seen] == ["one", "two", "three"]  # type: ignore[attr-defined]


# The queue's bounds


def test_reading_stops_when_the_queue_is_full_and_goes_on_at_half() -> None:
    with pair(Settings(max_queue=4), buffers=8192) as both:
        message = frames.text("x" * 8000)
        sender = gevent.spawn(both.peer.send, message * 100)
        gevent.sleep(0.1)
        assert not sender.ready(), "the peer is held back"
        for _ in range(100):
            assert both.connection.inbox.receive(TIMEOUT) == "x" * 8000
        sender.get(timeout=TIMEOUT)


def test_a_queue_is_bounded_in_bytes_too() -> None:
    with pair(Settings(max_queue_bytes=100_000), buffers=8192) as both:
        sender = gevent.spawn(both.peer.send, frames.text("x" * 30_000) * 40)
        gevent.sleep(0.1)
        assert not sender.ready()
        for _ in range(40):
            assert len(both.connection.inbox.receive(TIMEOUT)) == 30_000
        sender.get(timeout=TIMEOUT)


def queued(both: Pair) -> list[Any]:
    """What waits for the view once reading has begun and stopped."""
    stream: Any = both.connection.stream
    until(lambda: both.connection.heard and not stream.is_reading, what="a full queue")
    return list(both.connection.inbox._messages)


def test_a_text_counts_as_it_is_stored() -> None:
    """One emoji makes it four bytes a character."""
    with pair(Settings(max_queue_bytes=100_000), buffers=8192) as both:
        message = "x" * 9_999 + "\U0001f600"
        sender = gevent.spawn(both.peer.send, frames.text(message) * 40)
        assert len(queued(both)) < 3 + 7, "100,000 bytes, and what one read of 64 KiB holds"
        for _ in range(40):
            assert both.connection.inbox.receive(TIMEOUT) == message
        sender.get(timeout=TIMEOUT)


@pytest.mark.parametrize(
    "opcode, size", [(frames.BINARY, 90_000), (frames.TEXT, 30_000), (frames.BINARY, 2 * MEGABYTE)]
)
@pytest.mark.parametrize("fragments", [1, 3])
def test_the_message_that_is_arriving_counts(opcode: int, size: int, fragments: int) -> None:
    """A text with what it takes if an emoji comes last; beside an empty queue nothing counts."""
    with pair(Settings(max_queue_bytes=100_000), buffers=8192) as both:
        first, step = b"x" * 20_000, size // fragments
        pieces = [b"y" * step] * (fragments - 1) + [b"y" * (size - step * (fragments - 1))]
        sent = frames.frame(frames.BINARY, first)
        for number, piece in enumerate(pieces):
            last = number == fragments - 1
            sent += frames.frame(opcode if number == 0 else 0, piece, fin=last)
        sender = gevent.spawn(both.peer.send, sent)
        assert queued(both) == [first]
        driver: Any = both.connection.driver
        assert driver._arriving.stored + len(first) < 100_000
        assert both.connection.inbox.receive(TIMEOUT) == first
        assert len(both.connection.inbox.receive(TIMEOUT)) == size
        sender.get(timeout=TIMEOUT)


def test_a_message_that_fits_is_read_beside_others() -> None:
    with pair(Settings(max_queue_bytes=100_000), buffers=8192) as both:
        both.peer.send(frames.text("x" * 20_000) + frames.text("y" * 15_000))
        until(lambda: len(both.connection.inbox._messages) == 2)


# What a full queue leaves in the driver: compressed messages


def inflating(settings: Settings | None = None) -> Any:
    pipeline = negotiate([permessage_deflate], "permessage-deflate", MEGABYTE)
    return pair(settings or Settings(max_queue_bytes=100_000), pipeline=pipeline)


def packed(message: str) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    payload = packer.compress(message.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
    return frames.frame(frames.TEXT, payload[:-4], rsv=4)


MANY = [f"{number} " + "x" * 60_000 for number in range(10)]
ALL_PACKED = b"".join(map(packed, MANY))
assert len(ALL_PACKED) < 4096, "one read holds all of it"


@pytest.mark.parametrize(
    "end, code", [(frames.close(4001), 4001), (b"", 1006)], ids=["close frame", "end of TCP"]
)
def test_no_more_is_inflated_than_there_is_room_for(end: bytes, code: int) -> None:
    with inflating() as both:
        both.sink.record("close")
        both.peer.send(ALL_PACKED + end)
        both.peer.sock.shutdown(1)
        assert queued(both) == MANY[:2]
        turn(20)
        assert queued(both) == MANY[:2] and both.sink.names == []
        for number, message in enumerate(MANY):
            assert both.connection.inbox.receive(TIMEOUT) == message
            assert len(both.connection.inbox._messages) <= 2, number
        assert catch(both.connection.inbox.receive, TIMEOUT).code == code
        both.peer.close()
        until(lambda: both.sink.names == ["close"])


def test_a_view_that_waits_gets_all_of_one_read() -> None:
    with inflating() as both:
        got: list[Any] = []
        reader = gevent.spawn(lambda: got.extend(iter(both.connection.inbox.take, None)))
        turn()
        both.peer.send(ALL_PACKED)
        until(lambda: got == MANY)
        both.peer.close()
        reader.get(timeout=TIMEOUT)


def test_a_slow_listener_gets_all_of_one_read() -> None:
    with inflating() as both:
        got: list[str] = []
        most: list[int] = []

        def listen(event: Any) -> None:
            most.append(both.connection.backlog._bytes)
            gevent.sleep(0)
            got.append(event.data)

        both.sink.on("message", listen)
        both.peer.send(ALL_PACKED + frames.frame(frames.PING, b"p"))
        until(lambda: got == MANY)
        assert max(most) <= 2 * len(MANY[0])
        assert both.peer.read_frame().payload == b"p"


def test_our_close_finds_the_peers_answer_behind_what_is_held_back() -> None:
    with inflating() as both:
        both.sink.record("close")
        both.peer.send(ALL_PACKED + frames.close(4002))
        queued(both)
        both.connection.close(4003)
        assert both.peer.read_close().close_code == 4003
        both.peer.sock.shutdown(1)
        both.connection.wait_closed(TIMEOUT)
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 4002


def test_a_peer_that_is_gone_is_not_waited_for_by_what_is_held_back() -> None:
    """The view never reads; still its connection ends."""
    with inflating(Settings(max_queue_bytes=100_000, close_timeout=0.05)) as both:
        both.sink.record("close")
        both.peer.send(ALL_PACKED + frames.close(4004))
        queued(both)
        both.peer.close()
        both.connection.outbox.send("into the void")
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 1006 and not both.descriptor_is_open
        assert [both.connection.inbox.receive(TIMEOUT) for _ in range(2)] == MANY[:2]


def test_the_last_words_of_a_peer_that_is_gone_come_when_there_is_room() -> None:
    with inflating() as both:
        both.peer.send(ALL_PACKED + frames.close(4004))
        queued(both)
        both.peer.close()
        both.connection.outbox.send("into the void")
        turn()
        assert both.descriptor_is_open
        assert [both.connection.inbox.receive(TIMEOUT) for _ in MANY] == MANY
        assert catch(both.connection.inbox.receive, TIMEOUT).code == 4004


@pytest.mark.parametrize("close_timeout, code", [(0.05, 1006), (TIMEOUT, 4004)])
def test_last_words_do_not_overfill_a_queue(close_timeout: float, code: int) -> None:
    """Of plain messages too: no more is read than one read holds."""
    with pair(Settings(max_queue=2, close_timeout=close_timeout)) as both:
        both.sink.record("close")
        both.peer.send(frames.text("x" * 40_000) * 2)
        queued(both)
        both.peer.send(frames.text("y" * 40_000) * 3 + frames.close(4004))
        both.peer.close()
        both.connection.outbox.send("into the void")
        until(lambda: len(both.connection.inbox._messages) == 3)
        turn()
        assert len(both.connection.inbox._messages) == 3
        if code == 1006:
            until(lambda: both.sink.names == ["close"])
        else:
            assert len([both.connection.inbox.receive(TIMEOUT) for _ in range(5)]) == 5
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == code


def test_what_a_listener_makes_of_a_text_does_not_change_its_count(both: Pair) -> None:
    """The UTF-8 of a text may be kept beside it."""
    seen: list[str] = []

    def listen(event: Any) -> None:
        ctypes.pythonapi.PyUnicode_AsUTF8(ctypes.py_object(event.data))
        seen.append(event.data)

    both.sink.on("message", listen)
    both.peer.send(frames.text("\U0001f600" * 1000) * 3)
    until(lambda: len(seen) == 3)
    assert both.connection.backlog._bytes == 0


def test_reading_goes_on_when_events_behind_a_message_have_been_told() -> None:
    """They count for max_queue too, and it is they who are told last."""
    with pair(Settings(max_queue=2)) as both:
        held = gevent.event.Event()
        both.sink.on("message", lambda event: held.wait(TIMEOUT))
        both.sink.record("message", "ping")
        both.peer.send(frames.text("1") + frames.text("2") + frames.frame(frames.PING) * 3)
        until(lambda: both.connection.heard and not both.connection.stream.is_reading)  # type: ignore[union-attr]
        held.set()
        both.peer.send(frames.text("3"))
        until(lambda: both.sink.names == ["message"] * 2 + ["ping"] * 3 + ["message"])


def test_a_slow_listener_holds_its_peer_back() -> None:
    with pair(Settings(max_queue=4), buffers=8192) as both:
        seen: list[int] = []

        def listen(event: Any) -> None:
            gevent.sleep(0.002)
            seen.append(len(event.data))

        both.sink.on("message", listen)
        sender = gevent.spawn(both.peer.send, frames.text("x" * 8000) * 60)
        until(lambda: len(seen) == 5)
        assert not sender.ready()
        until(lambda: len(seen) == 60)
        sender.get(timeout=TIMEOUT)


def test_a_full_queue_does_not_keep_our_own_close_from_ending() -> None:
    """Nobody reads any more: what still comes is dropped, and the peer's reply is seen."""
    with pair(Settings(max_queue=2), buffers=8192) as both:
        both.sink.record("close")
        sender = gevent.spawn(both.peer.send, frames.text("x" * 8000) * 60 + frames.close(1000))
        gevent.sleep(0.05)
        both.connection.close(1000)
        sender.get(timeout=TIMEOUT)
        both.peer.sock.shutdown(1)
        both.connection.wait_closed(TIMEOUT)
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 1000


# send


def test_send_both_kinds(both: Pair) -> None:
    for message in ("text", b"bytes", bytearray(b"array"), memoryview(b"view")):
        both.connection.outbox.send(message)
    got = [both.peer.read_frame()[:2] for _ in range(4)]
    assert got == [(1, b"text"), (2, b"bytes"), (2, b"array"), (2, b"view")]


@pytest.mark.parametrize("wrong", [5, None, {"a": 1}, {1, 2}, 1.5])
def test_send_refuses_what_is_no_message(both: Pair, wrong: Any) -> None:
    with pytest.raises(TypeError):
        both.connection.outbox.send(wrong)
    assert both.connection.state == ReadyState.OPEN


def test_send_blocks_above_the_high_water_mark_only(both: Pair) -> None:
    sent: list[int] = []

    def push() -> None:
        for number in range(200):
            both.connection.outbox.send(b"x" * 50_000)
            sent.append(number)

    sender = gevent.spawn(push)
    gevent.sleep(NOTHING_FOR)
    assert 0 < len(sent) < 200 and not sender.ready()
    assert 65536 < both.connection.outbox.buffered <= 65536 + 50_000 + 14
    for _ in range(200):
        assert len(both.peer.read_frame().payload) == 50_000
    sender.get(timeout=TIMEOUT)
    assert both.connection.outbox.buffered == 0


def test_send_in_time_waits_for_room_first(both: Pair) -> None:
    """A call that times out has sent nothing, however often it is made."""
    both.connection.outbox.send(b"x" * (2 * MEGABYTE), 0.02)
    waiting = both.connection.outbox.buffered
    for message in (b"too late", "too late", iter(["too", "late"]), b"x" * MEGABYTE):
        with pytest.raises(TimeoutError, match="was not sent"):
            both.connection.outbox.send(message, 0.01)
    assert both.connection.outbox.buffered == waiting
    assert len(both.peer.read_frame().payload) == 2 * MEGABYTE
    both.connection.outbox.send("in time", TIMEOUT)
    assert both.peer.read_text() == "in time"
    assert both.connection.state == ReadyState.OPEN


def test_a_message_in_fragments_that_runs_out_of_time(both: Pair) -> None:
    """Once its first fragment has gone out, it can only be given up with its connection."""
    pieces = iter([b"x" * (2 * MEGABYTE), b"y", b"z"])
    sender = gevent.spawn(catch, both.connection.outbox.send, pieces, 0.05)
    assert isinstance(sender.get(timeout=TIMEOUT), TimeoutError)
    assert both.connection.state == ReadyState.CLOSING
    assert len(both.peer.read_frame().payload) == 2 * MEGABYTE
    assert both.peer.read_close().close_code == 1011


def test_an_iterable_and_another_sender_do_not_block_each_other(both: Pair) -> None:
    """What waits for the end of the iterable must not hold the iterable back."""
    pieces = 100
    first = gevent.spawn(both.connection.outbox.send, (b"a" * 200_000 for _ in range(pieces)))
    turn()
    others = [gevent.spawn(both.connection.outbox.send, b"b" * 70_000) for _ in range(3)]
    for number in range(pieces):
        frame = both.peer.read_frame()
        assert frame.payload == b"a" * 200_000
        assert frame.fin == (number == pieces - 1)
    for _ in others:
        assert both.peer.read_frame().payload == b"b" * 70_000
    gevent.joinall([first, *others], timeout=TIMEOUT)
    assert all(greenlet.successful() for greenlet in [first, *others])
    assert both.connection.outbox.buffered == 0


def test_a_sender_that_raises_costs_the_others_nothing(both: Pair, hub_errors: list[str]) -> None:
    """All that wait for room get their turn, whatever one of them does with its own."""
    both.connection.outbox.send(b"x" * (2 * MEGABYTE), 0)

    def send_and_raise() -> None:
        both.connection.outbox.send("raises")
        raise RuntimeError("out of a greenlet of greenlet's own kind")

    raw = greenlet.greenlet(send_and_raise, gevent.get_hub())
    gevent.spawn(raw.switch)
    turn()
    other = gevent.spawn(both.connection.outbox.send, "waits")
    turn()
    assert raw and not other.ready()
    assert len(both.peer.read_frame().payload) == 2 * MEGABYTE
    other.get(timeout=TIMEOUT)
    assert [both.peer.read_text(), both.peer.read_text()] == ["raises", "waits"]
    assert len(hub_errors) == 1 and "greenlet's own kind" in hub_errors.pop()


def test_a_blocked_sender_learns_of_the_end(both: Pair) -> None:
    sender = gevent.spawn(catch, both.connection.outbox.send, b"x" * (2 * MEGABYTE))
    turn()
    assert not sender.ready()
    both.peer.close()
    assert sender.get(timeout=TIMEOUT).code == 1006
    assert catch(both.connection.outbox.send, "more").code == 1006


def test_a_killed_sender_and_gevents_timeout(both: Pair) -> None:
    sender = gevent.spawn(both.connection.outbox.send, b"x" * (2 * MEGABYTE))
    turn()
    sender.kill()
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
        both.connection.outbox.send("tail")
    assert len(both.peer.read_frame().payload) == 2 * MEGABYTE
    assert both.peer.read_text() == "tail"


def test_drain_is_told_when_there_is_room_again(both: Pair) -> None:
    both.sink.record("drain")
    gevent.spawn(both.connection.outbox.send, b"x" * (2 * MEGABYTE))
    turn()
    assert both.sink.names == []
    both.peer.read_frame()
    until(lambda: "drain" in both.sink.names)


# send: a message in fragments


def test_an_iterable_is_one_message(both: Pair) -> None:
    both.connection.outbox.send(iter(["one ", "two ", "three"]))
    got = [both.peer.read_frame() for _ in range(3)]
    assert [(f.opcode, f.fin, f.payload) for f in got] == [
        (frames.TEXT, False, b"one "),
        (frames.CONTINUATION, False, b"two "),
        (frames.CONTINUATION, True, b"three"),
    ]


def test_an_iterable_of_one_and_of_none(both: Pair) -> None:
    both.connection.outbox.send(iter([b"only"]))
    both.connection.outbox.send(iter([]))
    both.connection.outbox.send("next")
    assert both.peer.read_frame()[:3] == (frames.BINARY, b"only", True)
    assert both.peer.read_text() == "next"


def test_other_senders_wait_for_the_end_of_a_fragmented_message(both: Pair) -> None:
    gate = gevent.event.Event()

    def pieces() -> Iterator[str]:
        yield "a"
        yield "b"
        gate.wait(TIMEOUT)
        yield "c"

    fragments = gevent.spawn(both.connection.outbox.send, pieces())
    second = gevent.spawn(both.connection.outbox.send, iter(["x", "y"]))
    turn()
    both.connection.outbox.send("between")
    assert both.connection.ping(b"now")
    turn()
    gate.set()
    gevent.joinall([fragments, second], timeout=TIMEOUT, raise_error=True)
    got = [both.peer.read_frame() for _ in range(7)]
    data = [f.payload for f in got if f.opcode < 8]
    assert data == [b"a", b"b", b"c", b"between", b"x", b"y"]
    assert got.index(next(f for f in got if f.opcode == frames.PING)) < 3


def test_a_generator_that_raises_closes_with_1011(both: Pair) -> None:
    def pieces() -> Iterator[str]:
        yield "a"
        yield "b"
        raise LookupError("no c")

    both.sink.record("close")
    with pytest.raises(LookupError):
        both.connection.outbox.send(pieces())
    with pytest.raises(ConnectionClosed):
        both.connection.outbox.send("more")
    assert both.peer.read_frame()[:3] == (frames.TEXT, b"a", False)
    assert both.peer.read_close().close_code == 1011


@pytest.mark.parametrize("wrong", [[1, "a"], ["a", b"b"], ["\ud800"]])
def test_pieces_that_cannot_be_sent_spoil_nothing_before_the_first(both: Pair, wrong: Any) -> None:
    with pytest.raises((TypeError, UnicodeEncodeError)):
        both.connection.outbox.send(iter(wrong))
    both.connection.outbox.send(iter([bytearray(b"a"), memoryview(b"b")]))
    got = [both.peer.read_frame() for _ in range(2)]
    assert [(f.opcode, f.fin, f.payload) for f in got] == [
        (frames.BINARY, False, b"a"),
        (frames.CONTINUATION, True, b"b"),
    ]


def test_fragments_that_the_peer_does_not_read_in_time(both: Pair) -> None:
    with pytest.raises(TimeoutError, match="given up"):
        both.connection.outbox.send(iter([b"x" * (2 * MEGABYTE), b"y"]), 0.05)
    assert both.connection.state == ReadyState.CLOSING
    assert len(both.peer.read_frame().payload) == 2 * MEGABYTE
    assert both.peer.read_close().close_code == 1011


@pytest.mark.parametrize("wrong", ["\ud800", ("a", "\ud800"), ("a", 1)])
def test_what_another_thread_cannot_send_raises_there(
    both: Pair, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[Exception] = []

    def send() -> None:
        try:
            both.connection.outbox.send(iter(wrong) if isinstance(wrong, tuple) else wrong)
        except (TypeError, UnicodeEncodeError) as error:
            raised.append(error)
        both.connection.outbox.send("right")

    gevent.get_hub().threadpool.apply(send)
    assert both.peer.read_text() == "right" and len(raised) == 1


def test_close_while_a_fragmented_message_is_on_its_way(both: Pair) -> None:
    """The close frame goes out between the fragments, and the rest is not sent."""
    gate = gevent.event.Event()

    def pieces() -> Iterator[bytes]:
        yield b"a"
        yield b"b"
        gate.wait(TIMEOUT)
        yield b"c"

    sender = gevent.spawn(catch, both.connection.outbox.send, pieces())
    turn()
    both.connection.close(1000, "now")
    gate.set()
    sender.get(timeout=TIMEOUT)
    assert both.peer.read_frame()[:3] == (frames.BINARY, b"a", False)
    assert both.peer.read_close().close_code == 1000
    both.peer.send_close(1000)
    both.peer.read_eof()


def test_the_peer_closes_while_a_fragmented_message_is_on_its_way(both: Pair) -> None:
    gate = gevent.event.Event()

    def pieces() -> Iterator[bytes]:
        yield b"a"
        yield b"b"
        gate.wait(TIMEOUT)
        yield b"c"
        yield b"d"

    sender = gevent.spawn(catch, both.connection.outbox.send, pieces())
    turn()
    assert both.peer.read_frame().payload == b"a"
    both.peer.send_close(1000)
    assert both.peer.read_close().close_code == 1000
    gate.set()
    sender.get(timeout=TIMEOUT)
    both.peer.read_eof()


# Other threads


def test_many_threads_send_and_nothing_interleaves(both: Pair) -> None:
    threads, messages = 100, 100
    errors: list[BaseException] = []

    def push(who: int) -> None:
        try:
            for number in range(messages):
                both.connection.outbox.send(f"{who}:{number}:" + "x" * (who * 3))
        except BaseException as error:
            errors.append(error)

    pushers = [threading.Thread(target=push, args=(n,), daemon=True) for n in range(threads)]
    for thread in pushers:
        thread.start()
    last: dict[int, int] = dict.fromkeys(range(threads), -1)
    for _ in range(threads * messages):
        who, number, filling = both.peer.read_text().split(":")
        assert filling == "x" * (int(who) * 3)
        assert int(number) == last[int(who)] + 1, "each thread's messages are in order"
        last[int(who)] += 1
    until(lambda: not any(thread.is_alive() for thread in pushers))
    assert not errors and both.connection.outbox.buffered == 0


def test_a_thread_is_held_back_too(both: Pair) -> None:
    sent: list[int] = []

    def push() -> None:
        for number in range(40):
            both.connection.outbox.send(b"x" * 100_000)
            sent.append(number)

    thread = threading.Thread(target=push, daemon=True)
    thread.start()
    gevent.sleep(0.2)
    assert thread.is_alive() and len(sent) < 40
    assert both.connection.outbox.buffered <= 65536 + 2 * 100_100
    for _ in range(40):
        assert len(both.peer.read_frame().payload) == 100_000
    until(lambda: not thread.is_alive())
    assert sent == list(range(40))


def test_a_threads_send_gives_up_in_time(both: Pair) -> None:
    caught: list[BaseException] = []

    def push() -> None:
        both.connection.outbox.send(b"x" * (2 * MEGABYTE), 0.1)
        for _ in range(3):
            caught.append(catch(both.connection.outbox.send, b"too late", 0.02))

    run_thread(push)
    assert [str(error) for error in caught] == [
        "the peer did not read in time: the message was not sent"
    ] * 3
    assert len(both.peer.read_frame().payload) == 2 * MEGABYTE
    both.connection.outbox.send("next")
    assert both.peer.read_text() == "next"


@pytest.mark.parametrize("end", ["send", "close"])
def test_what_a_thread_has_handed_over_goes_first(both: Pair, end: str) -> None:
    """The connection's own thread may not have let its hub run since."""
    thread = threading.Thread(
        target=lambda: [both.connection.outbox.send(str(number)) for number in range(10)]
    )
    thread.start()
    thread.join()  # which does not let the hub run
    if end == "send":
        both.connection.outbox.send("last")
    else:
        both.connection.close(1000)
    assert [both.peer.read_text() for _ in range(10)] == [str(n) for n in range(10)]
    if end == "send":
        assert both.peer.read_text() == "last"
    else:
        assert both.peer.read_close().close_code == 1000


def test_a_blocked_thread_learns_of_the_end(both: Pair) -> None:
    raised: list[ConnectionClosed] = []
    thread = threading.Thread(
        target=lambda: raised.append(catch(both.connection.outbox.send, b"x" * (2 * MEGABYTE))),
        daemon=True,
    )
    thread.start()
    gevent.sleep(0.05)
    assert thread.is_alive()
    both.peer.close()
    until(lambda: not thread.is_alive())
    assert raised[0].code == 1006


def test_a_thread_with_a_hub_of_its_own_goes_on_with_it(both: Pair) -> None:
    """Blocking there must not stop that thread's other greenlets."""
    ticks: list[int] = []

    def tick() -> None:
        for number in range(20):
            gevent.sleep(0.005)
            ticks.append(number)

    def run() -> None:
        ticker = gevent.spawn(tick)
        both.connection.outbox.send(b"x" * (2 * MEGABYTE), 0.2)
        with pytest.raises(TimeoutError):
            both.connection.outbox.send(b"too late", 0.2)
        ticker.join()
        gevent.get_hub().destroy(destroy_loop=True)

    run_thread(run)
    assert len(ticks) == 20
    assert len(both.peer.read_frame().payload) == 2 * MEGABYTE


def test_close_and_ping_from_a_thread(both: Pair) -> None:
    both.sink.record("close")
    run_thread(both.connection.ping, b"from afar")
    assert both.peer.read_frame()[:2] == (frames.PING, b"from afar")
    run_thread(both.connection.close, 4000, "thread")
    assert both.peer.read_close().close_code == 4000
    both.peer.send_close(4000)
    both.peer.read_eof()
    both.peer.close()
    until(lambda: both.sink.names == ["close"])


def test_what_a_thread_sends_before_it_closes_arrives_first(both: Pair) -> None:
    def run() -> None:
        for number in range(50):
            both.connection.outbox.send(str(number))
        both.connection.close()

    run_thread(run)
    assert [both.peer.read_text() for _ in range(50)] == [str(n) for n in range(50)]
    both.peer.read_close()


def test_a_thread_that_sends_to_a_closed_connection(both: Pair) -> None:
    both.peer.close()
    both.connection.wait_closed(TIMEOUT)
    caught: list[ConnectionClosed] = []
    run_thread(lambda: caught.append(catch(both.connection.outbox.send, "x")))
    assert caught[0].code == 1006


# Pings


def test_a_ping_is_answered_and_told_of(both: Pair) -> None:
    both.sink.record("ping")
    both.peer.send_frame(frames.PING, b"hello")
    assert both.peer.read_frame()[:2] == (frames.PONG, b"hello")
    until(lambda: both.sink.names == ["ping"])


def test_each_ping_is_answered_in_order_between_messages(both: Pair) -> None:
    both.sink.on("message", lambda event: both.connection.outbox.send(event.data))
    for n in range(10):
        data = frames.frame(frames.PING, b"%d" % n) + frames.text(f"{n}")
        both.peer.send(data + frames.frame(frames.PING, b"again"))
    pongs: list[bytes] = []
    texts: list[str] = []
    while len(pongs) < 20 or len(texts) < 10:
        frame = both.peer.read_frame()
        if frame.opcode == frames.PONG:
            pongs.append(frame.payload)
        else:
            texts.append(frame.text)
    assert pongs == [payload for n in range(10) for payload in (b"%d" % n, b"again")]
    assert texts == [f"{n}" for n in range(10)]


def test_callbacks_latency_and_a_pong_that_answers_earlier_pings(both: Pair) -> None:
    called: list[int] = []
    both.sink.record("pong")
    assert both.connection.clock.latency is None
    for number in range(3):
        assert both.connection.ping(b"%d" % number, lambda number=number: called.append(number))
    assert [both.peer.read_frame().payload for _ in range(3)] == [b"0", b"1", b"2"]
    both.peer.send_frame(frames.PONG, b"1")
    until(lambda: called == [0, 1])
    both.peer.send_frame(frames.PONG, b"1")
    both.peer.send_frame(frames.PONG, b"never sent")
    both.peer.send_frame(frames.PONG, b"2")
    until(lambda: called == [0, 1, 2])
    assert 0 < (both.connection.clock.latency or 0) < TIMEOUT
    assert all(isinstance(event, PongEvent) for event in both.sink.seen)


def test_no_ping_goes_out_once_it_is_closing(both: Pair) -> None:
    both.connection.close()
    assert both.connection.ping(b"late") is False
    both.peer.read_close()
    both.peer.send_close()
    both.peer.read_eof()


def test_a_callback_that_raises_closes_with_1011(both: Pair, caplog: Any) -> None:
    def fail() -> None:
        raise LookupError("in a callback")

    both.connection.ping(b"x", fail)
    both.peer.read_frame()
    both.peer.send_frame(frames.PONG, b"x")
    assert both.peer.read_close().close_code == 1011
    assert caplog.text.count("LookupError: in a callback") == 1


def test_pings_go_out_by_themselves() -> None:
    with pair(Settings(ping=0.02, ping_timeout=1.0)) as both:
        for _ in range(3):
            got = both.peer.read_frame()
            assert got.opcode == frames.PING
            both.peer.send_frame(frames.PONG, got.payload)


@pytest.mark.parametrize("timeout", [0.1, 1.0])
def test_pings_keep_their_interval_while_they_are_answered(timeout: float) -> None:
    with pair(Settings(ping=0.1, ping_timeout=timeout)) as both:
        started = time.perf_counter()
        for _ in range(5):
            both.peer.send_frame(frames.PONG, both.peer.read_frame().payload)
        assert time.perf_counter() - started < 0.85


def test_a_peer_that_falls_silent_after_an_answer_is_given_up() -> None:
    with pair(Settings(ping=0.1, ping_timeout=0.3)) as both:
        both.sink.record("close")
        both.peer.send_frame(frames.PONG, both.peer.read_frame().payload)
        started = time.perf_counter()
        until(lambda: both.sink.names == ["close"])
        assert time.perf_counter() - started < 0.75, "one interval and one timeout"


def test_a_silent_peer_is_given_up_with_1006() -> None:
    with pair(Settings(ping=0.03, ping_timeout=0.06)) as both:
        both.sink.record("error", "close")
        until(lambda: both.sink.names == ["error", "close"])
        assert both.sink.close_event.code == 1006 and not both.descriptor_is_open


def test_any_byte_is_a_sign_of_life() -> None:
    with pair(Settings(ping=0.02, ping_timeout=0.1)) as both:
        for _ in range(15):
            both.peer.send(b"\x81")  # half a header, then the rest: never a pong
            gevent.sleep(0.02)
            both.peer.send(b"\x80" + frames.MASK)
            assert both.connection.inbox.receive(TIMEOUT) == ""
        assert both.connection.state == ReadyState.OPEN


def test_a_peer_that_is_held_back_by_us_is_not_given_up() -> None:
    """Its pongs are behind messages that we do not read."""
    with pair(Settings(ping=0.02, ping_timeout=0.05, max_queue=2)) as both:
        both.peer.send(frames.text("x") * 10)
        gevent.sleep(0.3)
        assert both.connection.state == ReadyState.OPEN
        assert [both.connection.inbox.receive(TIMEOUT) for _ in range(10)] == ["x"] * 10


def test_a_flood_of_pings_that_are_not_read_leaves_one_pong() -> None:
    with pair() as both:
        sender = gevent.spawn(both.connection.outbox.send, b"x" * (2 * MEGABYTE))
        turn()
        before = both.connection.outbox.buffered
        both.peer.send(b"".join(frames.frame(frames.PING, b"%06d" % n) for n in range(5000)))
        gevent.sleep(NOTHING_FOR)
        assert both.connection.outbox.buffered <= before
        assert len(both.peer.read_frame().payload) == 2 * MEGABYTE
        assert both.peer.read_frame()[:2] == (frames.PONG, b"004999")
        sender.get(timeout=TIMEOUT)


# The end


def test_the_peers_close_is_echoed_and_told_once_after_the_descriptor(both: Pair) -> None:
    open_then: list[bool] = []
    both.sink.on("close", lambda event: open_then.append(is_open(both.fd)))
    both.sink.record("error", "close")
    both.peer.send_close(3456, "reason")
    assert both.peer.read_close().close_code == 3456
    both.peer.read_eof()
    both.peer.close()
    until(lambda: both.sink.names)
    gevent.sleep(NOTHING_FOR)
    assert both.sink.names == ["close"] and open_then == [False]
    assert (both.sink.close_event.code, both.sink.close_event.reason) == (3456, "reason")


def test_our_close_waits_for_the_peers(both: Pair) -> None:
    both.sink.record("close")
    both.connection.outbox.send("before")
    both.connection.close(4000, "we")
    both.connection.close(4001, "twice")
    assert both.connection.state == ReadyState.CLOSING
    assert both.peer.read_text() == "before"
    assert both.peer.read_close().payload == frames.close_payload(4000, "we")
    both.peer.send(frames.text("too late") + frames.close(4000))
    both.peer.read_eof()
    both.peer.close()
    both.connection.wait_closed(TIMEOUT)
    until(lambda: both.sink.names == ["close"])
    assert both.sink.close_event.code == 4000


def test_a_close_that_is_never_answered_ends_with_1006() -> None:
    with pair(Settings(close_timeout=0.1)) as both:
        both.sink.record("close")
        both.connection.close()
        started = time.perf_counter()
        until(lambda: both.sink.names == ["close"])
        assert time.perf_counter() - started < 1 and both.sink.close_event.code == 1006
        assert not both.descriptor_is_open


def test_an_answer_that_a_late_hub_finds_counts() -> None:
    with pair(Settings(close_timeout=0.05)) as both:
        both.sink.record("close")
        both.connection.close(4000)
        assert both.peer.read_close().close_code == 4000
        both.peer.send_close(4000)
        time.sleep(0.1)  # meanwhile the hub does not run
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 4000


def test_a_close_to_a_peer_that_reads_nothing_ends_in_time() -> None:
    """Our close frame is behind megabytes that never leave."""
    with pair(Settings(close_timeout=0.1)) as both:
        both.sink.record("close")
        sender = gevent.spawn(catch, both.connection.outbox.send, b"x" * (4 * MEGABYTE))
        turn()
        both.connection.close()
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == sender.get(timeout=TIMEOUT).code == 1006


def test_a_reply_to_a_peer_that_reads_nothing_ends_in_time() -> None:
    with pair(Settings(close_timeout=0.1)) as both:
        both.sink.record("close")
        sender = gevent.spawn(catch, both.connection.outbox.send, b"x" * (4 * MEGABYTE))
        turn()
        both.peer.send_close(1000)
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 1000
        assert sender.get(timeout=TIMEOUT).code == 1000 and not both.descriptor_is_open


def test_eof_without_a_close_frame_is_1006(both: Pair) -> None:
    both.sink.record("close")
    both.peer.close()
    until(lambda: both.sink.names == ["close"])
    assert both.sink.close_event.code == 1006 and not both.descriptor_is_open


def test_half_closed_by_the_peer_without_a_close_frame(both: Pair) -> None:
    both.sink.record("close")
    both.peer.sock.shutdown(1)
    until(lambda: both.sink.names == ["close"])
    both.peer.read_available()
    assert both.sink.close_event.code == 1006


def test_messages_before_the_end_are_all_given(both: Pair) -> None:
    both.peer.send(frames.text("x") * 10)
    both.peer.close()
    gevent.sleep(NOTHING_FOR)
    assert [both.connection.inbox.receive(TIMEOUT) for _ in range(10)] == ["x"] * 10
    assert catch(both.connection.inbox.receive, TIMEOUT).code == 1006


def test_a_broken_pipe_with_the_peers_close_frame_unread(both: Pair) -> None:
    """The code is the peer's, not 1006."""
    both.sink.record("close")
    turn()
    both.peer.send_close(4004, "bye")
    both.peer.close()
    both.connection.outbox.send("into the void")
    both.connection.outbox.send("again")
    until(lambda: both.sink.names == ["close"])
    assert (both.sink.close_event.code, both.sink.close_event.reason) == (4004, "bye")


def test_a_broken_pipe_while_reading_is_stopped() -> None:
    with pair(Settings(max_queue=1)) as both:
        both.sink.record("close")
        both.peer.send(frames.text("x") * 3)
        gevent.sleep(NOTHING_FOR)
        both.peer.send(frames.text("y") + frames.close(4004))
        both.peer.close()
        both.connection.outbox.send("into the void")
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 4004
        got = [both.connection.inbox.receive(TIMEOUT) for _ in range(4)]
        assert got == ["x", "x", "x", "y"]


@pytest.mark.parametrize(
    "bad, code",
    [
        (frames.text("hello", mask=None), 1002),
        (frames.text("hello", rsv=4), 1002),
        (frames.frame(5), 1002),
        (frames.frame(frames.PING, b"", fin=False), 1002),
        (frames.frame(frames.TEXT, b"\xff"), 1007),
        (frames.frame(frames.BINARY, b"x" * 2000), 1009),
        (frames.close(1005), 1002),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
)
def test_what_a_bad_frame_gets(bad: bytes, code: int) -> None:
    with pair(max_length=1000) as both:
        both.sink.record("error", "close")
        both.peer.send(frames.text("before") + bad + frames.text("after"))
        assert both.connection.inbox.receive(TIMEOUT) == "before"
        assert catch(both.connection.inbox.receive, TIMEOUT).code == code
        assert both.peer.read_close().close_code == code
        both.peer.read_eof()
        both.peer.close()
        until(lambda: both.sink.names == ["error", "close"])
        assert both.sink.close_event.code == code


# What came before counts


def test_an_echo_in_a_view_is_heard_before_the_close(both: Pair) -> None:
    echo = gevent.spawn(catch, lambda: [echo_once(both) for _ in range(100)])
    turn()
    both.peer.send(b"".join(frames.text(str(n)) for n in range(10)) + frames.close(1000))
    assert [both.peer.read_text() for _ in range(10)] == [str(n) for n in range(10)]
    assert both.peer.read_close().close_code == 1000
    assert echo.get(timeout=TIMEOUT).code == 1000


def echo_once(both: Pair) -> None:
    both.connection.outbox.send(both.connection.inbox.receive(TIMEOUT))


def test_a_view_that_starts_late_is_heard_too(both: Pair) -> None:
    both.peer.send(frames.text("early") + frames.close(1000))
    turn(5)
    echo_once(both)
    assert both.peer.read_text() == "early"
    assert both.peer.read_close().close_code == 1000


def test_listeners_are_heard_before_the_close(both: Pair) -> None:
    both.sink.on("message", lambda event: both.connection.outbox.send(event.data))
    both.peer.send(frames.text("one") + frames.text("two") + frames.close(1000))
    assert [both.peer.read_text(), both.peer.read_text()] == ["one", "two"]
    assert both.peer.read_close().close_code == 1000


@pytest.mark.parametrize("bad", [frames.close(1000), frames.frame(5)])
def test_a_listener_that_sleeps_delays_the_close_by_half_a_second_at_most(
    both: Pair, bad: bytes
) -> None:
    done: list[Any] = []

    def listen(event: Any) -> None:
        gevent.sleep(0.8)
        done.append(event.data)
        try:
            both.connection.outbox.send(event.data)
        except ConnectionClosed as error:
            done.append(error.code)

    both.sink.on("message", listen)
    both.sink.record("close")
    started = time.perf_counter()
    both.peer.send(frames.text("slow") + bad)
    assert both.peer.read_close().close_code in (1000, 1002)
    assert time.perf_counter() - started < 0.5
    both.peer.read_eof()
    both.peer.close()
    until(lambda: both.sink.names == ["close"])
    assert done[0] == "slow" and done[1] in (1000, 1002), "the event comes in its turn"


def test_a_view_that_does_not_read_delays_the_close_little(both: Pair) -> None:
    started = time.perf_counter()
    both.peer.send(frames.text("unread") + frames.close(1000))
    assert both.peer.read_close().close_code == 1000
    assert time.perf_counter() - started < 0.5
    both.peer.read_eof()
    both.peer.close()
    both.connection.wait_closed(TIMEOUT)
    assert both.connection.inbox.receive(TIMEOUT) == "unread"


def test_a_listener_that_raises_closes_with_1011_once(both: Pair, caplog: Any) -> None:
    def fail(event: Any) -> None:
        raise LookupError("in a listener")

    both.sink.record("close")
    both.sink.on("message", fail)
    both.peer.send(frames.text("one"))
    assert both.peer.read_close().close_code == 1011
    both.peer.send_close(1011)
    both.peer.read_eof()
    both.peer.close()
    until(lambda: both.sink.names == ["close"])
    assert both.sink.close_event.code == 1011
    assert caplog.text.count("LookupError: in a listener") == 1


def raise_exit(event: Any) -> None:
    raise gevent.GreenletExit("in a listener")


def kill_itself(event: Any) -> None:
    gevent.kill(gevent.getcurrent(), gevent.GreenletExit("in a listener"))
    gevent.sleep(TIMEOUT)


def exit_process(event: Any) -> None:
    raise SystemExit("in a listener")


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "not-alone"])
@pytest.mark.parametrize("fail", [raise_exit, kill_itself, exit_process])
def test_a_listener_that_wants_to_exit_closes_with_1011(
    both: Pair, fail: Any, others: int, caplog: Any
) -> None:
    """It ends its connection, not the process, nor the greenlet that runs listeners."""
    both.sink.on("message", fail)
    both.sink.record("close", *["message"] * others)
    both.peer.send_text("one")
    assert both.peer.read_close().close_code == 1011
    both.peer.send_close(1011)
    both.peer.read_eof()
    both.peer.close()
    until(lambda: both.sink.names == ["close"])
    assert both.sink.close_event.code == 1011
    assert caplog.text.count("in a listener\n") == 1
    with pair() as other:
        other.sink.record("message")
        other.peer.send_text("two")
        until(lambda: other.sink.names == ["message"])


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "not-alone"])
def test_ctrl_c_in_a_listener_reaches_the_main_greenlet(both: Pair, others: int) -> None:
    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    both.sink.on("message", interrupt)
    both.sink.record("close", *["message"] * others)
    both.peer.send_text("one")
    with pytest.raises(KeyboardInterrupt):
        gevent.sleep(TIMEOUT)
    assert both.peer.read_close().close_code == 1011
    both.peer.send_close(1011)
    both.peer.read_eof()
    both.peer.close()
    until(lambda: both.sink.names == ["close"])


def test_a_ping_callback_that_exits_closes_with_1011(both: Pair) -> None:
    turn()
    both.connection.ping(b"x", lambda: raise_exit(None))
    assert both.peer.read_frame().opcode == frames.PING
    both.peer.send_frame(frames.PONG, b"x")
    assert both.peer.read_close().close_code == 1011


def test_the_greenlet_that_runs_listeners_may_be_killed_between_them(both: Pair) -> None:
    """A listener has kept it, with getcurrent(): the next one gets another."""
    greenlets: list[Any] = []
    both.sink.on("message", lambda event: greenlets.append(gevent.getcurrent()))
    both.peer.send_text("one")
    until(lambda: len(greenlets) == 1)
    turn()
    gevent.kill(greenlets[0])
    until(lambda: greenlets[0].dead)
    both.peer.send_text("two")
    until(lambda: len(greenlets) == 2)
    assert greenlets[1] is not greenlets[0]


def test_a_close_listener_that_raises_harms_nobody(both: Pair, caplog: Any) -> None:
    def fail(event: Any) -> None:
        raise LookupError("in a close listener")

    both.sink.on("close", fail)
    both.peer.close()
    both.connection.wait_closed(TIMEOUT)
    until(lambda: "in a close listener" in caplog.text)


def test_a_listener_may_close_and_be_called_no_more(both: Pair) -> None:
    seen: list[str] = []

    def listen(event: Any) -> None:
        seen.append(event.data)
        both.connection.close(4000)

    both.sink.on("message", listen)
    both.peer.send(frames.text("one"))
    assert both.peer.read_close().close_code == 4000
    both.peer.send(frames.text("two") + frames.close(4000))
    both.peer.read_eof()
    assert seen == ["one"]


def test_listeners_run_one_at_a_time_and_never_in_the_hub(both: Pair) -> None:
    running: list[int] = []

    def listen(event: Any) -> None:
        assert gevent.getcurrent() is not gevent.get_hub()
        running.append(1)
        gevent.sleep(0.001)
        assert running == [1]
        running.pop()
        both.connection.outbox.send(event.data)

    both.sink.on("message", listen)
    both.peer.send(b"".join(frames.text(str(n)) for n in range(20)))
    assert [both.peer.read_text() for _ in range(20)] == [str(n) for n in range(20)]


def test_a_client_does_not_wait_for_ever_for_the_servers_end() -> None:
    """RFC 6455 §7.1.1: the server ends TCP first; one that does not is given close_timeout."""
    with pair(Settings(close_timeout=0.2, awaits_server=True), client=True) as both:
        both.sink.record("close")
        both.peer.send(frames.close(1000, mask=None))
        assert frames.read_frame(both.peer.sock).opcode == frames.CLOSE
        assert both.connection.state == ReadyState.CLOSING
        both.connection.wait_closed(TIMEOUT)
        assert both.sink.close_event.code == 1000 and not both.descriptor_is_open


@pytest.mark.parametrize("listeners", [1, 2])
@pytest.mark.parametrize("waits", [False, True])
def test_gevents_timeout_in_a_listener_is_its_failure(
    both: Pair, listeners: int, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no Exception, and ends nothing but this connection."""

    def listen(event: Any) -> None:
        if waits:
            gevent.sleep(0)
        raise gevent.Timeout(1)

    for _ in range(listeners):
        both.sink.on("message", lambda event: listen(event))
    both.sink.record("close")
    both.peer.send(a_run("a", "b"))
    assert both.peer.read_close().close_code == 1011
    both.peer.send_close(1011)
    both.peer.read_eof()
    until(lambda: both.sink.names == ["close"])
    assert not both.descriptor_is_open
    assert "a listener raised" in caplog.text


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_closed_connection_asks_an_iterable_for_nothing(both: Pair, elsewhere: bool) -> None:
    asked: list[str] = []

    def pieces() -> Iterator[str]:
        asked.append("a piece")
        yield "a"

    both.connection.close()
    send = both.connection.outbox.send
    if elsewhere:
        gevent.get_hub().threadpool.apply(catch, (send, pieces()))
    else:
        catch(send, pieces())
    assert asked == []


def test_an_iterable_that_outlives_its_connection_is_not_kept() -> None:
    """While the pieces of a compressed message are gathered, the connection may end."""
    with pair(pipeline=negotiate([permessage_deflate], "permessage-deflate", MEGABYTE)) as both:

        def pieces() -> Iterator[str]:
            both.connection.close(4000)
            yield "a"

        assert catch(both.connection.outbox.send, pieces()).code == 4000


def test_what_is_sent_after_our_close_raises_with_its_code(both: Pair) -> None:
    both.connection.close(4000, "mine")
    error = catch(both.connection.outbox.send, "late")
    assert (error.code, error.reason) == (4000, "mine")


def test_an_enormous_limit_is_no_limit() -> None:
    with pair(max_length=2**70) as both:
        both.peer.send_text("hello")
        assert both.connection.inbox.receive(TIMEOUT) == "hello"


def a_run(*words: str) -> bytes:
    """Messages that arrive together."""
    return b"".join(map(frames.text, words))


def test_a_second_listener_in_the_middle_of_a_run(both: Pair) -> None:
    heard: list[tuple[int, str]] = []

    def second(event: Any) -> None:
        heard.append((2, event.data))

    def first(event: Any) -> None:
        assert event.type == "message" and event.target is both.sink
        heard.append((1, event.data))
        if event.data == "b":
            both.sink.on("message", second)
        if event.data == "d":
            both.sink.remove_listener("message", second)

    both.sink.on("message", first)
    both.peer.send(a_run("a", "b", "c", "d", "e"))
    until(lambda: (1, "e") in heard)
    assert heard == [(1, "a"), (1, "b"), (1, "c"), (2, "c"), (1, "d"), (2, "d"), (1, "e")]


def test_a_pause_in_the_middle_of_a_run(both: Pair) -> None:
    heard: list[str] = []

    def listen(event: Any) -> None:
        heard.append(event.data)
        if event.data == "b":
            both.connection.dispatcher.pause()

    both.sink.on("message", listen)
    both.peer.send(a_run("a", "b", "c", "d"))
    until(lambda: "b" in heard)
    gevent.sleep(NOTHING_FOR)
    assert heard == ["a", "b"]
    both.connection.dispatcher.resume()
    until(lambda: "d" in heard)
    assert heard == ["a", "b", "c", "d"]


def test_other_events_keep_their_place_in_a_run(both: Pair) -> None:
    both.sink.record("message", "ping")
    both.peer.send(a_run("a", "b") + frames.frame(frames.PING, b"p") + a_run("c"))
    until(lambda: len(both.sink.seen) == 4)
    assert both.sink.names == ["message", "message", "ping", "message"]


def test_a_listener_that_raises_in_a_run_is_logged_and_the_rest_is_told(
    both: Pair, caplog: Any
) -> None:
    heard: list[str] = []

    def listen(event: Any) -> None:
        heard.append(event.data)
        if event.data == "a":
            raise KeyError("in a run")

    both.sink.on("message", listen)
    both.peer.send(a_run("a", "b", b"\xc3\xbc".decode()))
    assert both.peer.read_close().close_code == 1011
    assert caplog.text.count("KeyError: 'in a run'") == 1
    assert heard == ["a", "b", "\xfc"]


def test_a_full_queue_is_relieved_by_a_listener() -> None:
    with pair(Settings(max_queue=4)) as both:
        heard: list[str] = []

        def listen(event: Any) -> None:
            gevent.sleep(0)  # so that more is read meanwhile
            heard.append(event.data)

        both.sink.on("message", listen)
        for _ in range(8):
            both.peer.send(a_run(*"abcdef"))
        until(lambda: len(heard) == 48)
        assert "".join(heard) == "abcdef" * 8


@pytest.mark.parametrize("how", ["closed", "lost", "abandoned"])
def test_the_end_is_told_once_to_each_listener(both: Pair, how: str) -> None:
    turn()
    if how == "closed":
        both.peer.finish(4001)
        both.peer.close()
    elif how == "lost":
        both.connection.connection_lost("torn")
    else:
        assert not both.connection.closing.abandon(1011), "there is no listener yet"
    both.connection.wait_closed(TIMEOUT)
    turn()
    told: list[str] = []
    for name in ("one", "other"):
        both.sink.on("close", lambda event, name=name: told.append(name))
        if both.connection.listeners_changed():
            both.connection.dispatcher.tell_here()
    assert told == (["one", "other"] if how == "abandoned" else [])
    until(lambda: told == ["one", "other"])
    turn()
    assert told == ["one", "other"]


def test_a_listener_that_no_hub_tells_is_told_when_the_view_is_left(both: Pair) -> None:
    """On a threaded server: it came after the end, and the hub ran no more."""
    both.peer.finish()
    both.peer.close()
    both.connection.wait_closed(TIMEOUT)
    both.sink.record("close")
    assert both.connection.closing.abandon(1000)
    both.connection.dispatcher.tell_here()
    assert both.sink.names == ["close"]
    turn()
    assert both.sink.names == ["close"], "the hub tells it no second time"
    assert not both.connection.closing.abandon(1000)


def test_1001_when_the_process_stops(both: Pair) -> None:
    both.connection.closing.go_away(1001)
    assert both.peer.read_close().close_code == 1001
    started = time.perf_counter()
    both.connection.wait_closed(TIMEOUT)
    assert time.perf_counter() - started < 1.5, "little patience"


def test_abandon_tells_the_peer_and_releases_at_once(both: Pair) -> None:
    turn()
    both.connection.closing.abandon(1011)
    assert not both.descriptor_is_open
    assert both.peer.read_close().close_code == 1011
    both.peer.read_eof()
    assert both.connection.state == ReadyState.CLOSED


def test_a_loop_of_sends_and_native_sleeps_learns_that_the_peer_has_gone() -> None:
    """Outside a greenlet of the hub, nothing else lets the hub run."""
    script = (
        "import socket, time\n"
        "from faye_wsgi.driver.hybi import Hybi\n"
        "from faye_wsgi.errors import ConnectionClosed\n"
        "from faye_wsgi.transport.connection import Connection\n"
        "from faye_wsgi.transport.settings import Settings\n"
        "from faye_wsgi.transport.stream import PlainSocket\n"
        "class Sink:\n"
        "    def has_listeners(self, type): return False\n"
        "    def sole_listener(self, type): return None\n"
        "    def dispatch(self, event): pass\n"
        "ours, theirs = socket.socketpair()\n"
        "sock = PlainSocket(fileno=ours.detach()); sock.setblocking(False)\n"
        "connection = Connection(Sink(), Settings())\n"
        "connection.open(Hybi(), sock, b'')\n"
        "connection.outbox.send('one'); theirs.close()\n"
        "try:\n"
        "    for _ in range(100): connection.outbox.send('more'); time.sleep(0.06)\n"
        "except ConnectionClosed: print('told')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr) == ("told\n", "")
