"""The engines that the contract is tested on, and how to wait for what a feed brings."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any, Callable, TypeVar

from faye_wsgi.brokers.base import (
    Arrival,
    Broker,
    Feed,
    Position,
    Publication,
    Request,
    Signal,
    Subscribed,
)
from faye_wsgi.brokers.engines import connect
from faye_wsgi.errors import BrokerError

T = TypeVar("T")

BOUND = 30.0  # seconds that a test waits for what must come


class Engine:
    """Where brokers of one test meet: `connect()` is another process's view of the same data."""

    has_processes = True  # each broker stands for a process of its own

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = secrets.token_hex(4)
        self.brokers: list[Broker] = []

    def connect(self, **options: Any) -> Broker:
        [broker] = connect(self.url, prefix=self.prefix, **options)
        self.brokers.append(broker)
        return broker

    def close(self) -> None:
        for broker in self.brokers:
            broker.close()


class Memory(Engine):
    """One broker is the only one of its data."""

    has_processes = False

    def __init__(self) -> None:
        super().__init__("memory://")


def publish(broker: Broker, channel: str, payload: str = "1", **options: Any) -> Position:
    return broker.publish(channel, payload, **{"history": 100, "ttl": 60.0, **options})


def payloads(broker: Broker, channel: str, since: int | None = 0, limit: int | None = None) -> Any:
    [replay] = broker.read([Request(channel, since, limit)]).replays
    return [publication.payload for publication in replay.publications]


def subscribed(feed: Feed, *channels: str) -> Feed:
    """The feed, when its subscriptions are confirmed."""
    feed.subscribe(channels)
    wait_for(feed, [Subscribed(channel) for channel in channels])
    return feed


def arrived(feed: Feed) -> list[Arrival]:
    """All that was sent to a feed before."""
    token = secrets.token_hex(4)
    feed.signal(token)
    return wait_for(feed, [Signal(token)])[:-1]


def wait_for(
    feed: Feed, expected: Iterable[Arrival], meanwhile: Callable[[], Any] = lambda: None
) -> list[Arrival]:
    """What arrives until all that is expected is there."""
    missing, found = list(expected), []
    deadline = time.monotonic() + BOUND
    while missing:
        assert time.monotonic() < deadline, f"{missing} did not arrive, but {found}"
        meanwhile()
        for arrival in feed.receive(0.05):
            found.append(arrival)
            if arrival in missing:
                missing.remove(arrival)
    return found


def sent(channel: str, arrivals: Iterable[Arrival]) -> list[str]:
    """The payloads of a channel's publications."""
    return [a.payload for a in arrivals if isinstance(a, Publication) and a.channel == channel]


def unless_broker_error(call: Callable[[], T]) -> T | None:
    """What a call returns; None where the engine is away."""
    try:
        return call()
    except BrokerError:
        return None
