"""Nothing is lost without a word: the relay against a broker that fails at any moment.

All runs in one thread, from a seed. The broker is that of memory; at each of its calls the
simulation may publish, lose feeds or data, or let clients come, read, break off and resume. A
client knows only what it has received. At the end all is quiet, and each channel gets a last
message: between a client's first message and the last one nothing may be missing that no reset has
announced, nothing may come twice, and the order is that of publishing.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Callable

import pytest

from faye_wsgi.brokers.base import Change, Cursor, Feed, Position, Reading, Replay, Request
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.delivery import relay as relays
from faye_wsgi.delivery import timeline as timelines
from faye_wsgi.delivery.delivery import Delivery
from faye_wsgi.delivery.outlets import Outlet, Slow
from faye_wsgi.delivery.relay import Entry, Join, Relay
from faye_wsgi.errors import BrokerError

CHANNELS = ["a", "b", "c", "d"]
STEPS = 600
HISTORY = {"a": 1000, "b": 12, "c": 3, "d": 0}


class Over(BaseException):
    """The end of a simulation."""


class Failed(BaseException):
    """A client has found a fault."""


class Outbox:
    """A connection's, with room for a few messages."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.sent: list[str] = []
        self.room = 5
        self.askers: list[Callable[[], object]] = []

    def send_shared(self, message: str, shared: Any) -> bool:
        if self.room <= 0:
            return False
        self.send(message)
        return True

    def send(self, message: str, timeout: None = None) -> None:
        self.room -= 1
        self.sent.append(message)

    def ask_for_room(self, tell: Callable[[], object]) -> None:
        self.askers.append(tell)

    def drain(self) -> None:
        self.room = self._chance.randint(1, 8)
        askers, self.askers = self.askers, []
        for tell in askers:
            tell()


class Client:
    """What one client knows, over all its connections."""

    def __init__(self, world: World, channels: list[str]) -> None:
        self.world = world
        self.channels = channels[:2]
        self.later = channels[2:]
        self.cursor: str | None = None
        # Publications of a channel before this index of the truth are known, or need not be.
        self.known: dict[str, int] = {}
        self.is_given_up = False
        self.outlet: Outlet | None = None

    # Coming and going

    def connect(self) -> None:
        chance = self.world.chance
        self.outbox = Outbox(chance)
        self.outlet = Outlet(self, "websocket", self.outbox, self.world.high_water, self.world.slow)
        self.outlet.hold()
        self.read = 0
        self.seen: set[tuple[str, str]] = set()
        self.channels_now: list[str] = []
        self.ask(self.channels)

    def ask(self, channels: list[str]) -> None:
        assert self.outlet is not None
        entries = [Entry(channel, None, None, False) for channel in channels]
        since = None if self.cursor is None else Cursor.parse(self.cursor, 1)[0]
        if self.channels_now:  # added, from now on
            since = None
        self.is_new = since is None
        self.channels_now += channels
        self.join: Join | None = Join(self.outlet, entries, since, 0, None)
        self.world.relay.join(self.join)

    def go_on(self) -> None:
        """What ``Delivery.subscribe`` does, one step."""
        join, outlet = self.join, self.outlet
        assert outlet is not None
        if join is None:
            rest = [channel for channel in self.later if channel not in self.channels_now]
            if rest and self.world.chance.random() < 0.1:
                outlet.hold()
                self.ask(rest)
        elif join.page is not None:
            Delivery._send_page(outlet, join)
            join.begin_again()
            self.world.relay.join(join)
        elif join.position is not None:
            if self.is_new:
                for entry in join.entries:
                    self.known[entry.channel] = len(self.world.truth)
            while items := outlet.take_held():
                outlet.send(items)
            outlet.release()
            self.join = None

    def disconnect(self) -> None:
        """Break off: some of what was sent last has not arrived."""
        assert self.outlet is not None
        lost = self.world.chance.randint(0, len(self.outbox.sent) - self.read)
        self.receive(len(self.outbox.sent) - lost)
        self.outlet.close()
        self.world.relay.leave(self.outlet, self.channels_now, [])
        self.outlet = None
        if self.cursor is None:
            self.known.clear()  # it has no cursor: it begins anew

    def close(self, code: int, reason: str) -> None:
        """The outlet gives it up."""
        self.is_given_up = True

    # What arrives

    def receive(self, end: int) -> None:
        for text in self.outbox.sent[self.read : end]:
            self.take(json.loads(text))
        self.read = max(self.read, end)

    def take(self, message: dict[str, Any]) -> None:
        channel, truth = message["channel"], self.world.truth
        self.cursor = message["id"]
        if message.get("reset"):
            # What was published before the reset was sent may be lost.
            self.known[channel] = max(self.known.get(channel, 0), len(truth))
            return
        index = message["data"]
        assert truth[index] == channel
        assert (channel, message["id"]) not in self.seen, "it came twice"
        self.seen.add((channel, message["id"]))
        known = self.known.get(channel)
        if known is None:
            self.known[channel] = index + 1
            return
        missing = [i for i in range(known, index) if truth[i] == channel]
        assert not missing, f"{missing} of {channel} were lost without a word"
        self.known[channel] = max(known, index + 1)


class World:
    """Everything, and the dice."""

    def __init__(self, seed: int, slow: Slow, high_water: int, leaks: bool = False) -> None:
        # A feed that lives and loses something is found out, but only when the channel's next
        # publication comes. Until then, a cursor says too much: so there nobody breaks off.
        self.leaks = leaks
        self.chance = random.Random(seed)
        self.slow: Slow = slow
        self.high_water = high_water
        self.now = 1000.0
        self.truth: list[str] = []  # the channels of all publications
        self.memory = MemoryBroker(clock=lambda: self.now)
        self.feeds: list[FaultyFeed] = []
        self.is_quiet = False
        self.steps = 0
        self.phase = self.next_phase = 0
        self.ends: dict[str, int] = {}
        self.relay = Relay(
            FaultyBroker(self),
            lambda position: Cursor((position,)),
            threading.Lock(),
            replay_size=200,
            random=lambda: 0.0,
            clock=lambda: self.now,
        )
        self.relay._is_running = True  # in this thread
        self.clients = [
            Client(self, self.chance.sample(CHANNELS, self.chance.randint(1, 4))) for _ in range(4)
        ]

    def publish(self, channel: str) -> None:
        self.truth.append(channel)
        index = len(self.truth) - 1
        self.memory.publish(channel, str(index), history=HISTORY[channel], ttl=1e9)

    def lose_data(self) -> None:
        """Emptied, with the clock set back at times."""
        memory, number = self.memory, self.memory._now.number
        if self.chance.random() < 0.3:
            number -= 500
        memory._now = Position(number, f"e{len(self.truth)}{self.steps}")
        for kept in memory._channels.values():
            kept.log.clear()
            kept.last = number

    def act(self) -> None:
        """What may happen at any moment."""
        try:
            self._act()
        except AssertionError as error:  # the relay would begin again
            raise Failed(*error.args) from error

    def _act(self) -> None:
        self.steps += 1
        self.now += 0.01
        chance = self.chance
        for _ in range(chance.choice((0, 0, 1, 3, 8)) * (not self.is_quiet)):
            self.publish(chance.choice(CHANNELS))
        for client in self.clients:
            if client.outlet is None:
                if chance.random() < 0.2 or self.is_quiet:
                    client.connect()
            else:
                if client.is_given_up:
                    client.is_given_up = False
                    client.disconnect()
                    continue
                client.go_on()
                if chance.random() < 0.5 or self.is_quiet:
                    client.outbox.drain()
                if chance.random() < 0.5 or self.is_quiet:
                    client.receive(len(client.outbox.sent))
                if chance.random() < 0.05 and not (self.is_quiet or self.leaks):
                    client.disconnect()
        if self.is_quiet:
            return
        dice = chance.random()
        if dice < 0.02:
            for feed in self.feeds:
                feed.is_lost = True
        elif dice < 0.03:
            self.lose_data()
        elif dice < 0.06 and self.leaks:
            for feed in self.feeds:
                feed.drops = chance.randint(1, 3)

    def may_fail(self) -> None:
        if not self.is_quiet and self.chance.random() < 0.03:
            raise BrokerError("no answer")

    def run(self) -> None:
        """From the first step to the end, in one call of the relay's loop."""
        try:
            while True:
                self.relay._run()
                self.relay._is_running = True
                self.act()
        except Over:
            pass
        for client in self.clients:
            assert client.outlet is not None
            for channel in client.channels_now:
                assert client.known[channel] == self.ends[channel] + 1, channel

    def end_phase(self) -> None:
        """Each 300 steps after the wild ones: quiet, the last messages, a last look, the end."""
        if self.steps < STEPS or self.steps < self.next_phase:
            return
        self.next_phase = self.steps + 300
        self.phase += 1
        self.is_quiet = True
        self.now += 20  # so that it looks for what the feed has not brought
        if self.phase == 2:
            for channel in CHANNELS:
                self.publish(channel)
            self.ends = {channel: i for i, channel in enumerate(self.truth)}
        if self.phase == 4:
            raise Over


class FaultyBroker(MemoryBroker):
    """The broker as the relay sees it: at each call, things happen."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def read(self, requests: Sequence[Request]) -> Reading:
        self.world.act()
        self.world.may_fail()
        reading = self.world.memory.read(requests)
        self.world.act()  # the answer is on its way
        self.world.may_fail()
        return Reading(reading.now, [Replay(list(one[0]), one[1]) for one in reading.replays])

    def open_feed(self) -> Feed:
        self.world.act()
        self.world.may_fail()
        return FaultyFeed(self.world)

    def change_presence(self, changes: Sequence[Change]) -> None:
        self.world.memory.change_presence(changes)

    def beat(self) -> int:
        return 1


class FaultyFeed(Feed):
    """A feed that is lost, loses something, or brings it late."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.inner = world.memory.open_feed()
        self.is_lost = False
        self.drops = 0
        world.feeds.append(self)

    def subscribe(self, channels: Iterable[str]) -> None:
        self.world.act()
        self.inner.subscribe(channels)

    def unsubscribe(self, channels: Iterable[str]) -> None:
        self.inner.unsubscribe(channels)

    def receive(self, timeout: float) -> Any:
        self.world.act()
        self.world.end_phase()
        if self.is_lost:
            raise BrokerError("the feed was lost")
        if not self.world.is_quiet and self.world.chance.random() < 0.3:
            return []  # it is late
        arrived = self.inner.receive(0)
        if self.drops and arrived:
            arrived = [one for one in arrived if not hasattr(one, "previous") or self.keeps()]
        return arrived

    def keeps(self) -> bool:
        self.drops -= 1
        return self.drops < 0

    def signal(self, token: str = "") -> None:
        self.inner.signal(token)

    def close(self) -> None:
        self.inner.close()
        if self in self.world.feeds:
            self.world.feeds.remove(self)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "PAGE", 7)
    monkeypatch.setattr(relays, "PAGE", 7)
    monkeypatch.setattr(relays, "READING", 150)


@pytest.mark.parametrize("slow", ["close", "reset"])
@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_without_a_word(seed: int, slow: Slow) -> None:
    world = World(seed, slow, high_water=2**20 if slow == "close" else 300)
    world.run()
    assert len(world.truth) > 100


@pytest.mark.parametrize("seed", range(10))
def test_a_feed_that_loses_something_is_found_out(seed: int) -> None:
    world = World(seed, "close", high_water=2**20, leaks=True)
    world.run()
