"""Nobody starves: what one connection gets done before the others have their turn."""

from __future__ import annotations

import contextlib
import socket
import zlib
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from faye_wsgi.extensions.negotiation import negotiate
from faye_wsgi.extensions.permessage_deflate import permessage_deflate
from faye_wsgi.transport import outbox
from faye_wsgi.transport.settings import GATHER, MAX_WORK, TURN, TURN_BYTES, TURN_PIECES, Settings

from ..support import frames
from .harness import Pair, pair, until

READ_SIZE = 65536
ENOUGH = 20 * TURN


def swallow(both: Pair) -> None:
    """The kernel takes everything, as it does while a peer reads as fast as it can."""
    assert both.connection.stream is not None
    both.connection.stream._send = len


def serve(both: Pair, view: Callable[[Any], None]) -> Any:
    return gevent.spawn(view, both.connection)


@pytest.mark.parametrize("size", [1, 1000, 30_000])
def test_who_sends_on_and_on_lets_others_go_first(size: int) -> None:
    sent_at_turns: list[int] = []
    sent = 0

    def flood(connection: Any) -> None:
        nonlocal sent
        while sent < ENOUGH:
            connection.outbox.send("x" * size)
            sent += 1

    def other() -> None:
        while sent < ENOUGH:
            sent_at_turns.append(sent)
            gevent.sleep(0)

    def run() -> None:
        with pair() as both:
            swallow(both)
            gevent.joinall([serve(both, flood), gevent.spawn(other)], timeout=10)

    gevent.spawn(run).join(15)  # not in the main greenlet, which has its own rule
    longest = max(b - a for a, b in zip(sent_at_turns, sent_at_turns[1:]))
    # What a turn has in pieces and in bytes, and what is gathered when it is over.
    assert 0 < longest <= min(2 * TURN * TURN_PIECES, (TURN * TURN_BYTES + GATHER) // size) + 1


class Counted:
    """Stands for the kernel: takes all, and counts."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, data: Any) -> int:
        self.calls.append(len(data))
        return len(data)


def flooded(view: Callable[[Any, Counted], None], **settings: Any) -> Counted:
    """What has gone out when `view` is done and the hub has run."""
    kernel = Counted()

    def run() -> None:
        with pair(Settings(**settings)) as both:
            assert both.connection.stream is not None
            both.connection.stream._send = kernel
            view(both.connection, kernel)
            gevent.sleep(0)
            kernel.calls.append(0)
            both.connection.stream._send = len

    greenlet = gevent.spawn(run)
    greenlet.join(15)
    greenlet.get(block=False)
    return kernel


@pytest.mark.parametrize("high_water", [65536, 10])
def test_what_a_flood_sends_is_gathered(high_water: int) -> None:
    def flood(connection: Any, kernel: Counted) -> None:
        for _ in range(ENOUGH * 10):
            connection.outbox.send("x" * 100)

    kernel = flooded(flood, high_water=high_water)
    sent = kernel.calls[: kernel.calls.index(0)]
    assert sum(sent) == ENOUGH * 10 * 102
    assert len(sent) < 4 * TURN


def test_what_follows_a_flood_goes_out_when_its_greenlet_waits() -> None:
    def flood(connection: Any, kernel: Counted) -> None:
        for _ in range(ENOUGH):
            connection.outbox.send("x" * 100)
        gevent.sleep(0)
        assert sum(kernel.calls) == ENOUGH * 102
        connection.outbox.send("and later")
        assert sum(kernel.calls) == ENOUGH * 102 + 11, "it goes out at once"

    flooded(flood)


def test_who_sends_slowly_is_not_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FLOOD", 0)

    def slowly(connection: Any, kernel: Counted) -> None:
        for number in range(ENOUGH):
            connection.outbox.send("x" * 100)
            assert len(kernel.calls) == number + 1

    flooded(slowly)


def test_a_listener_that_sends_on_and_on_does_too() -> None:
    """Its writes are gathered as long as the batch is dealt with."""
    turns = 0
    with pair() as both:
        done: list[bool] = []

        def flood(event: Any) -> None:
            for _ in range(20 * READ_SIZE // 1000):
                both.connection.outbox.send("x" * 1000)
            done.append(True)

        swallow(both)
        both.sink.on("message", flood)
        both.peer.send_text("go")
        until(lambda: bool(both.sink.has_listeners("message")))
        while not done:
            turns += 1
            gevent.sleep(0)
    assert turns >= 10


def test_a_batch_of_messages_is_bounded() -> None:
    """A connection with much to read gives way after each read."""
    served: list[str] = []
    payload = "x" * 100
    count = 4 * READ_SIZE // len(frames.text(payload))

    def view(name: str) -> Callable[[Any], None]:
        def run(connection: Any) -> None:
            while connection.inbox.take() is not None:
                served.append(name)

        return run

    with pair() as busy, pair() as quiet:
        for both, name in ((busy, "busy"), (quiet, "quiet")):
            serve(both, view(name))
        busy.peer.sock.sendall(frames.text(payload) * (count // 2))
        quiet.peer.send_text("one")
        until(lambda: "quiet" in served)
        before = served.index("quiet")
        until(lambda: len(served) > count // 2)
    assert before <= READ_SIZE // len(frames.text(payload)) + 1


# Reading


TWO_FRAMES = len(frames.text("", fin=False) + frames.frame(frames.CONTINUATION, "000000"))


def in_two_frames(count: int) -> bytes:
    """Messages that are numbers, each in two frames: no other way to read them is as slow."""
    return b"".join(
        frames.text("", fin=False) + frames.frame(frames.CONTINUATION, f"{number:06}")
        for number in range(count)
    )


def read_all(both: Pair, seen: list[str], note: Callable[[], object] = lambda: None) -> None:
    def view(connection: Any) -> None:
        while (message := connection.inbox.take()) is not None:
            seen.append(message)
            note()

    serve(both, view)


def test_slow_frames_give_way_in_the_middle_of_a_read() -> None:
    """The other connection comes later, and has its turn behind one slice of the first one."""
    seen: list[str] = []
    count = READ_SIZE // TWO_FRAMES  # one read
    with pair() as busy, pair() as quiet:

        def interrupt() -> None:
            if len(seen) == 1:
                quiet.peer.sock.sendall(frames.text("quiet"))

        read_all(busy, seen, interrupt)
        read_all(quiet, seen)
        busy.peer.sock.sendall(in_two_frames(count))
        until(lambda: len(seen) == count + 1)
    assert seen.index("quiet") <= MAX_WORK
    seen.remove("quiet")
    assert seen == [f"{number:06}" for number in range(count)]


def test_of_many_slow_connections_one_goes_on_in_a_turn() -> None:
    """So what a quiet connection waits for does not grow with their number."""
    seen: list[str] = []
    count = READ_SIZE // TWO_FRAMES
    with contextlib.ExitStack() as stack:
        quiet = stack.enter_context(pair())
        crowd = [stack.enter_context(pair()) for _ in range(5)]
        first_slices = len(crowd) * MAX_WORK // 2

        def interrupt() -> None:
            if len(seen) == first_slices:
                quiet.peer.sock.sendall(frames.text("quiet"))

        read_all(quiet, seen)
        for both in crowd:
            read_all(both, seen, interrupt)
            both.peer.sock.sendall(in_two_frames(count))
        until(lambda: len(seen) == len(crowd) * count + 1)
    assert seen.index("quiet") - first_slices <= MAX_WORK


def test_bombs_are_inflated_one_after_the_other_in_many_turns() -> None:
    """In each turn the quiet connection is served, too; no two bombs are in memory."""
    seen: list[Any] = []
    bomb = bytes(8 * 2**20)
    packer = zlib.compressobj(wbits=-15)
    payload = packer.compress(bomb) + packer.flush(zlib.Z_SYNC_FLUSH)
    packed = frames.frame(frames.BINARY, payload[:-4], rsv=4)
    with contextlib.ExitStack() as stack:
        quiet = stack.enter_context(pair())

        def say() -> None:
            if seen.count(bomb) < 3:
                quiet.peer.sock.sendall(frames.text("quiet"))

        read_all(quiet, seen, say)
        for _ in range(3):
            pipeline = negotiate([permessage_deflate], "permessage-deflate", len(bomb))
            both = stack.enter_context(pair(pipeline=pipeline))
            read_all(both, seen)
            both.peer.sock.sendall(packed)
        say()
        until(lambda: seen.count(bomb) == 3)
    first, second, third = (index for index, message in enumerate(seen) if message == bomb)
    assert min(first, second - first, third - second) >= 4


@pytest.mark.parametrize("end, code", [(frames.close(4001), 4001), (b"", 1006)])
def test_what_ends_a_connection_does_not_overtake_slow_frames(end: bytes, code: int) -> None:
    seen: list[str] = []
    count = 2 * READ_SIZE // TWO_FRAMES
    with pair() as both:
        both.sink.record("close")
        both.sink.on("message", lambda event: seen.append(event.data))
        both.peer.sock.sendall(in_two_frames(count) + end)
        both.peer.sock.shutdown(socket.SHUT_WR)
        until(lambda: both.sink.names == ["close"])
        assert (len(seen), both.sink.close_event.code) == (count, code)
        assert seen == sorted(seen)


def test_slow_frames_behind_our_own_close_do_not_hide_the_peers() -> None:
    """They are dropped, with a full queue, too."""
    with pair(Settings(max_queue=1)) as both:
        both.sink.record("close")
        both.peer.sock.sendall(frames.text("unread") * 3)
        until(lambda: not both.connection.stream.is_reading)  # type: ignore[union-attr]
        both.connection.close(4000)
        both.peer.sock.sendall(in_two_frames(READ_SIZE // TWO_FRAMES) + frames.close(4000))
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 4000


def test_the_answers_to_slow_frames_are_gathered() -> None:
    count = READ_SIZE // TWO_FRAMES
    with pair() as both:
        kernel = Counted()
        both.connection.stream._send = kernel  # type: ignore[union-attr]
        both.sink.on("message", lambda event: both.connection.outbox.send(event.data))
        both.peer.sock.sendall(in_two_frames(count))
        until(lambda: sum(kernel.calls) == count * len(frames.text("000000", mask=None)))
        assert len(kernel.calls) <= 2 * count // MAX_WORK + 2
