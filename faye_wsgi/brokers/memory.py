"""The broker of one process: for development, for tests, and where one worker is enough.

Everything is in dictionaries under one lock. A feed is a queue. What the engines of many processes
do in their scripts, this does in the same words, so that it can be read as their specification.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Callable

from faye_wsgi.brokers.base import (
    KEY_SECONDS,
    LAST_SECONDS,
    LEAVE_SECONDS,
    WORKER_SECONDS,
    Arrival,
    Broker,
    Change,
    Feed,
    Joined,
    Left,
    Position,
    Publication,
    Reading,
    Replay,
    Request,
    Signal,
    Subscribed,
)
from faye_wsgi.errors import BrokerError

__all__ = ["MemoryBroker"]

SWEEP_SECONDS = 60.0


class _Channel:
    """What is kept of a channel."""

    __slots__ = ("expires", "feeds", "forgotten", "last", "log", "members", "roster")

    def __init__(self, birth: int, now: float) -> None:
        self.last = birth
        self.log: deque[Publication] = deque()
        self.expires = 0.0  # when the log is dropped
        self.forgotten = now + LAST_SECONDS  # when ``last`` is dropped, too
        self.feeds: set[MemoryFeed] = set()
        self.members: dict[str, dict[str, str]] = {}  # member → connection → data
        self.roster: dict[str, str] = {}  # member → data, as announced


class MemoryBroker(Broker):
    """Channels in this process's memory."""

    def __init__(
        self,
        *,
        leave_seconds: float = LEAVE_SECONDS,
        worker_seconds: float = WORKER_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.worker = secrets.token_hex(8)
        self._clock = clock
        self._leave_seconds = leave_seconds
        self._now = Position(int(clock() * 1_000_000), secrets.token_hex(4))
        self._channels: dict[str, _Channel] = {}
        self._keys: OrderedDict[tuple[str, str], tuple[Position, float]] = OrderedDict()
        self._leaving: dict[tuple[str, str], float] = {}  # (channel, member) → when it is announced
        self._next_sweep = 0.0
        self._lock = threading.RLock()
        self._is_closed = False
        self._feeds: set[MemoryFeed] = set()

    def _begin(self) -> threading.RLock:
        """The lock of a call; BrokerError where the broker is closed."""
        if self._is_closed:
            raise BrokerError("the broker is closed")
        return self._lock

    # Publishing and reading

    def publish(
        self, channel: str, payload: str, *, key: str | None = None, history: int, ttl: float
    ) -> Position:
        """Number, keep and send a publication, in one step; its position."""
        with self._begin():
            now = self._clock()
            self._forget_keys(now)
            if key is not None and (channel, key) in self._keys:
                return self._keys[channel, key][0]
            kept = self._channel(channel, now)
            number = max(self._now.number + 1, int(now * 1_000_000))
            self._now = Position(number, self._now.epoch)
            publication = Publication(channel, number, kept.last, self._now.epoch, payload)
            kept.last = number
            kept.log.append(publication)
            while len(kept.log) > history:
                kept.log.popleft()
            kept.expires = now + ttl
            kept.forgotten = now + max(ttl, LAST_SECONDS)
            if key is not None:
                self._keys[channel, key] = (self._now, now + KEY_SECONDS)
            self._send(kept, publication)
            return self._now

    def read(self, requests: Sequence[Request]) -> Reading:
        """What is kept of channels, in one step."""
        with self._begin():
            now = self._clock()
            replays = []
            for request in requests:
                kept = self._channel(request.channel, now)
                replays.append(Replay(_select(kept.log, request), kept.last))
            return Reading(self._now, replays)

    def _channel(self, name: str, now: float) -> _Channel:
        kept = self._channels.get(name)
        if kept is None:
            # The birth is above all positions given before: they cannot vouch for the channel.
            number = max(self._now.number + 1, int(now * 1_000_000))
            self._now = Position(number, self._now.epoch)
            kept = self._channels[name] = _Channel(number, now)
        elif kept.expires <= now:
            kept.log.clear()
        return kept

    def _forget_keys(self, now: float) -> None:
        while self._keys:
            first, (_position, expires) = next(iter(self._keys.items()))
            if expires > now:
                return
            del self._keys[first]

    @staticmethod
    def _send(kept: _Channel, arrival: Arrival) -> None:
        for feed in kept.feeds:
            feed.put(arrival)

    # Feeds

    def open_feed(self) -> Feed:
        """A queue of its own."""
        with self._begin():
            feed = MemoryFeed(self)
            self._feeds.add(feed)
            return feed

    def subscribe(self, feed: MemoryFeed, channels: Iterable[str]) -> None:
        """Let a feed get what is published to channels."""
        with self._lock:
            for name in channels:
                self._channel(name, self._clock()).feeds.add(feed)
                feed.put(Subscribed(name))

    def unsubscribe(self, feed: MemoryFeed, channels: Iterable[str]) -> None:
        """Let a feed get no more of channels."""
        with self._lock:
            for name in channels:
                if name in self._channels:
                    self._channels[name].feeds.discard(feed)

    def forget(self, feed: MemoryFeed) -> None:
        """Let a feed get nothing more."""
        with self._lock:
            self._feeds.discard(feed)
            for kept in self._channels.values():
                kept.feeds.discard(feed)

    def signal(self, feed: MemoryFeed, token: str) -> None:
        """Let a signal arrive at a feed, behind what is being published."""
        with self._lock:
            feed.put(Signal(token))

    # Presence

    def change_presence(self, changes: Sequence[Change]) -> None:
        """Note which connections have come and gone."""
        with self._begin():
            now = self._clock()
            for channel, member, connection, data in changes:
                kept = self._channel(channel, now)
                connections = kept.members.setdefault(member, {})
                if data is not None:
                    self._leaving.pop((channel, member), None)
                    connections[connection] = data
                    if kept.roster.get(member) != data:
                        kept.roster[member] = data
                        self._send(kept, Joined(channel, member, data))
                elif connections.pop(connection, None) is not None and not connections:
                    self._leaving[channel, member] = now + self._leave_seconds
                if not connections:
                    del kept.members[member]

    def members(self, channel: str) -> dict[str, list[str]]:
        """The data of each connection of each member."""
        with self._begin():
            kept = self._channels.get(channel)
            members = {} if kept is None else kept.members
            return {member: list(data.values()) for member, data in members.items()}

    def rosters(self, channels: Sequence[str]) -> list[dict[str, str]]:
        """The members of channels as they were announced."""
        with self._begin():
            kept = [self._channels.get(channel) for channel in channels]
            return [{} if one is None else dict(one.roster) for one in kept]

    def beat(self) -> int:
        """Announce the leaves that are due, and forget the channels that nothing uses."""
        with self._begin():
            now = self._clock()
            due = [key for key, when in self._leaving.items() if when <= now]
            for channel, member in due:
                del self._leaving[channel, member]
                kept = self._channel(channel, now)
                del kept.roster[member]
                self._send(kept, Left(channel, member))
            if now >= self._next_sweep:
                self._next_sweep = now + SWEEP_SECONDS
                self._forget_channels(now)
            return 1

    def _forget_channels(self, now: float) -> None:
        for name, kept in list(self._channels.items()):
            if kept.forgotten <= now and not kept.feeds and not kept.roster:
                del self._channels[name]

    def eviction_policy(self) -> str:
        """Nothing is deleted before its time."""
        return "noeviction"

    def close(self) -> None:
        """Close the feeds."""
        with self._lock:
            self._is_closed = True
            for feed in list(self._feeds):
                feed.close()


class MemoryFeed(Feed):
    """A queue of arrivals."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._arrivals: deque[Arrival] = deque()
        self._arrived = threading.Condition()
        self._is_closed = False

    def put(self, arrival: Arrival) -> None:
        """Add an arrival, in any thread."""
        with self._arrived:
            self._arrivals.append(arrival)
            self._arrived.notify()

    def subscribe(self, channels: Iterable[str]) -> None:
        """Get what is published to channels."""
        self._broker.subscribe(self, channels)

    def unsubscribe(self, channels: Iterable[str]) -> None:
        """Get no more of channels."""
        self._broker.unsubscribe(self, channels)

    def receive(self, timeout: float) -> list[Arrival]:
        """What has arrived; waits for the first of it."""
        with self._arrived:
            if not self._arrivals and not self._is_closed:
                self._arrived.wait(timeout)
            if self._is_closed:
                raise BrokerError("the feed is closed")
            arrived = list(self._arrivals)
            self._arrivals.clear()
            return arrived

    def signal(self, token: str = "") -> None:
        """Let a signal arrive."""
        self._broker.signal(self, token)

    def close(self) -> None:
        """End it, and wake its owner."""
        self._broker.forget(self)
        with self._arrived:
            self._is_closed = True
            self._arrived.notify()


def _select(log: deque[Publication], request: Request) -> list[Publication]:
    if request.since is None:
        newest = islice(reversed(log), request.limit or 0)
        return list(_take(newest, request.size))[::-1]
    later = (publication for publication in log if publication.number > request.since)
    return list(_take(islice(later, request.limit), request.size))


def _take(publications: Iterable[Publication], size: int | None) -> Iterator[Publication]:
    """Publications, up to the one that reaches a size."""
    taken = 0
    for publication in publications:
        if size is not None and taken >= size:
            return
        taken += len(publication.payload.encode())
        yield publication
