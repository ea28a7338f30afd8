"""The broker on Postgres 12 or later, by psycopg 3.1 or later.

What it keeps, and all that is done with it in one transaction, is in ``postgres.sql``: a schema
named after the prefix, which is made at the first use. Each call is one statement that calls one
function, so that it also works through PgBouncer, which may give each transaction another session.

A feed is a reader of the log, in the order of numbers. NOTIFY only wakes it: behind a pooler of
connections, where there is none, it looks every 100 ms. A signal wakes it, too, and lets it read
once more. So it needs no order between notifications and what it reads, and none may be lost that
matters: it also reads every two seconds.

**Epochs.** A new one begins where the data are at another place: restored from a dump, copied, or
on a replica that was promoted. Without ``durable`` commits do not wait for the disk, and so one
also begins when the server was started again or has crashed: see ``v1_epoch``.

**Threads and greenlets.** A link blocks its caller; in a process that gevent has patched, the
greenlet. Locks are of ``threading``, and patched as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

from faye_wsgi.brokers.base import (
    KEY_SECONDS,
    LAST_SECONDS,
    LEAVE_SECONDS,
    WORKER_SECONDS,
    Arrival,
    Broker,
    Change,
    Feed,
    Joined,
    Left,
    Position,
    Publication,
    Reading,
    Replay,
    Request,
    Signal,
    Subscribed,
)
from faye_wsgi.brokers.fork import watch_broker
from faye_wsgi.brokers.pool import Caller, Errors, Server
from faye_wsgi.brokers.postgres_link import (
    BYTEA,
    INT8,
    Bell,
    Link,
    LinkError,
    Row,
    explain,
    pack_array,
    pack_int,
    unpack_int,
)
from faye_wsgi.brokers.present import Present
from faye_wsgi.errors import BrokerError, PublishError

__all__ = ["PostgresBroker", "PostgresFeed"]

TRANSIT = 20.0  # seconds that a publication stays for the feeds, whatever history is kept
LATE = TRANSIT / 2  # seconds after which a feed that has not read may have missed something
SILENCE = 2.0  # seconds between two looks, where no notification comes
POLL = 0.1  # the same where none can come
PAGE = 1000  # rows that a feed reads at once
FEW = 200  # channels that a feed asks for by name; with more it reads all, and picks
CHANGES = 500  # changes of presence in one statement
SWEEPS = 20  # statements of one beat, at most
SWEPT = 500  # rows that one sweep looks at
REST = 10.0  # seconds after the last row, before the first is looked at again
PUBLISHED = 256  # publications of this process between two sweeps

# The schema or the function is not there.
MISSING = {"3F000", "42883", "42P01"}
# Nothing was done, and it may soon be otherwise: a replica, a deadlock, a server that starts.
SERIALIZATION = "40001"
PASSING = {"25006", SERIALIZATION, "40P01", "57P03"}

# What the functions of postgres.sql take.
HEAD = "boolean bigint text"  # durable, patience, fresh
FUNCTIONS = {
    "publish": f"{HEAD} bytea bytea bytea bigint bigint bigint bigint bigint",
    "read": f"{HEAD} bytea[] bigint[] bigint[] bigint[] bigint bigint",
    "fetch": "bigint bytea[] bigint",
    "sweep": "bigint bigint",
    "change": f"{HEAD} bigint text bigint bigint bytea[] bytea[] bytea[] bytea[]",
    "beat": f"{HEAD} bigint text bigint bigint bigint",
    "members": "bytea bigint",
    "rosters": "bytea[]",
}

TRUE = b"\x01"

Parameters = Sequence[Optional[bytes]]


class Schema:
    """A schema with the tables and functions of ``postgres.sql``."""

    def __init__(self, prefix: str) -> None:
        if not re.fullmatch(r"[\w:.-]{1,60}", prefix, re.ASCII):
            raise ValueError("the prefix is the name of a schema: 1 to 60 of A-Z a-z 0-9 _ : . -")
        self.name = f'"{prefix}"'
        self._prefix = prefix
        self.calls = {name: self._call(name, types.split()) for name, types in FUNCTIONS.items()}

    def _call(self, function: str, types: list[str]) -> str:
        values = ", ".join(f"${number}::{kind}" for number, kind in enumerate(types, 1))
        return f"SELECT * FROM {self.name}.v1_{function}({values})"

    def source(self) -> str:
        """The statements that make it."""
        names = {
            "'faye'": f"'{self._prefix}'",
            "'faye.": f"'{self.name}.",
            "faye.": f"{self.name}.",
            "SCHEMA faye;": f"SCHEMA {self.name};",
        }
        source = (Path(__file__).parent / "postgres.sql").read_text("utf-8")
        pattern = "|".join(rf"(?<!\w){re.escape(name)}" for name in names)
        return re.sub(pattern, lambda match: names[match[0]], source)


class PostgresBroker(Broker):
    """Channels in a schema of a Postgres database."""

    def __init__(
        self,
        server: Server[Link],
        *,
        prefix: str = "faye",
        timeout: float = 2.0,
        durable: bool = False,
        listen: bool | None = None,
        leave_seconds: float = LEAVE_SECONDS,
        worker_seconds: float = WORKER_SECONDS,
    ) -> None:
        self.timeout = timeout
        self.schema = Schema(prefix)
        self._server = server
        self._caller = Caller(server, timeout, Errors((LinkError, OSError), _may_pass, explain))
        self._durable = bytes([durable])
        self._listen = listen  # None: where there is no pooler
        self._leave_time = _micros(leave_seconds)
        self._worker_time = _micros(worker_seconds)
        self._feeds: weakref.WeakSet[PostgresFeed] = weakref.WeakSet()
        self._present = Present(self._note)
        self.begin_process()
        watch_broker(self)

    def begin_process(self) -> None:
        """Be a worker with connections of its own: at first, and in the child of a fork."""
        self.worker = secrets.token_hex(8)
        self._present.forget()
        self._server.reset()
        self._swept = 0  # where the next sweep goes on
        self._next_sweep = 0.0
        self._until_sweep = PUBLISHED

    # Publishing and reading

    def publish(
        self, channel: str, payload: str, *, key: str | None = None, history: int, ttl: float
    ) -> Position:
        """Number, keep and send a publication, in one step; its position."""
        digest = None if key is None else hashlib.sha256(key.encode()).digest()
        numbers = (pack_int(history), *map(_micros, (ttl, TRANSIT, KEY_SECONDS, LAST_SECONDS)))
        parameters = (channel.encode(), payload.encode(), digest, *numbers)

        def call(link: Link, deadline: float) -> Position:
            [[number, epoch]] = self.ask(link, "publish", parameters, deadline)
            self._until_sweep -= 1
            if self._until_sweep <= 0:  # where there are no subscribers, there is no beat, either
                self._until_sweep = PUBLISHED
                with contextlib.suppress(LinkError):
                    self._sweep(link, deadline)
            return _position(number, epoch)

        try:
            # Without a key a second try could publish it twice.
            position: Position = self._caller.call(call, is_repeatable=key is not None)
        except BrokerError as error:
            raise PublishError(str(error)) from error
        return position

    def _sweep(self, link: Link, deadline: float) -> None:
        """Delete what nothing needs, a small part at a time."""
        [[row]] = self.ask(link, "sweep", (pack_int(self._swept), pack_int(SWEPT)), deadline)
        self._swept = unpack_int(row)
        if not self._swept:
            self._next_sweep = time.monotonic() + REST

    def read(self, requests: Sequence[Request]) -> Reading:
        """What is kept of channels, all in one step."""

        def call(link: Link, deadline: float) -> Reading:
            return self.read_through(link, requests, deadline)

        reading: Reading = self._caller.call(call)
        return reading

    def read_through(self, link: Link, requests: Sequence[Request], deadline: float) -> Reading:
        """The same by a connection."""
        columns = list(zip(*requests)) or [()] * len(Request._fields)
        parameters = (
            pack_array([channel.encode() for channel in columns[0]], BYTEA),
            *(pack_array(list(map(_pack_optional, column)), INT8) for column in columns[1:]),
            _micros(TRANSIT),
            _micros(LAST_SECONDS),
        )
        return _reading(requests, self.ask(link, "read", parameters, deadline))

    # Feeds

    def open_feed(self) -> Feed:
        """A connection of its own."""

        def begin(link: Link, deadline: float) -> PostgresFeed:
            feed = PostgresFeed(self, link)
            try:
                feed.begin(self._listen, deadline)
            except BaseException:
                feed.close()
                raise
            return feed

        feed: PostgresFeed = self._caller.call(begin, is_lent=False)
        self._feeds.add(feed)
        return feed

    # Presence

    def change_presence(self, changes: Sequence[Change]) -> None:
        """Note which connections have come and gone."""
        self._present.change(changes)

    def _note(self, changes: Sequence[Change]) -> bool:
        """Whether this process was known before."""
        answers: list[bool] = []
        for step in range(0, len(changes), CHANGES):
            columns = zip(*changes[step : step + CHANGES])
            arrays = [
                pack_array([None if text is None else text.encode() for text in column], BYTEA)
                for column in columns
            ]
            parameters = (_micros(TRANSIT), self.worker.encode(), self._worker_time)
            [[known]] = self._ask("change", (*parameters, self._leave_time, *arrays))
            answers.append(known == TRUE)
        return answers[0]

    def members(self, channel: str) -> dict[str, list[str]]:
        """The data of each connection of each member."""
        members: dict[str, list[str]] = {}
        for member, data in self._ask("members", (channel.encode(), self._worker_time)):
            members.setdefault(member.decode(), []).append(data.decode())
        return members

    def rosters(self, channels: Sequence[str]) -> list[dict[str, str]]:
        """The members of channels as they were announced."""
        rosters: list[dict[str, str]] = [{} for _ in channels]
        names = pack_array([channel.encode() for channel in channels], BYTEA)
        for place, member, data in self._ask("rosters", (names,)):
            rosters[unpack_int(place) - 1][member.decode()] = data.decode()
        return rosters

    def beat(self) -> int:
        """Say that this process lives, announce leaves, and sweep up after dead processes."""
        times = (self._worker_time, self._leave_time, pack_int(CHANGES))
        for _ in range(SWEEPS):
            [[known, alive, more]] = self._ask(
                "beat", (_micros(TRANSIT), self.worker.encode(), *times)
            )
            self._present.check(known == TRUE)
            if more != TRUE:
                break
        if time.monotonic() >= self._next_sweep:
            self._caller.call(self._sweep)
        return unpack_int(alive)

    # Asking the server

    def _ask(self, function: str, parameters: Parameters) -> list[Row]:
        """The answer of a function, which may be asked twice."""

        def call(link: Link, deadline: float) -> list[Row]:
            return self.ask(link, function, parameters, deadline)

        rows: list[Row] = self._caller.call(call)
        return rows

    def ask(self, link: Link, function: str, parameters: Parameters, deadline: float) -> list[Row]:
        """The answer of a function; where it is not there, it is made first."""
        if FUNCTIONS[function].startswith(HEAD):
            # A little less than ours, so that the server can say what it waited for.
            patience = max(1, round((deadline - time.monotonic()) * 900))
            fresh = secrets.token_hex(4).encode()  # the epoch, where one begins
            parameters = (self._durable, pack_int(patience), fresh, *parameters)
        statement = self.schema.calls[function]
        try:
            return link.call(statement, parameters, deadline)
        except LinkError as error:
            if error.code not in MISSING:
                raise
        self._make_schema(link, deadline)
        return link.call(statement, parameters, deadline)

    def _make_schema(self, link: Link, deadline: float) -> None:
        try:
            link.call(self.schema.source(), None, deadline)
        except LinkError as error:
            if error.code != "42501":
                raise
            name = self.schema.name
            raise LinkError(
                f"{error}: the schema of these channels must be made first. Let the owner of the "
                f"database run: CREATE SCHEMA {name} AUTHORIZATION "
                f'"{link.user}"'
            ) from error

    def eviction_policy(self) -> str:
        """A full disk refuses writes, and deletes nothing."""
        self._caller.call(lambda link, deadline: link.call("SELECT 1", [], deadline))
        return "noeviction"

    def close(self) -> None:
        """Close the connections that rest; the others when they are given back."""
        for feed in list(self._feeds):
            feed.end()  # wakes its owner; only the owner may close its connection
        self._caller.close()


def _may_pass(error: BaseException, may_repeat: bool) -> bool:
    """Whether to try again: nothing was done, or it may be done twice; and it can help."""
    code = getattr(error, "code", "")
    return code in PASSING or (may_repeat and (not code or code[:2] in ("08", "57")))


def _micros(seconds: float) -> bytes:
    return pack_int(round(seconds * 1_000_000))


def _pack_optional(value: int | None) -> bytes | None:
    return None if value is None else pack_int(value)


def _position(number: bytes, epoch: bytes) -> Position:
    return Position(unpack_int(number), epoch.decode())


def _reading(requests: Sequence[Request], rows: Sequence[Row]) -> Reading:
    (_none, _last, now, _previous, epoch), *rest = rows
    position = _position(now, epoch)
    replays = [Replay([], 0) for _ in requests]
    if {unpack_int(row[0]) for row in rows} != set(range(len(requests) + 1)):
        raise LinkError("channels were deleted while they were read", SERIALIZATION)
    for index, last, number, previous, payload in rest:
        place = unpack_int(index) - 1
        replay = replays[place] = replays[place]._replace(last=unpack_int(last))
        if number is not None:
            replay.publications.append(
                Publication(
                    requests[place].channel,
                    unpack_int(number),
                    unpack_int(previous),
                    position.epoch,
                    payload.decode(),
                )
            )
    return Reading(position, replays)


class PostgresFeed(Feed):
    """A reader of the log."""

    def __init__(self, broker: PostgresBroker, link: Link) -> None:
        self._broker = broker
        self._link = link
        self._bell = Bell()
        self._lock = threading.Lock()
        self._tokens: list[str] = []  # of the signals that are asked for
        self._is_ended = False
        self._channels: dict[str, str] = {}  # by what notifications call them
        self._confirmed: list[Arrival] = []
        self._position = Position(0, "")
        self._pause = SILENCE
        self._looked = 0.0  # when the log was read
        self._due = 0.0  # when it is read again, at the latest

    def begin(self, listen: bool | None, deadline: float) -> None:
        """Begin at the end of the log; listen to notifications, if they can come."""
        if listen is None:
            # A pooler of connections gives its clients other numbers than the server does.
            [[process]] = self._link.call("SELECT pg_backend_pid()", (), deadline)
            listen = unpack_int(process) == self._link.process
        if listen:
            self._link.call(f"LISTEN {self._broker.schema.name}", None, deadline)
        self._pause = SILENCE if listen else POLL
        self._looked = time.monotonic()
        self._position = self._broker.read_through(self._link, [], deadline).now

    def subscribe(self, channels: Iterable[str]) -> None:
        """Ask for channels: what is read from now on has them."""
        self._check_open()
        for channel in channels:
            self._channels[_notified(channel)] = channel
            self._confirmed.append(Subscribed(channel))

    def unsubscribe(self, channels: Iterable[str]) -> None:
        """Ask for no more of channels."""
        self._check_open()
        for channel in channels:
            self._channels.pop(_notified(channel), None)

    def signal(self, token: str = "") -> None:
        """Let a signal arrive, behind what can be read then."""
        self._check_open()
        with self._lock:
            self._tokens.append(token)
        self._bell.ring()

    def _check_open(self) -> None:
        if self._is_ended or self._link.is_closed:
            raise BrokerError("the feed is lost: it is closed")

    def receive(self, timeout: float) -> list[Arrival]:
        """What has arrived; waits for the first of it."""
        end = time.monotonic() + timeout
        try:
            while True:
                arrivals = self._take()
                if arrivals or time.monotonic() >= end:
                    return arrivals
                wait = min(end, self._due) - time.monotonic()
                self._link.wait(self._bell.descriptor, wait)
        except BaseException as error:
            self._link.close()
            if isinstance(error, (LinkError, OSError)):
                raise BrokerError(f"the feed is lost: {explain(error)}") from error
            raise

    def _take(self) -> list[Arrival]:
        """What is there now."""
        if self._is_ended:
            raise LinkError("the broker is closed")
        self._bell.hush()
        with self._lock:
            tokens, self._tokens = self._tokens, []
        arrivals, self._confirmed = self._confirmed, []
        # Also those that have come with the answer to the last reading: they wake nothing.
        is_notified = any(not name or name in self._channels for name in self._link.notifications())
        if tokens or is_notified or time.monotonic() >= self._due:
            arrivals += self._look()
            if self._due:
                arrivals += map(Signal, tokens)
            else:
                with self._lock:
                    self._tokens[:0] = tokens  # behind the pages that follow
        return arrivals

    def _look(self) -> list[Arrival]:
        """Read what has come since the last time, a page at most."""
        now = time.monotonic()
        if now > self._looked + LATE:
            raise LinkError("it was not read for so long that something may be missing")
        names = list(self._channels.values())
        wanted = pack_array([name.encode() for name in names], BYTEA) if len(names) <= FEW else None
        rows = self._broker.ask(
            self._link,
            "fetch",
            (pack_int(self._position.number), wanted, pack_int(PAGE)),
            now + self._broker.timeout,
        )
        if not rows:
            raise LinkError("its data are gone")
        *found, (number, _previous, _channel, _member, epoch) = rows
        end = _position(number, epoch)
        if end.epoch != self._position.epoch or end < self._position:
            raise LinkError("data were lost")
        is_page = len(found) >= PAGE
        self._position = end._replace(number=unpack_int(found[-1][0])) if is_page else end
        self._looked, self._due = now, 0.0 if is_page else now + self._pause
        return [arrival for row in found if (arrival := self._arrival(*row)) is not None]

    def _arrival(
        self, number: bytes, previous: bytes, name: bytes, member: bytes | None, payload: Any
    ) -> Arrival | None:
        if name.hex() not in self._channels:
            return None
        channel = name.decode()
        if member is None:
            return Publication(
                channel,
                unpack_int(number),
                unpack_int(previous),
                self._position.epoch,
                payload.decode(),
            )
        if payload is None:
            return Left(channel, member.decode())
        return Joined(channel, member.decode(), payload.decode())

    def end(self) -> None:
        """Let its owner get an error; any thread may call it."""
        self._is_ended = True
        self._bell.ring()

    def close(self) -> None:
        """Close its connection."""
        self._link.close()
        self._bell.close()


def _notified(channel: str) -> str:
    """What notifications call a channel; one with a long name is not named there."""
    return channel.encode().hex()
