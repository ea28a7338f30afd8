"""Who is in the channels of a partition, for the subscribers that watch it: its relay's presence.

The relay's thread calls everything here. What is sent to watchers is sent under ``delivering``, as
all else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from faye_wsgi.brokers.base import LEAVE_SECONDS, Broker, Change, Joined, Left
from faye_wsgi.delivery.messages import Item, Message, encode_item
from faye_wsgi.delivery.outlets import Audience, Outlet, send_to_all
from faye_wsgi.delivery.presence import Roster

__all__ = ["DOUBT", "Rosters"]

# Seconds after which a member that a reading lacks has left. By then a leave is announced that was
# due, and all processes are back at a broker that was away.
DOUBT = LEAVE_SECONDS + 10.0


class Rosters:
    """The rosters of the channels that have watchers."""

    def __init__(
        self,
        broker: Broker,
        audiences: Mapping[str, Audience],
        delivering: Any,
        clock: Callable[[], float],
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._audiences = audiences
        self._delivering = delivering
        self._rosters: dict[str, Roster] = {}
        self._unknown: set[str] = set()  # those that must be read
        self._doubted: dict[str, float] = {}  # those with members in doubt; when they are settled
        self._changed: set[str] = set()  # those that may have something to announce

    @property
    def is_changed(self) -> bool:
        """Whether there may be something to announce."""
        return bool(self._changed)

    def note(self, arrival: Joined | Left) -> None:
        """A member has come, or has gone."""
        roster = self._rosters.get(arrival.channel)
        if roster is not None:
            if type(arrival) is Joined:
                roster.joined(arrival.member, arrival.data)
            else:
                roster.left(arrival.member)
            self._changed.add(arrival.channel)

    def lose(self) -> None:
        """What the feed would have brought is lost, or the broker's data are: all must be read."""
        self._unknown.update(self._rosters)
        self._doubted.clear()  # or an earlier loss would settle who is missing after this one

    def drop_unwatched(self) -> None:
        """Forget the channels whose last watcher has left."""
        for channel in list(self._rosters):
            audience = self._audiences.get(channel)
            if audience is None or not audience.watchers:
                del self._rosters[channel]
                self._unknown.discard(channel)
                self._doubted.pop(channel, None)
                self._changed.discard(channel)

    def change(
        self, changes: Sequence[Change], welcomes: Iterable[tuple[Outlet, str]], number: int
    ) -> None:
        """Tell the broker whose connections have come and gone, and new watchers who is there.

        ``number`` is that of what was delivered last. Where it raises, nothing was told to the
        watchers: it may be called again with the same.
        """
        if changes:
            self._broker.change_presence(changes)
        newcomers: dict[str, list[Outlet]] = {}
        for outlet, channel in welcomes:
            if channel in self._audiences:
                newcomers.setdefault(channel, []).append(outlet)
                if channel not in self._rosters:
                    self._rosters[channel] = Roster(channel)
                    self._unknown.add(channel)
        self._read()
        for channel, member, _connection, data in changes:
            # A new watcher sees itself: the announcement may still be on its way.
            if data is not None:
                self.note(Joined(channel, member, data))
        with self._delivering:
            for channel, outlets in newcomers.items():
                self._welcome(channel, outlets, number)

    def _read(self) -> None:
        now = self._clock()
        settled = {channel for channel, until in self._doubted.items() if now >= until}
        channels = list(self._unknown | settled)
        if not channels:
            return
        for channel, members in zip(channels, self._broker.rosters(channels)):
            is_settled = channel in settled
            is_in_doubt = self._rosters[channel].replace(members, is_settled=is_settled)
            if is_settled or not is_in_doubt:
                self._doubted.pop(channel, None)
            else:
                self._doubted.setdefault(channel, now + DOUBT)
            self._changed.add(channel)
        self._unknown.clear()

    def _welcome(self, channel: str, outlets: list[Outlet], number: int) -> None:
        roster = self._rosters[channel]
        change = roster.take_change()
        if change is not None:
            self._tell(change, number, leaving_out=outlets)
        everyone = roster.everyone()
        items: dict[Any, Item | None] = {}  # one for all that have the same encoding
        for outlet in outlets:
            key = (outlet.kind, outlet.formats.get(channel))
            if key not in items:
                items[key] = outlet.make(everyone, number)
            item = items[key]
            if item is not None:
                outlet.push(item)

    def announce(self, number: int) -> None:
        """Tell the watchers who has come and gone since the last time."""
        changed, self._changed = self._changed, set()
        with self._delivering:
            for channel in changed:
                change = self._rosters[channel].take_change()
                if change is not None:
                    self._tell(change, number)

    def _tell(self, change: Message, number: int, leaving_out: Collection[Outlet] = ()) -> None:
        audience = self._audiences.get(change.channel)
        if audience is None:
            return
        for (kind, format), outlets in audience.watchers.items():
            item = encode_item(kind, format, change, number, None)
            if item is not None:
                send_to_all((one for one in outlets if one not in leaving_out), item)
