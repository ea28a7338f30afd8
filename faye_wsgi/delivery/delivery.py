"""The delivery of one process: its relays, its subscribers, and how a subscription begins."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from gevent.monkey import get_original

from faye_wsgi.brokers.base import Broker, Change, Cursor, Position
from faye_wsgi.delivery.outlets import Outlet, Slow
from faye_wsgi.delivery.relay import REPLAY, Entry, Join, Relay
from faye_wsgi.errors import BrokerError, ConnectionClosed
from faye_wsgi.transport import fork

__all__ = ["PRIVATE", "Delivery", "Subscriber", "is_private"]

log = logging.getLogger("faye_wsgi")

_RLock = get_original("_thread", "RLock")


PRIVATE = "$"  # begins the names of channels that are not the user's


NO_USERS: frozenset[str] = frozenset()  # most subscribers have none, and each new set takes memory


class Kept(NamedTuple):
    """What is kept of a subscription of a channel."""

    entry: Entry
    holders: list[Any]  # the subscriptions that want it


class Subscriber:
    """An outlet, and its channels."""

    __slots__ = ("channels", "has_listener", "outlet", "since", "users")

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.channels: dict[str, Kept] = {}
        self.users = NO_USERS
        self.since = time.time()
        self.has_listener = False  # which ends the channels with the connection


class Delivery:
    """Everything of a Channels that lives in one process."""

    def __init__(
        self,
        brokers: Sequence[Broker],
        partition: Callable[[str], int],
        *,
        timeout: float,
        high_water: int,
        slow: Slow,
        max_channels: int,
    ) -> None:
        self._delivering = threading.Lock()
        self.brokers = tuple(brokers)
        self._partition = partition
        self.timeout = timeout  # seconds that a subscriber waits for the broker
        self._high_water = high_water
        self._slow: Slow = slow
        self._max_channels = max_channels
        self._lock = _RLock()
        self.on_idle: Callable[[], object] = lambda: None  # no user's subscriber is left
        self._subscribers: dict[Any, Subscriber] = {}
        self.relays = tuple(
            Relay(
                broker,
                lambda position, index=index: self._cursor(index, position),  # type: ignore[misc]
                self._delivering,
                replay_size=min(REPLAY, high_water // 2),
            )
            for index, broker in enumerate(brokers)
        )
        fork.watch(self)

    def forget(self, hub: Any) -> object:
        """In the child of a fork: everything here is the parent's."""
        for relay in self.relays:
            relay.forget()
        self._lock = _RLock()  # a thread of the parent may have held it
        kept = dict(self._subscribers)
        self._subscribers.clear()
        return kept

    def _cursor(self, index: int, position: Position) -> Cursor:
        """The cursor of a position of one partition, with those of the others."""
        if len(self.relays) == 1:
            return Cursor((position,))
        positions = [relay.position for relay in self.relays]
        positions[index] = position
        return Cursor(positions).of(position)

    @property
    def subscribers(self) -> list[Subscriber]:
        """All that have channels now."""
        with self._lock:
            return list(self._subscribers.values())

    @property
    def is_idle(self) -> bool:
        """Whether no user's subscriber is left."""
        with self._lock:  # no copy: this is asked at each subscription
            return all(is_private(one) for one in self._subscribers.values())

    @property
    def alive(self) -> int:
        """How many processes use the broker and have subscribers."""
        return max(relay.alive for relay in self.relays)

    def broker_of(self, channel: str) -> Broker:
        """The broker of a channel's partition."""
        return self.brokers[self._partition(channel)]

    def position(self) -> Cursor:
        """Everything up to here was delivered in this process."""
        return Cursor(relay.position for relay in self.relays)

    # Subscribing

    def subscribe(
        self,
        holder: Any,
        target: Any,
        kind: str,
        entries: Sequence[Entry],
        *,
        since: Cursor | None,
        last: int,
        limit: int | None = None,
        user: str | None,
    ) -> bool | None:
        """Let a target have channels; returns when it has, with its replay on the way.

        True: nothing was missed since the cursor. False: something was, or may have been. None:
        there was no cursor. BrokerError where the broker cannot be asked in time.
        """
        while True:
            subscriber = self._subscriber(target, kind)
            outlet = subscriber.outlet
            with outlet.joining:
                if outlet.is_closed:
                    if self._subscribers.get(target) is not subscriber:
                        continue  # its last channel has just been given back
                    return None if since is None else False
                new = self._enter(subscriber, holder, entries, user)
                self._listen(subscriber)
                if not new:
                    return None if since is None else False
                outlet.hold()
                try:
                    recovered = self._join(outlet, new, since, last, limit)
                    # What it has already began at some other place, which vouches for nothing.
                    return recovered and len(new) == len(entries)
                except BaseException:
                    channels = [entry.channel for entry in new]
                    self.unsubscribe(holder, target, channels)
                    outlet.drop_held(channels)
                    raise
                finally:
                    outlet.release()

    def _subscriber(self, target: Any, kind: str) -> Subscriber:
        with self._lock:
            subscriber = self._subscribers.get(target)
            if subscriber is None:
                outbox = target if kind == "function" else target._connection.outbox
                outlet = Outlet(target, kind, outbox, self._high_water, self._slow)
                subscriber = self._subscribers[target] = Subscriber(outlet)
            return subscriber

    def _enter(
        self, subscriber: Subscriber, holder: Any, entries: Sequence[Entry], user: str | None
    ) -> list[Entry]:
        """Note who wants which channels; returns those that nobody had wanted before."""
        with self._lock:
            channels = subscriber.channels
            new = [entry for entry in entries if entry.channel not in channels]
            if len(channels) + len(new) > self._max_channels:
                if not channels:
                    self._subscribers.pop(subscriber.outlet.target, None)
                    subscriber.outlet.close()
                raise ValueError(f"a connection may have {self._max_channels} channels at most")
            for entry in entries:
                kept = channels.setdefault(entry.channel, Kept(entry, []))
                if holder not in kept.holders:
                    kept.holders.append(holder)
            if user is not None:
                subscriber.users |= {user}
            return new

    def _listen(self, subscriber: Subscriber) -> None:
        """End with the connection. If that has been closed already, the listener is called, too."""
        if not subscriber.has_listener and subscriber.outlet.kind != "function":
            subscriber.has_listener = True
            subscriber.outlet.target.on("close", self._end_with)

    def _end_with(self, event: Any) -> None:
        self.end(event.target)

    def _join(
        self,
        outlet: Outlet,
        entries: Sequence[Entry],
        since: Cursor | None,
        last: int,
        limit: int | None,
    ) -> bool | None:
        base = None
        if len(self.relays) > 1:
            base = since or self.position()
        shares: dict[int, list[Entry]] = {}
        for entry in entries:
            shares.setdefault(self._partition(entry.channel), []).append(entry)
        unknown = Position(0, "0")  # of a partition that the cursor does not know: it vouches
        joins = {}  # for nothing there
        for index, share in shares.items():
            start = None if since is None else since[index] or unknown
            joins[index] = Join(outlet, share, start, last, base, limit)
        try:
            self._await(outlet, joins)
            while items := outlet.take_held():
                outlet.send(items)  # so that the view's own messages come behind the replay
        except ConnectionClosed:
            pass  # it has ended by itself, and its listener has unsubscribed it
        if since is None:
            return None
        return all(join.is_complete and join.position is not None for join in joins.values())

    def _await(self, outlet: Outlet, joins: dict[int, Join]) -> None:
        """Wait until all have joined; send the pages of long replays meanwhile."""
        asking = dict(joins)
        while asking and not outlet.is_closed:
            for index, join in asking.items():
                self.relays[index].join(join)
            end = time.monotonic() + self.timeout
            missing = [
                join for join in asking.values() if not join.wait(max(0, end - time.monotonic()))
            ]
            if missing:
                for join in joins.values():
                    join.is_withdrawn = True
                raise BrokerError(f"the broker has not answered within {self.timeout} seconds")
            asking = {index: join for index, join in asking.items() if join.page is not None}
            for join in asking.values():
                self._send_page(outlet, join)
                join.begin_again()

    @staticmethod
    def _send_page(outlet: Outlet, join: Join) -> None:
        """Send a page; it waits while the peer is slow, and nothing else waits with it."""
        items = join.page or []
        if join.base is None and items:
            # What came to the outlet's other channels meanwhile belongs between.
            end = max(start.number for start in join.starts.values() if start is not None)
            items = sorted([*items, *outlet.take_held(end)], key=lambda item: item.number)
        outlet.send(items)

    def tell(self, target: Any, make: Callable[[str], str]) -> None:
        """Send a subscriber a text of its own, behind all that was delivered to it. Does not wait.

        ``make`` gets the cursor that vouches for that in all its channels: '' where there is none,
        since something was left out for a slow subscriber, and its reset is still to come.
        """
        with self._delivering:  # or something could be delivered between the cursor and the text
            with self._lock:
                subscriber = self._subscribers.get(target)
            if subscriber is not None:
                position = self.position()
                is_known = any(position) and not subscriber.outlet.is_skipping
                number = max((one.number for one in position if one is not None), default=0)
                subscriber.outlet.push_text(make(str(position) if is_known else ""), number)

    # Unsubscribing

    def unsubscribe(self, holder: Any, target: Any, channels: Iterable[str]) -> None:
        """A subscription gives channels back: each ends with the last that has it. Does not wait.

        With the last channel goes the listener, which would keep the connection alive.
        """
        with self._lock:
            subscriber = self._subscribers.get(target)
            if subscriber is None:
                return
            ended = []
            for channel in channels:
                kept = subscriber.channels.get(channel)
                if kept is not None and holder in kept.holders:
                    kept.holders.remove(holder)
                    if not kept.holders:
                        ended.append(subscriber.channels.pop(channel).entry)
            self._leave(subscriber, ended)
            if subscriber.channels:
                return
            del self._subscribers[target]
        subscriber.outlet.close()
        if subscriber.has_listener:
            target.remove_listener("close", self._end_with)
        self.rest_if_idle()

    def end(self, target: Any) -> None:
        """A target is closed: all its subscriptions end."""
        with self._lock:
            subscriber = self._subscribers.pop(target, None)
            if subscriber is None:
                return
            entries = [kept.entry for kept in subscriber.channels.values()]
            subscriber.channels.clear()
            self._leave(subscriber, entries)
        subscriber.outlet.close()
        self.rest_if_idle()

    def _leave(self, subscriber: Subscriber, entries: Iterable[Entry]) -> None:
        outlet = subscriber.outlet
        shares: dict[int, list[Entry]] = {}
        for entry in entries:
            outlet.formats.pop(entry.channel, None)
            shares.setdefault(self._partition(entry.channel), []).append(entry)
        for index, share in shares.items():
            changes = [
                Change(entry.channel, entry.member[0], outlet.id, None)
                for entry in share
                if entry.member is not None
            ]
            self.relays[index].leave(outlet, [entry.channel for entry in share], changes)

    def rest_if_idle(self) -> None:
        """Let the relays end now, if no user's subscriber is left."""
        if self.is_idle:
            self.on_idle()
            for relay in self.relays:
                relay.hurry()


def is_private(subscriber: Subscriber) -> bool:
    """Whether a subscriber is not a user's."""
    return all(channel.startswith(PRIVATE) for channel in subscriber.channels)
