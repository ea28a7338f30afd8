"""The broker of one process, by a made clock: what the contract says of minutes and days."""

from __future__ import annotations

from faye_wsgi.brokers.base import Change, Joined, Left, Replay, Request
from faye_wsgi.brokers.memory import MemoryBroker

from .harness import arrived, payloads, publish, subscribed


class Clock:
    now = 1_764_054_000.0

    def __call__(self) -> float:
        return self.now


def test_numbers_rise_where_the_clock_stands_still_or_goes_back() -> None:
    clock = Clock()
    broker = MemoryBroker(clock=clock)
    first, second = publish(broker, "a").number, publish(broker, "a").number
    assert second == first + 1
    clock.now -= 1000
    assert publish(broker, "a").number == second + 1
    clock.now += 2000
    assert publish(broker, "a").number == int(clock.now * 1_000_000)


def test_a_key_is_remembered_for_five_minutes() -> None:
    clock = Clock()
    broker = MemoryBroker(clock=clock)
    first = publish(broker, "a", key="k")
    clock.now += 299
    assert publish(broker, "a", key="k") == first
    clock.now += 2
    assert publish(broker, "a", key="k") > first


def test_a_channels_number_outlives_its_history_by_a_day() -> None:
    clock = Clock()
    broker = MemoryBroker(clock=clock)
    position = publish(broker, "a", ttl=60.0)
    clock.now += 59
    assert payloads(broker, "a") == ["1"]
    clock.now += 2
    assert broker.read([Request("a", 0)]).replays == [Replay([], position.number)]
    clock.now += 86_400
    broker.beat()
    [born] = broker.read([Request("a", 0)]).replays
    assert born.last > position.number


def test_a_channel_with_a_feed_is_not_forgotten() -> None:
    clock = Clock()
    broker = MemoryBroker(clock=clock)
    feed = subscribed(broker.open_feed(), "a")
    position = publish(broker, "a")
    clock.now += 100_000
    broker.beat()
    assert broker.read([Request("a", 0)]).replays == [Replay([], position.number)]
    publish(broker, "a", "2")
    assert len(arrived(feed)) == 2


def test_a_leave_waits_for_its_time() -> None:
    clock = Clock()
    broker = MemoryBroker(clock=clock)
    feed = subscribed(broker.open_feed(), "a")
    broker.change_presence([Change("a", "7", "x", "{}"), Change("a", "7", "x", None)])
    clock.now += 4.9
    broker.beat()
    assert arrived(feed) == [Joined("a", "7", "{}")]
    clock.now += 0.2
    broker.beat()
    assert arrived(feed) == [Left("a", "7")]
