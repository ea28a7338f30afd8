"""The order of a partition's publications, and what is missing of them. No I/O, no clock.

A ``Timeline`` gets what arrives at a feed and what was read, and says what may be delivered next.
Its rules:

1. **All deliveries of a partition are in the order of their numbers, over all its channels.** So
   a client that has received a number has received everything up to it, in all its channels. That
   is what makes one cursor safe for many channels: the id of the last message vouches for each.
2. **A publication is next if its ``previous`` was seen.** Otherwise something is missing, and
   from there on everything is held, in all channels (else rule 1 would be broken), until the
   missing part was read.
3. **A reading is merged with the feed behind a barrier.** The feed is asked for a signal after the
   reading, and everything before the signal is held. So what is held and what was read
   are together all that was published up to the reading's position: none of it can still be on
   its way, and none of it can come later, between two that were delivered.
4. **What cannot be read any more is a reset**, which comes before all that is newer, in all
   channels (rule 1 again). The channel goes on at the reading's position. Another epoch is a reset
   of all channels, since nothing before can be compared with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from faye_wsgi.brokers.base import Position, Publication, Replay, Request

__all__ = [
    "PAGE",
    "Settled",
    "Timeline",
    "by_channel",
    "find_floor",
    "in_order",
    "is_page",
    "merge",
]

PAGE = 256  # publications of a channel that are read at once


class Settled(NamedTuple):
    """What may be delivered after a reading, in this order."""

    resets: list[str]  # channels of which a part is lost
    publications: list[Publication]  # in the order of numbers


class Timeline:
    """What was delivered of a partition's channels, and what waits."""

    def __init__(self) -> None:
        self.position: Position | None = None  # everything up to here was delivered
        self.is_whole = False  # nothing is missing, as far as is known
        self._seen: dict[str, int] = {}  # channel → everything up to this number was delivered
        self._held: list[Publication] = []

    @property
    def channels(self) -> list[str]:
        """The channels that are delivered."""
        return list(self._seen)

    @property
    def held(self) -> list[Publication]:
        """What has arrived and waits for a reading."""
        return self._held

    def seen(self, channel: str) -> int | None:
        """Up to where a channel was delivered; None if it is not."""
        return self._seen.get(channel)

    def add(self, channel: str) -> int:
        """Deliver a channel, too, from ``position`` on; returns the number of it."""
        assert self.position is not None
        self._seen.setdefault(channel, self.position.number)
        return self.position.number

    def discard(self, channel: str) -> None:
        """Deliver a channel no more."""
        self._seen.pop(channel, None)

    def lose(self) -> None:
        """The feed was lost, and what it had not brought: everything may be missing."""
        self.is_whole = False
        self._held.clear()

    def suspect(self) -> None:
        """Something may be missing, although the feed has not shown it."""
        self.is_whole = False

    def hold(self, publications: Iterable[Publication]) -> None:
        """Keep what arrives while a reading is made."""
        self._held.extend(publications)

    def receive(self, publications: Iterable[Publication]) -> list[Publication]:
        """Take what has arrived: what is next of it. The rest is held, from the first gap on."""
        self._held.extend(publications)
        return self._take() if self.is_whole else []

    def _take(self) -> list[Publication]:
        """What is next of what is held."""
        assert self.position is not None
        held, self._held = self._held, []
        epoch, seen, next_ones = self.position.epoch, self._seen, []
        for index, publication in enumerate(held):
            last = seen.get(publication.channel)
            if last is None:
                continue  # its last subscriber has left
            if publication.epoch != epoch:
                self.is_whole = False
            elif publication.number <= last:
                continue
            elif publication.previous > last:
                self.is_whole = False
            if not self.is_whole:
                self._held = held[index:]
                break
            seen[publication.channel] = publication.number
            next_ones.append(publication)
        if next_ones:
            self.position = Position(max(self.position.number, next_ones[-1].number), epoch)
        return next_ones

    def requests(self) -> list[Request]:
        """What must be read of the channels that are delivered, for ``settle``."""
        return [Request(channel, number, PAGE) for channel, number in self._seen.items()]

    def settle(self, now: Position, replays: Mapping[str, Replay] | None) -> Settled | None:
        """Deal with a reading, when a barrier has come behind it.

        ``replays`` answer ``requests``; None if nothing was missing, and other channels were read.
        Returns None if nothing can be said without another reading. Afterwards ``is_whole`` says
        whether nothing is missing up to ``now``, and ``receive`` gives what came later.
        """
        is_other_life = self.position is not None and (
            self.position.epoch != now.epoch or self.position.number > now.number
        )
        if self._is_outdated(now) or (is_other_life and replays is None):
            self.is_whole = False
            return None
        if is_other_life or self.position is None:
            self._seen = dict.fromkeys(self._seen, now.number)
            self._go_on(now)
            return Settled(self.channels, [])
        if replays is None:
            return self._settle_whole(now)
        return self._repair(now, replays)

    def _is_outdated(self, now: Position) -> bool:
        """Whether the data was lost again since the reading."""
        if not self._held or self._held[-1].epoch == now.epoch:
            return False
        epochs = {publication.epoch for publication in self._held}
        return now.epoch in epochs or (
            self.position is not None and self.position.epoch == now.epoch
        )

    def _settle_whole(self, now: Position) -> Settled:
        later = [p for p in self._held if p.number > now.number]
        self._held = [p for p in self._held if p.number <= now.number]
        publications = self._take()
        self._held += later
        if self.is_whole:
            self._go_on(now)
        return Settled([], publications)

    def _repair(self, now: Position, replays: Mapping[str, Replay]) -> Settled:
        resets, missed, horizon = [], [], now.number
        arrived = by_channel(self._held, now.epoch)
        for channel, replay in replays.items():
            seen = self._seen.get(channel)
            if seen is None:
                continue
            publications = merge(replay.publications, arrived.get(channel, ()), seen)
            if seen < find_floor(publications, None if is_page(replay) else replay.last):
                resets.append(channel)
                self._seen[channel] = now.number
                continue
            missed += publications
            if is_page(replay):
                horizon = min(horizon, replay.publications[-1].number)
        publications = in_order(p for p in missed if p.number <= horizon)
        for publication in publications:
            self._seen[publication.channel] = publication.number
        if horizon < now.number:
            # More than a page is missing of a channel: all others wait with it.
            self.position = Position(horizon, now.epoch)
        else:
            self._go_on(now)
        return Settled(resets, publications)

    def _go_on(self, now: Position) -> None:
        """Everything up to ``now`` is delivered, or is lost and was reset."""
        self._held = [p for p in self._held if p.number > now.number and p.epoch == now.epoch]
        self.position = now
        self.is_whole = True


def is_page(replay: Replay) -> bool:
    """Whether a replay was cut, at its limit or its size: the newest has the last number."""
    return bool(replay.publications) and replay.publications[-1].number < replay.last


def merge(
    read: Iterable[Publication], held: Iterable[Publication], since: int
) -> list[Publication]:
    """What was read and what is held of a channel, after a number, in order, each once."""
    return in_order(p for part in (read, held) for p in part if p.number > since)


def in_order(publications: Iterable[Publication]) -> list[Publication]:
    """By number, each once."""
    by_number = {publication.number: publication for publication in publications}
    return [by_number[number] for number in sorted(by_number)]


def find_floor(publications: list[Publication], last: int | None) -> int:
    """The lowest number from which a channel's publications are complete.

    ``last`` is the channel's last number, None if there are more publications than these.
    """
    floor, before = 0, -1
    for publication in publications:
        if publication.previous > before:
            floor = publication.previous
        before = publication.number
    return floor if last is None or last <= before else last


def by_channel(publications: Iterable[Publication], epoch: str) -> dict[str, list[Publication]]:
    """Those of an epoch, by their channels."""
    found: dict[str, list[Publication]] = {}
    for publication in publications:
        if publication.epoch == epoch:
            found.setdefault(publication.channel, []).append(publication)
    return found
