"""Who is in a channel, and what of that must still be announced. No I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from faye_wsgi.delivery.messages import Message

__all__ = ["MAX_NAMED", "Roster", "member_data"]

MAX_NAMED = 1000  # members of a channel that are announced by name; above it, their number is


class Roster:
    """The members of a channel, as this process knows them.

    ``joined`` and ``left`` take what arrives. ``take_change`` gives one message for all of it:
    who has come and gone again meanwhile is not in it. A member with other data joins again.

    A member that a reading lacks may have left; or the broker has lost its data, and another
    process has still to note its members again. So it stays in doubt, until a later reading.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._members: dict[str, str] = {}  # member → data, as JSON
        self._announced: dict[str, str] | int = {}  # or their number
        self._changed: set[str] = set()

    def joined(self, member: str, data: str) -> None:
        """A member has come."""
        self._members[member] = data
        self._changed.add(member)

    def left(self, member: str) -> None:
        """A member has gone."""
        self._members.pop(member, None)
        self._changed.add(member)

    def replace(self, members: Mapping[str, str], *, is_settled: bool) -> bool:
        """The members were read anew, each with its data as JSON.

        Returns whether some of those that were known are missing. With ``is_settled`` they have
        left; else they are in doubt.
        """
        missing = self._members.keys() - members.keys()
        self._changed |= {member for member, _data in members.items() - self._members.items()}
        if is_settled:
            self._changed |= missing
            self._members.clear()
        self._members.update(members)
        return bool(missing)

    def take_change(self) -> Message | None:
        """What must be announced to those who know what was announced before."""
        changed, self._changed = self._changed, set()
        announced = self._announced
        if len(self._members) > MAX_NAMED:
            if announced == len(self._members):
                return None
            self._announced = len(self._members)
            return self.everyone()
        if isinstance(announced, int):
            self._announced = dict(self._members)
            return self.everyone()
        joined = {}
        left = []
        for member in changed:
            before, now = announced.get(member), self._members.get(member)
            if now is not None and now != before:
                joined[member] = announced[member] = now
            elif now is None and before is not None:
                left.append(member)
                del announced[member]
        if not joined and not left:
            return None
        return Message(self.channel, joined=_parse(joined), left=sorted(left))

    def everyone(self) -> Message:
        """All that are here, for a new watcher; call ``take_change`` before."""
        if len(self._members) > MAX_NAMED:
            return Message(self.channel, count=len(self._members))
        return Message(self.channel, joined=_parse(self._members))


def _parse(members: Mapping[str, str]) -> dict[str, Any]:
    return {member: json.loads(data) for member, data in members.items()}


def member_data(presence: Mapping[str, Any]) -> tuple[str, str]:
    """The id of a member, and the JSON of its other data; ValueError where it has no id."""
    if "id" not in presence:
        raise ValueError("a member needs an 'id': presence={'id': user.id, 'name': user.name}")
    member = str(presence["id"])
    data = {name: value for name, value in presence.items() if name != "id"}
    return member, json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
