"""What publishers and clients note down. Times and numbers are µs of this machine's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from faye_wsgi.brokers.base import Cursor

__all__ = ["Got", "Sent", "Session", "Span", "Turnout", "now"]


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
    id: Cursor
    value: str | None  # None for a reset


class Turnout(NamedTuple):
    """A change of who is in a channel, as a client got it."""

    at: int
    joined: tuple[str, ...]
    left: tuple[str, ...]


@dataclass
class Span:
    """A channel in a session, from when the client asked for it until it gave it back.

    ``first``, ``joined`` and ``left`` count the messages that the session had got by then.
    """

    channel: str
    since: Cursor | None
    began: int  # when the client asked for it
    first: int = 0
    # What the server says once it has subscribed: everything from there on must come.
    started: Cursor | None = None
    recovered: bool | None = None
    joined: int | None = None
    left: int | None = None  # None: it was kept until the end


@dataclass
class Session:
    """One connection of a client, from its request to its end."""

    client: str
    began: int  # when the client asked for it
    since: Cursor | None
    spans: list[Span] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    member: str | None = None  # as whom it is present
    present: int | None = None  # since when, as the server has said
    turnouts: list[Turnout] = field(default_factory=list)
    ended: str = ""
    ended_at: int = 0

    @property
    def last(self) -> Cursor | None:
        """With what the client comes back: the id of its last message."""
        return self.got[-1].id if self.got else self.since

    @property
    def here(self) -> set[str]:
        """Who is there, as this client was told."""
        members: set[str] = set()
        for turnout in self.turnouts:
            members = (members | {*turnout.joined}) - {*turnout.left}
        return members
