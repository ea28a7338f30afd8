"""The relay's thread: when it begins, when it ends, and how it wakes up.

What it delivers is tested in test_simulation.py, and over real connections in test_channels.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from unittest import mock

import pytest

from faye_wsgi.brokers.base import Change, Cursor, Position, Publication, Reading, Request
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.delivery import relay as relays
from faye_wsgi.delivery.messages import Message
from faye_wsgi.delivery.outlets import Audience, Mailbox, Outlet
from faye_wsgi.delivery.relay import CHECK, GATHER, Entry, Join, Relay
from faye_wsgi.delivery.rosters import DOUBT

from ..support.waiting import wait_until
from ..transport.harness import pair

TIMEOUT = 30.0


def make(clock: Callable[[], float] = time.monotonic) -> tuple[MemoryBroker, Relay]:
    broker = MemoryBroker()
    delivering = threading.Lock()
    return broker, Relay(broker, lambda position: Cursor((position,)), delivering, clock=clock)


def join(
    relay: Relay, since: Position | None = None, limit: int | None = None
) -> tuple[Outlet, Join]:
    mailbox = Mailbox(lambda message: None, lambda one: None)
    mailbox.close()
    outlet = Outlet(mailbox, "function", mailbox, 1000, "close")
    outlet.hold()
    wanted = Join(outlet, [Entry("a", None, None, False)], since, 0, None, limit)
    relay.join(wanted)
    return outlet, wanted


def test_it_lives_as_long_as_it_has_subscribers() -> None:
    _, relay = make()
    for _ in range(3):
        outlet, wanted = join(relay)
        assert wanted.wait(TIMEOUT) and wanted.position is not None
        assert relay._is_running
        relay.leave(outlet, ["a"], [])
        relay.hurry()
        wait_until(lambda: not relay._is_running)
    relay.hurry()
    assert not relay._is_running


def test_an_answer_that_is_not_awaited_any_more_is_not_given() -> None:
    _, relay = make()
    relay._is_running = True  # no thread takes the request
    outlet, wanted = join(relay)
    assert not wanted.wait(0)
    relay._is_running = False
    relay.hurry()
    _, other = join(relay)
    assert other.wait(TIMEOUT) and wanted.position is None
    relay.leave(other.outlet, ["a"], [])
    relay.hurry()
    wait_until(lambda: not relay._is_running)
    assert outlet.take_held() == []


def test_subscribers_that_come_at_the_same_time_share_a_reading() -> None:
    now = [100.0]
    broker, relay = make(lambda: now[0])
    first, wanted = join(relay)
    assert wanted.wait(TIMEOUT)
    with mock.patch.object(broker, "read", side_effect=broker.read) as read:
        others = [join(relay) for _ in range(50)]
        now[0] += GATHER
        relay.hurry()
        assert all(one.wait(TIMEOUT) for _, one in others)
    assert read.call_count == 1
    for outlet, _ in [(first, wanted), *others]:
        relay.leave(outlet, ["a"], [])
    relay.hurry()
    wait_until(lambda: not relay._is_running)


def end(relay: Relay, *outlets: Outlet) -> None:
    for outlet in outlets:
        relay.leave(outlet, ["a"], [])
    relay.hurry()
    wait_until(lambda: not relay._is_running)


def payloads(outlet: Outlet) -> list[str]:
    return [item.message.payload for item in outlet.take_held()]


def test_what_one_reading_covers_is_not_read_again() -> None:
    broker, relay = make()
    cursors = [broker.publish("a", str(number), history=100, ttl=60) for number in range(10)]
    first, wanted = join(relay, cursors[3])
    assert wanted.wait(TIMEOUT)
    broker.publish("a", "10", history=100, ttl=60)
    wait_until(lambda: len(payloads(first)) in (1, 7))
    with mock.patch.object(broker, "read") as read, mock.patch.object(broker, "signal") as signal:
        late, one = join(relay, cursors[5])
        last, other = join(relay, relay.position)
        assert one.wait(0) and one.is_complete and one.position == relay.position
        assert other.wait(0) and other.is_complete
        assert payloads(late) == ["6", "7", "8", "9", "10"]
        assert payloads(last) == []
        assert not read.called and not signal.called
    older, wanted = join(relay, cursors[1])
    assert wanted.wait(TIMEOUT) and wanted.is_complete
    assert payloads(older) == [str(number) for number in range(2, 11)]
    broker.publish("a", "11", history=100, ttl=60)
    for outlet in (first, late, last, older):
        wait_until(lambda one=outlet: one._held)  # type: ignore[misc]
        assert payloads(outlet)[-1] == "11"
    end(relay, first, late, last, older)


def test_a_cursor_that_is_not_known_here_is_read() -> None:
    broker, relay = make()
    broker.publish("a", "0", history=1, ttl=60)
    first, wanted = join(relay)
    assert wanted.wait(TIMEOUT) and relay.position is not None
    number, epoch = relay.position
    others = []
    for start in (Position(number + 10**12, epoch), Position(number, "other"), Position(1, epoch)):
        with mock.patch.object(broker, "read", side_effect=broker.read) as read:
            outlet, wanted = join(relay, start)
            assert wanted.wait(TIMEOUT) and not wanted.is_complete
        assert read.called
        others.append(outlet)
    end(relay, first, *others)


def test_a_crowd_wakes_the_thread_once() -> None:
    """Each signal is a call of the broker, and the thread looks at all requests anyway."""
    now = [100.0]
    broker, relay = make(lambda: now[0])
    first, wanted = join(relay)
    assert wanted.wait(TIMEOUT)
    relay.hurry()
    wait_until(lambda: not relay._is_awake)
    with mock.patch.object(broker, "signal", side_effect=broker.signal) as signal:
        others = [join(relay) for _ in range(50)]
        wakes = [call for call in signal.call_args_list if not call.args[1]]
        assert len(wakes) == 1
    now[0] += GATHER
    assert all(one.wait(TIMEOUT) for _, one in others)
    end(relay, first, *(outlet for outlet, _ in others))


def test_what_arrives_together_goes_out_in_one_system_call() -> None:
    _, relay = make()
    with pair() as one:
        sink, connection = one.sink, one.connection
        outlet = Outlet(sink, "websocket", connection.outbox, 1000, "close")
        relay._audiences["a"] = audience = Audience()
        audience.add(outlet, None, False)
        sent: list[bytes] = []
        send = connection.stream._send
        connection.stream._send = lambda data: (sent.append(data), send(data))[1]
        arrived = [Publication("a", number, number - 1, "e", "{}") for number in range(1, 4)]
        relay._deliver(arrived)
        assert len(sent) == 1 and sent[0].count(b'"data":{}') == 3
        relay._deliver(arrived[:1])
        assert len(sent) == 2


def test_a_reading_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come at the same time, and however long they were away."""
    monkeypatch.setattr(relays, "READING", 10_000)
    broker, relay = make()
    start = broker.publish("a", "0", history=1000, ttl=60)
    for number in range(50):
        broker.publish("a", f'"{number:0998}"', history=1000, ttl=60)
    brought = []

    def read(requests: Sequence[Request]) -> Reading:
        reading = MemoryBroker.read(broker, requests)
        brought.append(sum(len(one.payload) for r in reading.replays for one in r.publications))
        return reading

    with mock.patch.object(broker, "read", side_effect=read):
        outlet, wanted = join(relay, start)
        sent = []
        while wanted.wait(TIMEOUT) and wanted.page is not None:
            sent += [item.message.payload for item in wanted.page]
            wanted.begin_again()
            relay.join(wanted)
    assert wanted.is_complete and max(brought) == 10_000
    assert [int(one.strip('"')) for one in [*sent, *payloads(outlet)]] == list(range(50))
    end(relay, outlet)


def test_a_long_replay_comes_in_pages() -> None:
    broker, relay = make()
    start = broker.publish("a", "0", history=1000, ttl=60)
    for number in range(600):
        broker.publish("a", str(number), history=1000, ttl=60)
    outlet, wanted = join(relay, start)
    pages = []
    while wanted.wait(TIMEOUT) and wanted.page is not None:
        pages.append([item.message.payload for item in wanted.page])
        wanted.begin_again()
        relay.join(wanted)
    assert len(pages) == 2 and wanted.is_complete
    rest = [item.message.payload for item in outlet.take_held()]
    assert [*pages[0], *pages[1], *rest] == [str(number) for number in range(600)]
    relay.leave(outlet, ["a"], [])
    relay.hurry()
    wait_until(lambda: not relay._is_running)


@pytest.mark.parametrize("size", [1, 60_000], ids=["small", "large"])
@pytest.mark.parametrize("is_known", [False, True], ids=["read", "known"])
def test_a_limit_is_kept_over_all_pages(is_known: bool, size: int) -> None:
    """A cursor that is too old gets nothing of the past, whatever is known here already."""
    broker, relay = make()
    payload = "1" * size
    cursors = [broker.publish("a", payload, history=1000, ttl=60) for _ in range(20)]
    outlets = []
    if is_known:
        first, wanted = join(relay, cursors[0])
        while wanted.wait(TIMEOUT) and wanted.page is not None:
            wanted.begin_again()
            relay.join(wanted)
        outlets.append(first)
    for missed, limit, is_complete in (
        (3, 3, True),
        (3, 2, False),
        (3, 0, False),
        (3, 1000, True),
        (19, 18, False),
        (0, 0, True),
    ):
        outlet, wanted = join(relay, cursors[-1 - missed], limit)
        assert wanted.wait(TIMEOUT) and wanted.page is None
        assert wanted.is_complete is is_complete
        assert len([item for item in outlet.take_held() if not item.message.reset]) == (
            missed if is_complete else 0
        )
        outlets.append(outlet)
    end(relay, *outlets)


# Presence: step by step, in this thread


class Watchers:
    """A relay with watchers, whose loop is called step by step; and what each was told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.broker = MemoryBroker(clock=lambda: self.now)
        self.relay = Relay(
            self.broker, lambda one: Cursor((one,)), threading.Lock(), clock=lambda: self.now
        )
        self.relay._is_running = True
        self.feed = self.broker.open_feed()

    def watch(self) -> list[tuple[list[str], list[str]]]:
        """One more watcher."""
        told: list[tuple[list[str], list[str]]] = []
        outbox = mock.Mock()

        def send(message: Message, shared: object) -> bool:
            if not message.reset:
                told.append((sorted(message.joined), sorted(message.left)))
            return True

        outbox.send_shared = send
        outlet = Outlet(outbox, "function", outbox, 1000, "close")
        self.relay.join(Join(outlet, [Entry("a", None, None, True)], None, 0, None))
        self.relay._read(self.feed)
        return told

    def note(self, *changes: tuple[str, str | None]) -> None:
        noted = [Change("a", member, "x", data) for member, data in changes]
        self.broker.change_presence(noted)

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.relay._receive(self.feed, 0)
        self.relay._change_presence()
        self.relay._rosters.announce(self.relay._number)


def test_members_that_the_broker_has_lost_stay_until_they_are_noted_again() -> None:
    world = Watchers()
    world.note(("1", "{}"), ("2", "{}"))
    told = world.watch()
    world.step()
    # The data are lost: the next look finds another epoch, and no members.
    world.broker._now = Position(world.broker._now.number, "other")
    world.broker._channels["a"].members.clear()
    world.broker._channels["a"].roster.clear()
    world.relay._timeline.suspect()
    world.relay._read(world.feed)
    world.step(CHECK)
    assert told == [(["1", "2"], [])]
    world.note(("1", "{}"))
    world.step(DOUBT)
    assert told[1:] == [([], ["2"])]
