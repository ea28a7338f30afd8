"""Random calls of a broker, against a list: what is kept, what is complete, what a feed brings."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faye_wsgi.brokers.base import Broker, Feed, Position, Publication, Request, is_complete

from .harness import arrived, subscribed

CHANNELS = st.sampled_from("abc")
KEYS = st.none() | st.sampled_from("kl")
LIMITS = st.none() | st.integers(0, 4)
STEPS = st.one_of(
    st.tuples(st.just("publish"), CHANNELS, KEYS, st.integers(0, 5)),
    # Since one of the positions that were told before.
    st.tuples(st.just("read"), CHANNELS, st.integers(0, 1000), LIMITS),
    st.tuples(st.just("newest"), CHANNELS, st.integers(0, 4)),
    st.tuples(st.just("subscribe"), CHANNELS),
)

examples = itertools.count()


class Model:
    """A list for each channel."""

    def __init__(self, broker: Broker, prefix: str) -> None:
        self.broker = broker
        self.prefix = prefix  # of this example's channels
        self.feed: Feed = broker.open_feed()
        self.clock = 0  # counts steps
        self.positions = [(0, broker.read([]).now)]  # with the step that has told each
        self.births: dict[str, int] = {}  # channel → the step in which it was born
        self.kept: dict[str, list[tuple[int, str]]] = {}
        self.dropped: dict[str, int] = {}  # channel → the highest number that is not kept
        self.keys: dict[tuple[str, str], Position] = {}
        self.heard: list[tuple[str, str]] = []  # what the feed is to bring
        self.subscribed: dict[str, int] = {}  # channel → the step

    def name(self, channel: str) -> str:
        return f"{self.prefix}:{channel}"

    def run(self, step: tuple[Any, ...]) -> None:
        self.clock += 1
        getattr(self, step[0])(*step[1:])

    def publish(self, channel: str, key: str | None, history: int) -> None:
        payload = str(self.clock)
        position = self.broker.publish(
            self.name(channel), payload, key=key, history=history, ttl=60.0
        )
        if key is not None and (channel, key) in self.keys:
            assert position == self.keys[channel, key]
            return
        assert position.number > max(told.number for _, told in self.positions)
        self.births.setdefault(channel, self.clock)
        if key is not None:
            self.keys[channel, key] = position
        kept = [*self.kept.get(channel, []), (position.number, payload)]
        cut = max(0, len(kept) - history)
        if cut:
            self.dropped[channel] = kept[cut - 1][0]
        self.kept[channel] = kept[cut:]
        self.positions.append((self.clock, position))
        if channel in self.subscribed:
            self.heard.append((channel, payload))

    def read(self, channel: str, choice: int, limit: int | None) -> None:
        told, since = self.positions[choice % len(self.positions)]
        reading = self.broker.read([Request(self.name(channel), since.number, limit)])
        self.births.setdefault(channel, self.clock)
        [replay] = reading.replays
        expected = [one for one in self.kept.get(channel, []) if one[0] > since.number]
        assert [(one.number, one.payload) for one in replay.publications] == expected[:limit]
        if limit is None:
            is_known = self.births[channel] <= told
            is_kept = self.dropped.get(channel, 0) <= since.number
            found = is_complete(since, reading, replay)
            if self.subscribed.get(channel, self.clock) <= told and not is_known:
                # Memory knows a channel from its subscription on.
                assert is_kept or not found
            else:
                assert found == (is_known and is_kept)
        self.positions.append((self.clock, reading.now))

    def newest(self, channel: str, limit: int) -> None:
        reading = self.broker.read([Request(self.name(channel), None, limit)])
        self.births.setdefault(channel, self.clock)
        found = [(one.number, one.payload) for one in reading.replays[0].publications]
        kept = self.kept.get(channel, [])
        assert found == kept[max(0, len(kept) - limit) :]

    def subscribe(self, channel: str) -> None:
        if channel not in self.subscribed:
            self.check_feed()
            subscribed(self.feed, self.name(channel))
            self.subscribed[channel] = self.clock

    def check_feed(self) -> None:
        """What the feed has brought since it was checked last."""
        brought = [one for one in arrived(self.feed) if isinstance(one, Publication)]
        names = [(one.channel[-1], one.payload) for one in brought]
        assert names == self.heard
        self.heard.clear()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=40))
def test_a_broker_is_a_list(broker: Broker, steps: list[tuple[Any, ...]]) -> None:
    model = Model(broker, str(next(examples)))
    for step in steps:
        model.run(step)
    model.check_feed()
    model.feed.close()
