"""The contract of all brokers, and its numbers. No I/O.

A broker numbers the publications of all its channels by one clock. A number is
``max(previous number + 1, the broker's time in µs)``, taken in the same step that stores and sends
the publication: numbers are unique, rise over all channels, and stay below 2^53.

Each publication carries ``previous``, the number of its channel's publication before it. So a
reader that has seen a channel up to a number knows without asking whether something is missing.

The ``epoch`` names a life of the broker's data. It changes when publications may have been lost:
the broker was emptied or restarted, or another server took its place. Numbers alone could not tell:
after a restore from a backup they look as if nothing had happened. A position of another epoch (or
of another broker) is never vouched for.

A channel is born when it is first published or read. Its ``last`` number, at first that of its
birth, is kept longer than its history.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional, Union

__all__ = [
    "Arrival",
    "Broker",
    "Change",
    "Cursor",
    "Feed",
    "Joined",
    "Left",
    "Position",
    "Publication",
    "Reading",
    "Replay",
    "Request",
    "Signal",
    "Subscribed",
    "is_complete",
]

KEY_SECONDS = 300  # how long an idempotency key is remembered
LAST_SECONDS = 86_400  # how long a channel's last number outlives its history, at least
LEAVE_SECONDS = 5.0  # how late a leave is announced
WORKER_SECONDS = 45.0  # after which a process that has not called ``beat`` is dead
PRESENCE_SECONDS = 3600.0  # how long presence is kept when all processes have gone

_CURSOR_LENGTH = 8192
_POSITION = re.compile(r"([0-9]{1,16})-([0-9a-z]{1,16})", re.ASCII)
_DIFFERENCE = re.compile(r"(-?[0-9a-f]{1,14})-([0-9a-z]{1,16})", re.ASCII)


# Positions


class Position(NamedTuple):
    """A place on the broker's clock: everything up to ``number``, in a life of its data."""

    number: int
    epoch: str

    def __str__(self) -> str:
        return f"{self.number}-{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position of its text; ValueError where it is not one."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise ValueError(f"this is not a cursor: {text[:40]!r}")
        return cls(int(match[1]), match[2])


class Cursor(tuple[Optional[Position], ...]):
    """A position in each partition of a broker, or None where there is none.

    Its text begins with the position of the message that it belongs to, its ``head``: a client
    can tell by the number, which rises in a channel, that it has a message already. Where there
    is one partition, that is all. Else ``_PARTITION`` follows for each that has a position: alone
    where that is the head, or with ``.DIFFERENCE-EPOCH``, in hexadecimal digits: how far the
    number is before the head's. In 16 partitions that is about 330 bytes; with whole numbers it
    would be 460.
    """

    head: Position | None = None  # by default, the first that there is

    def __str__(self) -> str:
        if len(self) == 1:
            return str(self[0])
        head = self.head or next(filter(None, self), None)
        if head is None:
            return ""
        parts = [str(head)]
        for index, one in enumerate(self):
            if one == head:
                parts.append(str(index))
            elif one is not None:
                parts.append(f"{index}.{head.number - one.number:x}-{one.epoch}")
        return "_".join(parts)

    def of(self, head: Position) -> Cursor:
        """The same cursor, for the message at a position."""
        made = Cursor(self)
        made.head = head
        return made

    def before(self, number: int) -> Cursor:
        """The cursor right before the publication with this number."""
        return Cursor(
            one._replace(number=number - 1) if one is not None and one.number == number else one
            for one in self
        )

    @classmethod
    def parse(cls, text: str, partitions: int) -> Cursor:
        """The cursor of its text; ValueError where it is not one."""
        if partitions == 1:
            return cls((Position.parse(text),))
        positions: list[Position | None] = [None] * partitions
        first, *parts = text[:_CURSOR_LENGTH].split("_")
        head = None
        if "." in first:  # of an earlier version: whole numbers, without a head
            parts = [first, *parts]
        else:
            head = Position.parse(first)
        for part in parts:
            index, _, rest = part.partition(".")
            if not (index.isascii() and index.isdigit()) or len(index) > 4:
                raise ValueError(f"this is not a cursor: {text[:40]!r}")
            if int(index) >= partitions or positions[int(index)] is not None:
                raise ValueError(f"this is not a cursor of this broker: {text[:40]!r}")
            positions[int(index)] = Position.parse(rest) if head is None else _before(head, rest)
        return cls(positions)


def _before(head: Position, text: str) -> Position:
    """The position that a part of a cursor names; an empty part is the head."""
    if not text:
        return head
    match = _DIFFERENCE.fullmatch(text)
    number = head.number - int(match[1], 16) if match is not None else -1
    if match is None or not 0 <= number < 10**16:
        raise ValueError(f"this is not a cursor: {text[:40]!r}")
    return Position(number, match[2])


# What is published and read


class Publication(NamedTuple):
    """One message of a channel."""

    channel: str
    number: int
    previous: int  # the number of the channel's publication before it, or of its birth
    epoch: str
    payload: str  # JSON


class Request(NamedTuple):
    """What to read of a channel.

    With ``since``, what came after that number, the oldest first, at most ``limit``. Without,
    the newest ``limit``. A limit of 0 asks for the channel's last number alone. ``size`` bounds the
    bytes of their payloads, too: a replay ends with the publication that reaches it.
    """

    channel: str
    since: int | None = None
    limit: int | None = None
    size: int | None = None


class Replay(NamedTuple):
    """What was kept of a channel, oldest first, and its last number."""

    publications: list[Publication]
    last: int


class Reading(NamedTuple):
    """The answer to requests, in their order, at one moment of the broker's clock."""

    now: Position  # nothing that is published later has this number or a lower one
    replays: list[Replay]


def is_complete(since: Position, reading: Reading, replay: Replay) -> bool:
    """Whether a replay, read from ``since`` on and without a limit, is all that came after it."""
    if since.epoch != reading.now.epoch or since.number > reading.now.number:
        return False
    seen = since.number
    for publication in replay.publications:
        if publication.previous > seen:
            return False
        seen = publication.number
    return replay.last <= seen


# What arrives at a feed


class Subscribed(NamedTuple):
    """From here on the feed gets all that is published to the channel."""

    channel: str


class Signal(NamedTuple):
    """What ``Feed.signal`` sent: all that was published before has arrived."""

    token: str


class Joined(NamedTuple):
    """A member has come to a channel with its first connection, or with other data."""

    channel: str
    member: str
    data: str  # JSON


class Left(NamedTuple):
    """A member's last connection left a channel, ``leave_seconds`` ago."""

    channel: str
    member: str


Arrival = Union[Publication, Subscribed, Signal, Joined, Left]


class Change(NamedTuple):
    """A connection of a member comes to a channel, or leaves it (``data`` is None)."""

    channel: str
    member: str
    connection: str
    data: str | None


# The contract


class Broker(ABC):
    """An engine, as a process sees it: one clock, and the channels that it numbers.

    All calls block the greenlet or thread that makes them, are safe in any, and end within
    ``timeout`` seconds. Each raises BrokerError where the engine could not be asked, or did not
    answer; what was asked for may have happened then. No call tries twice what must not happen
    twice. Connections are made at the first use, and again when they were lost.
    """

    timeout: float = 2.0
    worker: str  # this process, among those that use the broker

    @abstractmethod
    def publish(
        self, channel: str, payload: str, *, key: str | None = None, history: int, ttl: float
    ) -> Position:
        """Number, keep and send a publication, in one step; its position.

        ``history`` is how many of the channel's publications are kept, for ``ttl`` seconds after
        the newest. With a ``key`` that the channel had within 300 s nothing happens, and the
        position is that of the first time. Raises PublishError.
        """

    @abstractmethod
    def read(self, requests: Sequence[Request]) -> Reading:
        """What is kept of channels, in one step for each 100 of them and one round trip for all.

        ``now`` is of the first step: where the epoch changes between two, BrokerError is raised.
        """

    @abstractmethod
    def open_feed(self) -> Feed:
        """Connect this process's subscription."""

    @abstractmethod
    def change_presence(self, changes: Sequence[Change]) -> None:
        """Note which connections of this process have come and gone, in this order.

        A member's first connection is announced by ``Joined`` to all feeds of the channel, and so
        is each connection that brings other data than was announced last. When the last one has
        gone, ``Left`` is announced ``leave_seconds`` later by some process's ``beat``, unless it
        is back by then; then ``Joined`` is not announced again either, if its data are the same.
        """

    @abstractmethod
    def members(self, channel: str) -> dict[str, list[str]]:
        """The data, as JSON, of each connection of each member; without those that have left."""

    @abstractmethod
    def rosters(self, channels: Sequence[str]) -> list[dict[str, str]]:
        """The members of channels as they were announced, with their data; in one round trip.

        Members whose leave is still to be announced are included.
        """

    @abstractmethod
    def beat(self) -> int:
        """Say that this process lives, and announce the leaves that are due; call it each second.

        The connections of processes that have not called it for ``worker_seconds`` leave. Where
        no process is left to call it, presence is forgotten after an hour, or more.
        Returns the number of processes that have called it within 5 s: more cannot be expected to
        answer, though one that stands still may come back until ``worker_seconds``.
        """

    @abstractmethod
    def eviction_policy(self) -> str:
        """What the engine deletes by itself when it is full; 'noeviction': nothing.

        It asks the engine, and writes nothing there.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""


class Feed(ABC):
    """A process's subscription: what is published to its channels arrives, in order.

    One thread or greenlet owns it and calls everything here; ``signal`` may be called by any. It
    never connects again by itself: a call raises BrokerError when the connection is lost or is
    silent, and the owner opens another feed. What was published meanwhile must be read.
    """

    @abstractmethod
    def subscribe(self, channels: Iterable[str]) -> None:
        """Ask for channels; each is confirmed by a ``Subscribed``."""

    @abstractmethod
    def unsubscribe(self, channels: Iterable[str]) -> None:
        """Ask for no more of channels; some of it may still arrive."""

    @abstractmethod
    def receive(self, timeout: float) -> list[Arrival]:
        """What has arrived, in order; waits up to ``timeout`` seconds for the first of it."""

    @abstractmethod
    def signal(self, token: str = "") -> None:
        """Let a ``Signal`` arrive, behind all that was published before this call."""

    @abstractmethod
    def close(self) -> None:
        """End the subscription."""
