"""The relay's thread: when it begins, when it ends, and how it wakes up.

What it delivers is tested in test_simulation.py, and over real connections in test_channels.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from unittest import mock

import pytest

from faye_wsgi.brokers.base import Change, Cursor, Position
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.delivery.messages import Message
from faye_wsgi.delivery.outlets import Mailbox, Outlet
from faye_wsgi.delivery.relay import CHECK, DOUBT, GATHER, Entry, Join, Relay
from faye_wsgi.errors import BrokerError

from ..support.waiting import wait_until

TIMEOUT = 5.0


def make(clock: Callable[[], float] = time.monotonic) -> tuple[MemoryBroker, Relay]:
    broker = MemoryBroker()
    delivering = threading.Lock()
    return broker, Relay(broker, lambda position: Cursor((position,)), delivering, clock=clock)


def join(relay: Relay, since: Position | None = None) -> tuple[Outlet, Join]:
    mailbox = Mailbox(lambda message: None, lambda one: None)
    mailbox.close()
    outlet = Outlet(mailbox, "function", mailbox, 1000, "close")
    outlet.hold()
    wanted = Join(outlet, [Entry("a", None, None, False)], since, 0, None)
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
        self.relay._announce()


def test_watchers_that_come_together_are_told_once() -> None:
    world = Watchers()
    world.note(("1", "{}"))
    one, two = world.watch(), world.watch()
    world.step()
    assert one == two == [(["1"], [])]
    three = world.watch()
    world.note(("2", "{}"))
    world.step()
    assert one == [(["1"], []), (["2"], [])]
    assert three == [(["1", "2"], [])]


def test_a_watcher_whose_welcome_fails_is_welcomed_later() -> None:
    world = Watchers()
    world.note(("1", "{}"))
    told = world.watch()
    with mock.patch.object(world.broker, "members", side_effect=BrokerError("away")):
        with pytest.raises(BrokerError):
            world.step()
    assert told == []
    world.step()
    assert told == [(["1"], [])]


def test_a_member_who_comes_back_is_seen_by_those_who_came_meanwhile() -> None:
    world = Watchers()
    old = world.watch()
    world.note(("1", "{}"))
    world.step()
    world.note(("1", None))  # the page is loaded again, and that of another watcher, too
    new = world.watch()
    world.step()
    world.note(("1", "{}"))
    world.step()
    assert old == [(["1"], [])]
    assert new[-1] == (["1"], [])


def test_members_that_the_broker_has_lost_stay_until_they_are_noted_again() -> None:
    world = Watchers()
    world.note(("1", "{}"), ("2", "{}"))
    told = world.watch()
    world.step()
    # The data are lost: the next look finds another epoch, and no members.
    world.broker._now = Position(world.broker._now.number, "other")
    world.broker._channels["a"].members.clear()
    world.relay._timeline.suspect()
    world.relay._read(world.feed)
    world.step(CHECK)
    assert told == [(["1", "2"], [])]
    world.note(("1", "{}"))
    world.step(DOUBT)
    assert told[1:] == [([], ["2"])]
