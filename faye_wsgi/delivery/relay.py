"""One thread for each partition of a broker and each process, which delivers its publications.

It is a greenlet where threads are patched. It owns the feed, and does everything in one loop.
Others leave requests for it, and wake it by a signal through the feed. It begins with the first
subscription, and ends after the last one.

A subscriber that comes back, and has missed only what is known here, joins in its own thread. So
the audiences, and the timeline's position, change under ``delivering`` alone.

A new subscription and a repair are the same thing, a *reading*: subscribe to what is new, wait
until that is confirmed, read all that is wanted in one call, send a signal, and take what arrives
until the signal does. Then the timeline says what follows what, and subscribers join. So all that
subscribe at the same time (after a deploy: thousands) share one reading. Those who come back later
with a cursor that the reading covers share it, too: see ``recent.py``.

A lost feed is not repaired by anything else: another one is opened, and all channels are read.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

from gevent.monkey import get_original

from faye_wsgi.brokers.base import (
    Broker,
    Change,
    Cursor,
    Feed,
    Position,
    Publication,
    Replay,
    Request,
    Signal,
    Subscribed,
)
from faye_wsgi.delivery.messages import Format, Item, Message, encode_item
from faye_wsgi.delivery.outlets import Audience, Outlet, send_to_all
from faye_wsgi.delivery.recent import Recent
from faye_wsgi.delivery.rosters import Rosters
from faye_wsgi.delivery.timeline import (
    PAGE,
    Timeline,
    by_channel,
    find_floor,
    in_order,
    is_page,
    merge,
)
from faye_wsgi.errors import BrokerError
from faye_wsgi.transport import tally
from faye_wsgi.transport.stream import gathering

__all__ = ["Entry", "Join", "Relay"]

log = logging.getLogger("faye_wsgi")

_allocate_lock = get_original("_thread", "allocate_lock")

BEAT = 1.0  # seconds between two calls of ``Broker.beat``
GATHER = 0.01  # seconds between two turns, for each request of the first: each is a few calls
GATHER_MOST = 0.1  # seconds between two turns, at most
RECENT = 524_288  # characters of publications that are kept for those who come back
CHECK = 10.0  # seconds, on average, between two looks for what the feed has not brought
ANNOUNCE = 0.1  # seconds that changes of presence are gathered
REPLAY = 262_144  # characters of a replay that a subscriber gets at once
READING = 16_777_216  # bytes that a reading brings; one message of each channel may exceed it
MAX_HELD = 20_000  # publications that wait for a reading; above it they are read instead
FIRST_DELAY, LAST_DELAY = 0.05, 5.0  # seconds between two attempts to open a feed


class Entry(NamedTuple):
    """A channel in a request to join."""

    channel: str
    format: Format | None
    member: tuple[str, str] | None  # the id and the data that are noted in the channel
    watches: bool  # gets who joins and leaves


class Join:
    """A request of an outlet to get channels of a partition, and its answer.

    ``since`` is None, or where to begin; without it the ``last`` messages come first. A channel
    of which more than ``limit`` messages came after ``since`` is reset instead.

    The answer has either ``position``, when it has joined, or ``page``: more of the replay than may
    be handed over at once. Then the caller sends the page, and asks again. ``base`` is the cursor
    of what the outlet has had before: None where the numbers of the replay can say it.
    """

    def __init__(
        self,
        outlet: Outlet,
        entries: list[Entry],
        since: Position | None,
        last: int,
        base: Cursor | None,
        limit: int | None = None,
    ) -> None:
        self.outlet = outlet
        self.entries = entries
        self.starts = {entry.channel: since for entry in entries}
        self.last = last
        self.base = base
        self.limit = limit
        self.is_complete = True  # nothing that came after ``since`` was lost
        self.position: Position | None = None
        self.page: list[Item] | None = None
        self.is_withdrawn = False
        self._lock = _allocate_lock()
        self._answered = threading.Event()

    def wait(self, timeout: float) -> bool:
        """Wait for the answer; False if there is none in time, and then there will be none."""
        if self._answered.wait(timeout):
            return True
        with self._lock:
            self.is_withdrawn = not self._answered.is_set()
            return not self.is_withdrawn

    def begin_again(self) -> None:
        """Ask for what follows the page."""
        self.page = None
        self._answered.clear()

    def answer(self, act: Callable[[], object]) -> None:
        """Call ``act``, which gives the answer, unless it is wanted no more."""
        with self._lock:
            if not self.is_withdrawn:
                if not self.outlet.is_closed:
                    act()
                self._answered.set()

    # What must be read for it, and what that gives

    def request(self, channel: str) -> Request:
        """What must be read of a channel, for this join alone."""
        start = self.starts[channel]
        if start is None:
            return Request(channel, None, self.last)
        if self.limit is not None:  # never what is older: a page would begin with it
            return Request(channel, None, self.limit)
        return Request(channel, start.number, PAGE)

    def take(
        self, now: Position, replays: Mapping[Any, Replay], held: Mapping[str, list[Publication]]
    ) -> Replayed:
        """What it gets up to ``now`` of what was read (by ``key``) and what is held."""
        resets: list[str] = []
        publications: list[Publication] = []
        horizon: int | None = None
        for entry in self.entries:
            channel, start = entry.channel, self.starts[entry.channel]
            replay = replays[self.key(channel)]
            if start is None:
                publications += replay.publications if self.last else ()
                continue
            is_cut = self.limit is None and is_page(replay)
            found = merge(
                replay.publications, () if is_cut else held.get(channel, ()), start.number
            )
            floor = find_floor(found, None if is_cut else replay.last)
            is_known = start.epoch == now.epoch and floor <= start.number <= now.number
            if not is_known or self._exceeds_limit(found, now):
                resets.append(channel)
                continue
            publications += found
            if is_cut:
                end = max(start.number, replay.publications[-1].number)
                horizon = end if horizon is None else min(end, horizon)
        end = now.number if horizon is None else min(horizon, now.number)
        return Replayed(
            resets, in_order(p for p in publications if p.number <= end), end, end < now.number
        )

    def _exceeds_limit(self, found: list[Publication], now: Position) -> bool:
        return self.limit is not None and self.limit < sum(p.number <= now.number for p in found)

    def key(self, channel: str) -> Any:
        """What can be read in one request with others'."""
        start = self.starts[channel]
        if start is None:
            return channel, self.last
        return channel, start.epoch if self.limit is None else self.limit


class Replayed(NamedTuple):
    """What a join gets of a reading."""

    resets: list[str]  # channels of which something is lost
    publications: list[Publication]
    end: int  # the number up to which they are all
    has_more: bool


class Relay:
    """What delivers a partition's publications in this process.

    ``cursor(index, position)`` makes the cursor of a position here, with what was delivered of the
    other partitions. ``delivering`` is held while something is delivered, and lets the relays of
    several partitions deliver one after the other, so that these cursors are true.
    """

    def __init__(
        self,
        broker: Broker,
        cursor: Callable[[Position], Cursor],
        delivering: Any,
        *,
        replay_size: int = REPLAY,
        random: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.broker = broker
        self.alive = 1  # processes that use the broker
        self._cursor = cursor
        self._delivering = delivering
        self._replay_size = replay_size
        self._random = random
        self._clock = clock
        # Shared with other threads, under the lock.
        self._lock = _allocate_lock()
        self._joins: list[Join] = []
        self._leaves: list[tuple[Outlet, str]] = []
        self._changes: list[Change] = []
        self._welcomes: list[tuple[Outlet, str]] = []  # watchers that know no members yet
        self._is_running = False
        self._is_forgotten = False  # in the child of a fork
        self._is_awake = False  # it looks at the requests before it waits for the feed
        self._feed: Feed | None = None
        self._woken = threading.Event()  # for the time without a feed
        # Shared with other threads, under ``delivering``.
        self._timeline = Timeline()
        self._audiences: dict[str, Audience] = {}
        self._recent = Recent(RECENT)
        # The thread's own.
        self._subscribed: set[str] = set()  # channels that the feed brings
        self._has_unwanted = False  # some of them may have no subscriber
        self._rosters = Rosters(broker, self._audiences, delivering, clock)
        self._token = 0

    # From any thread

    @property
    def position(self) -> Position | None:
        """Everything up to here was delivered."""
        return self._timeline.position

    def join(self, join: Join) -> None:
        """Answer a request to join at once, or leave it; ``join.wait`` waits for the answer."""
        if self._resume(join):
            return
        with self._lock:
            self._joins.append(join)
        self._wake()

    def _resume(self, join: Join) -> bool:
        """Answer a join from what is known here, if that is all that it needs."""
        with self._delivering:
            now = self._timeline.position
            if now is None or not self._timeline.is_whole:
                return False
            self._drop_leaves()  # or those of the same outlet would take what it gets now
            replays = {}
            for entry in join.entries:
                start = join.starts[entry.channel]
                if start is None or start.epoch != now.epoch or start.number > now.number:
                    return False
                found = self._recent.since(entry.channel, start.number)
                if found is None:
                    return False
                replays[join.key(entry.channel)] = Replay(found, 0)
            join.answer(partial(self._replay, join, now, replays, {}, {}))
        if any(entry.watches for entry in join.entries):
            self._wake()
        return True

    def leave(self, outlet: Outlet, channels: Iterable[str], changes: Iterable[Change]) -> None:
        """An outlet leaves channels, and its member with it: in a second, or at ``hurry``."""
        with self._lock:
            self._leaves += [(outlet, channel) for channel in channels]
            self._changes += changes

    def hurry(self) -> None:
        """Look at the requests now, if there are any."""
        if self._is_running:
            self._wake()

    def forget(self) -> None:
        """In the child of a fork: the thread, and the feed, are the parent's."""
        self._is_forgotten = True
        feed, self._feed = self._feed, None
        if feed is not None:
            try:
                feed.close()
            except Exception:
                log.debug("an inherited feed could not be closed", exc_info=True)

    def _wake(self) -> None:
        # Nothing that may switch to another greenlet happens under the lock, which is native.
        with self._lock:
            must_start, self._is_running = not self._is_running, True
            is_awake, self._is_awake = self._is_awake, True
            feed = self._feed
        if must_start:
            threading.Thread(target=self._run, name="faye_wsgi.channels", daemon=True).start()
            return
        self._woken.set()
        if feed is not None and not is_awake:
            try:
                feed.signal()
            except BrokerError:
                # The relay notices it itself, or looks at the requests when it wakes up.
                self._is_awake = False

    # The thread

    def _run(self) -> None:
        failures = 0
        was_open = False
        while not self._is_forgotten:
            try:
                feed = self.broker.open_feed()
                if was_open:
                    tally.count(tally.RECONNECTS)
                was_open = True
                with self._lock:
                    self._feed = feed
                    self._is_awake = True
                try:
                    if self._serve(feed):
                        return
                finally:
                    failures = 0 if self._timeline.is_whole else failures
                    with self._lock:
                        if self._feed is feed:  # else another thread has begun
                            self._feed = None
                    feed.close()
            except BrokerError as error:
                log.log(
                    logging.DEBUG if failures else logging.WARNING,
                    "channels wait for the broker: %s",
                    error,
                )
            except Exception:
                log.exception("channels begin again")
            except BaseException:  # a greenlet that was killed: the next request begins another
                self._lose()
                self._is_running = False
                raise
            self._lose()
            if self._may_end():
                return
            delay = min(LAST_DELAY, FIRST_DELAY * 2 ** min(failures, 16))
            failures += 1
            # Full jitter, or all workers would come back to the broker at the same time.
            self._woken.wait(self._random() * delay)
            self._woken.clear()

    def _lose(self) -> None:
        self._timeline.lose()
        self._subscribed.clear()
        self._rosters.lose()

    def _may_end(self) -> bool:
        """Whether nothing is left to do; then the next request begins another thread."""
        self._take_leaves()
        with self._lock:
            self._joins = [join for join in self._joins if not join.is_withdrawn]
            if self._audiences or self._joins or self._leaves or self._changes:
                return False
            self._lose()  # before another thread begins
            self._recent.clear()
            self._rosters.drop_unwatched()
            self._is_running = False
            return True

    def _serve(self, feed: Feed) -> bool:
        """Deliver what the feed brings; True when there is nothing left to do."""
        now = next_turn = self._clock()
        next_beat, next_check, next_announcement = now, now + self._check_delay(), 0.0
        while not self._is_forgotten:
            now = self._clock()
            if now >= next_check:
                self._timeline.suspect()
                next_check = now + self._check_delay()
            if not self._timeline.is_whole or (now >= next_turn and self._has_requests()):
                count = self._take_turn(feed)
                # Who comes alone waits for nothing; of a crowd the more, the more come together.
                next_turn = self._clock() + min(count * GATHER, GATHER_MOST)
            if now >= next_beat:
                self.alive = self.broker.beat()
                next_beat = now + BEAT
            if self._rosters.is_changed:
                next_announcement = next_announcement or now + ANNOUNCE
                if now >= next_announcement:
                    next_announcement = 0.0
                    self._rosters.announce(self._number)
            if self._may_end():
                return True
            if not self._timeline.is_whole:
                continue
            due = min(next_beat, next_check, next_announcement or next_check)
            if self._has_requests():
                due = min(due, next_turn)
            self._receive(feed, max(0.001, due - now))
            # In a patched process, a feed that always has something would never let others run.
            time.sleep(0)
        return True

    def _check_delay(self) -> float:
        return CHECK * (0.75 + self._random() / 2)

    def _receive(self, feed: Feed, timeout: float) -> None:
        publications = []
        arrivals = feed.receive(timeout)
        self._is_awake = True
        for arrival in arrivals:
            if type(arrival) is Publication:
                publications.append(arrival)
            else:
                self._note(arrival)
        self._take_leaves()  # what was published after ``leave`` is not delivered
        with self._delivering:
            self._deliver(self._timeline.receive(publications))

    def _note(self, arrival: Any) -> None:
        """Everything that arrives, but for publications."""
        if type(arrival) is Subscribed:
            self._subscribed.add(arrival.channel)
        elif type(arrival) is not Signal:
            self._rosters.note(arrival)

    # Requests

    def _has_requests(self) -> bool:
        """Whether there are any. If not, the next one wakes it by a signal."""
        with self._lock:
            requests = self._joins or self._changes or self._welcomes or self._has_unwanted
            self._is_awake = bool(requests)
            return self._is_awake

    def _take_turn(self, feed: Feed) -> int:
        """Deal with all requests; returns how many there were."""
        must_read = self._joins or not self._timeline.is_whole
        count = self._read(feed) if must_read else 0
        self._unsubscribe(feed)
        return max(count, self._change_presence())

    def _take_leaves(self) -> None:
        if self._leaves:
            with self._delivering:
                self._drop_leaves()

    def _drop_leaves(self) -> None:
        """The outlets that have left get nothing more; the feed and the rosters are for a turn."""
        with self._lock:
            leaves, self._leaves = self._leaves, []
        for outlet, channel in leaves:
            audience = self._audiences.get(channel)
            if audience is not None:
                audience.discard(outlet)
                self._has_unwanted |= not audience.watchers
                if not audience.groups:
                    del self._audiences[channel]
                    self._timeline.discard(channel)
                    self._recent.discard(channel)

    def _unsubscribe(self, feed: Feed) -> None:
        self._take_leaves()
        if not self._has_unwanted:
            return
        self._has_unwanted = False
        self._rosters.drop_unwatched()
        unwanted = self._subscribed - self._audiences.keys()
        if unwanted:
            feed.unsubscribe(unwanted)
            self._subscribed -= unwanted

    # Readings

    def _read(self, feed: Feed) -> int:
        """A reading: for those who want to join, and for what is missing. Returns how many join."""
        self._take_leaves()
        with self._lock:
            joins, self._joins = self._joins, []
        joins = [join for join in joins if not join.is_withdrawn]
        count = len(joins)
        try:
            self._subscribe(feed, joins)
            repairs = [] if self._timeline.is_whole else self._timeline.requests()
            wanted = _merge_requests(joins)
            reading = self.broker.read(_bound([*repairs, *wanted.values()]))
            self._await_barrier(feed)
            replays = iter(reading.replays)
            repaired = {request.channel: replay for request, replay in zip(repairs, replays)}
            read = dict(zip(wanted, replays))
            with self._delivering:
                was_whole = self._timeline.is_whole
                held = by_channel(self._timeline.held, reading.now.epoch)
                if self._settle(reading.now, None if was_whole else repaired):
                    self._answer(joins, reading.now, read, held)
                    self._keep(wanted, reading.now, read, held)
                    joins = []
                self._deliver(self._timeline.receive(()))
            return count
        finally:
            if joins:
                with self._lock:
                    self._joins = joins + self._joins

    def _subscribe(self, feed: Feed, joins: list[Join]) -> None:
        wanted = self._audiences.keys() | {
            entry.channel for join in joins for entry in join.entries
        }
        new = wanted - self._subscribed
        if new:
            self._has_unwanted = True  # a join may come to nothing
            feed.subscribe(new)
            self._hold_until(feed, lambda: new <= self._subscribed)

    def _await_barrier(self, feed: Feed) -> None:
        self._token += 1
        token = f"barrier {self._token}"
        feed.signal(token)
        self._hold_until(feed, lambda: False, token)

    def _hold_until(self, feed: Feed, is_done: Callable[[], bool], token: str = "") -> None:
        """Keep what arrives, until a signal does or something is done."""
        deadline = self._clock() + self.broker.timeout
        is_there = False
        while not is_there and not is_done():
            if self._clock() > deadline:
                raise BrokerError("the feed of the broker is silent")
            publications = []
            for arrival in feed.receive(0.25):
                if type(arrival) is Publication:
                    publications.append(arrival)
                else:
                    self._note(arrival)
                    is_there |= type(arrival) is Signal and arrival.token == token != ""
            self._timeline.hold(publications)
            if len(self._timeline.held) > MAX_HELD:
                raise BrokerError("more arrives than can be kept while channels are read")

    def _settle(self, now: Position, replays: Mapping[str, Replay] | None) -> bool:
        """Deliver what was missing, up to ``now``; False if it was not all."""
        before = self._timeline.position
        settled = self._timeline.settle(now, replays)
        if settled is None:
            return False
        if before is not None and (before.epoch != now.epoch or before.number > now.number):
            self._recent.clear()
            self._rosters.lose()  # presence is lost, too, and each process notes it again
        self._reset(settled.resets, before, now, bool(settled.publications))
        self._deliver(settled.publications)
        return self._timeline.is_whole

    def _reset(
        self, channels: list[str], before: Position | None, now: Position, has_more: bool
    ) -> None:
        """Tell the subscribers of channels that something is lost.

        The cursor of a reset vouches for what is delivered after it, if it is not the last thing
        that a client gets. So it is the one from before, unless nothing follows.
        """
        outlets: dict[Outlet, list[str]] = {}
        for channel in channels:
            self._recent.lose(channel, now.number)
            for outlet in self._audiences.get(channel, ()):
                outlets.setdefault(outlet, []).append(channel)
        start = self._cursor(before or now)
        end = start if has_more else self._cursor(now)
        for outlet, names in outlets.items():
            for item in outlet.make_resets(names, now.number, start, end):
                outlet.push(item)
        if channels:
            log.warning(
                "publications of %d channels are lost: %d subscribers are reset",
                len(channels),
                len(outlets),
            )

    def _answer(
        self,
        joins: list[Join],
        now: Position,
        replays: Mapping[Any, Replay],
        held: Mapping[str, list[Publication]],
    ) -> None:
        """Give the joins their replays, and let those join that have all of it."""
        encoded: dict[Any, Item | None] = {}
        for join in joins:
            join.answer(partial(self._replay, join, now, replays, held, encoded))

    def _keep(
        self,
        requests: Mapping[Any, Request],
        now: Position,
        replays: Mapping[Any, Replay],
        held: Mapping[str, list[Publication]],
    ) -> None:
        """Remember what was read, for those who come back later."""
        for key, request in requests.items():
            channel, since, replay = request.channel, request.since, replays[key]
            if since is None or key[1] != now.epoch or is_page(replay):
                continue
            if channel in self._audiences:
                found = merge(replay.publications, held.get(channel, ()), since)
                found = [one for one in found if one.number <= now.number]
                self._recent.begin(channel, find_floor(found, replay.last), found)

    def _replay(
        self,
        join: Join,
        now: Position,
        replays: Mapping[Any, Replay],
        held: Mapping[str, list[Publication]],
        encoded: dict[Any, Item | None],
    ) -> None:
        outlet = join.outlet
        replayed = join.take(now, replays, held)
        formats = {entry.channel: entry.format for entry in join.entries}
        is_alone = not (replayed.publications or outlet.formats.keys() - formats)
        outlet.formats.update(formats)
        size, end, has_more = 0, replayed.end, replayed.has_more
        items = self._resets_of(join, replayed.resets, None if has_more or not is_alone else now)
        for publication in replayed.publications:
            size += len(publication.payload)
            if size > self._replay_size and items:
                has_more = True
                break
            end = publication.number
            item = self._encode(join, publication, formats[publication.channel], encoded)
            if item is not None:
                items.append(item)
        join.is_complete = join.is_complete and not replayed.resets
        if has_more or size > self._replay_size:
            join.page = items
            for channel in join.starts:
                join.starts[channel] = (
                    now
                    if channel in replayed.resets
                    else Position(end if has_more else replayed.end, now.epoch)
                )
            return
        outlet.insert(items, join.base is None)
        for entry in join.entries:
            self._add(outlet, entry)
        join.position = now

    def _resets_of(self, join: Join, channels: list[str], end: Position | None) -> list[Item]:
        """Resets before a replay, with the cursor before it; or up to ``end``."""
        if not channels:
            return []
        start = min(start for start in join.starts.values() if start is not None)
        before = join.base or self._cursor(start)
        after = before if end is None or join.base is not None else self._cursor(end)
        return join.outlet.make_resets(channels, 0, before, after)

    def _encode(
        self,
        join: Join,
        publication: Publication,
        format: Format | None,
        encoded: dict[Any, Item | None],
    ) -> Item | None:
        """The item of a replayed publication: one for all who join and have the same encoding."""
        key = (publication.number, join.outlet.kind, format, join.base)
        if key not in encoded:
            position = Position(publication.number, publication.epoch)
            place = self._cursor(position) if join.base is None else join.base.of(position)
            message = Message(publication.channel, str(place), publication.payload)
            encoded[key] = encode_item(
                join.outlet.kind, format, message, publication.number, place, join.base
            )
        return encoded[key]

    def _add(self, outlet: Outlet, entry: Entry) -> None:
        channel = entry.channel
        audience = self._audiences.get(channel)
        if audience is None:
            audience = self._audiences[channel] = Audience()
        audience.add(outlet, entry.format, entry.watches)
        position = self._timeline.add(channel)
        self._recent.begin(channel, position)
        with self._lock:
            if entry.member is not None:
                member, data = entry.member
                self._changes.append(Change(channel, member, outlet.id, data))
            if entry.watches:
                self._welcomes.append((outlet, channel))

    # Delivery

    def _deliver(self, publications: list[Publication]) -> None:
        """Hand publications to the audiences of their channels.

        What arrived together goes out together: one system call for each connection.
        """
        with gathering() if len(publications) > 1 else nullcontext():
            self._hand_out(publications)

    def _hand_out(self, publications: Iterable[Publication]) -> None:
        for publication in publications:
            audience = self._audiences.get(publication.channel)
            if audience is None:
                continue
            self._recent.add(publication)
            number = publication.number
            place = self._cursor(Position(number, publication.epoch))
            message = Message(publication.channel, str(place), publication.payload)
            for (kind, format), outlets in audience.groups.items():
                item = encode_item(kind, format, message, number, place)
                if item is not None:
                    send_to_all(outlets, item)

    # Presence

    def _change_presence(self) -> int:
        """Deal with the connections that have come and gone; returns how many there were."""
        with self._lock:
            changes, self._changes = self._changes, []
            welcomes, self._welcomes = self._welcomes, []
        try:
            self._rosters.change(changes, welcomes, self._number)
        except BaseException:
            with self._lock:  # to say it again does no harm
                self._changes = changes + self._changes
                self._welcomes = welcomes + self._welcomes
            raise
        return len(changes)

    @property
    def _number(self) -> int:
        position = self._timeline.position
        return 0 if position is None else position.number


def _bound(requests: list[Request]) -> list[Request]:
    """The same, so that all of them together bring no more than ``READING``."""
    size = max(1, min(REPLAY, READING // max(1, len(requests))))
    return [request._replace(size=size) for request in requests]


def _merge_requests(joins: Iterable[Join]) -> dict[Any, Request]:
    """One request for each channel and epoch, from the lowest number that is wanted."""
    requests: dict[Any, Request] = {}
    for join in joins:
        for entry in join.entries:
            key, request = join.key(entry.channel), join.request(entry.channel)
            other = requests.get(key)
            if other is None or (request.since or 0) < (other.since or 0):
                requests[key] = request
    return requests
