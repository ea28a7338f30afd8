"""What publishers and clients note down. Times and numbers are µs of this machine's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from faye_wsgi.brokers.base import Position

__all__ = ["Got", "Session", "Sent", "now"]


def now() -> int:
    """The time in µs: on one machine, comparable with the numbers of publications."""
    return time.time_ns() // 1000


@dataclass
class Sent:
    """A publication, as its publisher knows it."""

    channel: str
    value: str
    is_keyed: bool
    # For each attempt when it began, when it ended, and the error, or None.
    attempts: list[tuple[int, int, str | None]] = field(default_factory=list)
    cursor: str | None = None  # where it was taken; None if nothing but errors came

    def to_json(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Sent:
        fields["attempts"] = [tuple(attempt) for attempt in fields["attempts"]]
        return cls(**fields)


class Got(NamedTuple):
    """A message that a client got."""

    at: int
    channel: str
    place: Position
    value: str | None  # None for a reset


@dataclass
class Session:
    """One connection of a client, from its request to its end."""

    client: str
    channels: tuple[str, ...]
    since: Position | None
    began: int  # when the client asked for it
    got: list[Got] = field(default_factory=list)
    # What the server says once it has subscribed: everything from there on must come.
    started: Position | None = None
    recovered: bool | None = None
    replayed: int = 0  # how many messages had come by then
    ended: str = ""

    @property
    def last(self) -> Position | None:
        """With what the client comes back: the id of its last message."""
        return self.got[-1].place if self.got else self.since
