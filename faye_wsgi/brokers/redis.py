"""The broker on Redis 6.2 or later, or Valkey: one server, or one partition of a Cluster.

What changes data is a script in Lua (the ``.lua`` files beside this one), so that it is done as a
whole, in one round trip. All keys have the prefix as hash tag:

    {faye}:clock             number, epoch, run: see clock.lua
    {faye}:last:CHANNEL      the number of the channel's last publication
    {faye}:log:CHANNEL       a stream: numbers are ids, with the previous number and the payload
    {faye}:key:LENGTH:CHANNEL:KEY   the position of a publication with an idempotency key
    {faye}:workers, …        presence: see presence.lua

A feed subscribes to topics of Redis's Pub/Sub, which knows no databases: so their names have the
number of it.

    {faye}:p0:CHANNEL        publications (text that begins with a digit), joins (+) and leaves (-)
    {faye}:s0:ID             the signals of a feed

**Epochs.** Each connection asks its server for the id of its run, and gives it to each script. A
script that finds the clock of another run, or none, begins a new epoch: the server was restarted or
emptied, or a replica took its place, and the last writes may be lost. With ``durable`` only missing
data begin one.

**Threads and greenlets.** redis-py blocks its caller; in a process that gevent has patched, the
greenlet. Locks are of ``threading``, and patched as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import redis

from faye_wsgi.brokers.base import (
    KEY_SECONDS,
    LAST_SECONDS,
    LEAVE_SECONDS,
    PRESENCE_SECONDS,
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
from faye_wsgi.brokers.present import Present
from faye_wsgi.brokers.redis_cluster import Partition
from faye_wsgi.brokers.redis_link import TROUBLE, Link, code_of, explain, facts
from faye_wsgi.errors import BrokerError, PublishError

__all__ = ["RedisBroker", "RedisFeed"]

STEP = 100  # channels that one script reads
CHANGES = 500  # changes of presence in one script
SWEEPS = 20  # scripts of one beat, at most
ARRIVALS = 1000  # what one call of receive returns, at most
TOPICS = 1000  # topics in one command
SILENCE = 2.0  # seconds without a word from Redis, after which a feed asks for one

# Nothing was done, and it may soon be otherwise.
PASSING = {
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MOVED",
    "NOREPLICAS",  # also of a primary that does not know yet that another one has taken its place
    "READONLY",
    "TRYAGAIN",
}
# Trying again does not help.
LASTING = {"CERTIFICATE", "NOAUTH", "NOPERM"}


class Script:
    """A script in Lua, which a server knows by its digest once it has run."""

    def __init__(self, *names: str) -> None:
        folder = Path(__file__).parent
        self.source = "\n".join((folder / name).read_text("utf-8") for name in names)
        self.digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


PUBLISH = Script("clock.lua", "publish.lua")
READ = Script("clock.lua", "read.lua")
PRESENCE = Script("clock.lua", "presence.lua")


class Call(NamedTuple):
    """A script's keys and arguments."""

    keys: Sequence[str]
    arguments: Sequence[Any]


class RedisBroker(Broker):
    """Channels in a Redis server, or the part of them that is in one slot of a Cluster."""

    def __init__(
        self,
        server: Server[Link] | Partition,
        *,
        prefix: str = "faye",
        timeout: float = 2.0,
        durable: bool = False,
        leave_seconds: float = LEAVE_SECONDS,
        worker_seconds: float = WORKER_SECONDS,
    ) -> None:
        self.timeout = timeout
        self._server = server
        self._caller = Caller(server, timeout, Errors(TROUBLE, _may_pass, explain))
        self._start = f"{{{prefix}}}:"
        self._topics = f"{{{prefix}}}:p{server.database}:"
        self._signals = f"{{{prefix}}}:s{server.database}:"
        self._durable = int(durable)
        self._leave_ms = round(leave_seconds * 1000)
        self._worker_ms = round(worker_seconds * 1000)
        self._keep_ms = round(max(PRESENCE_SECONDS, 4 * worker_seconds) * 1000)
        self._feeds: weakref.WeakSet[RedisFeed] = weakref.WeakSet()
        self._present = Present(self._note, self._forget)
        self.begin_process()
        watch_broker(self)

    def begin_process(self) -> None:
        """Be a worker with connections of its own: at first, and in the child of a fork."""
        self.worker = secrets.token_hex(8)
        self._present.forget()
        self._next_keeping = time.monotonic() + self._keep_ms / 3000
        self._epoch: bytes | None = None  # in which they were noted
        self._server.reset()

    # Publishing and reading

    def publish(
        self, channel: str, payload: str, *, key: str | None = None, history: int, ttl: float
    ) -> Position:
        """Number, keep and send a publication, in one step; its position."""
        start, ttl_ms = self._start, round(ttl * 1000)
        keys = [f"{start}clock", f"{start}last:{channel}", f"{start}log:{channel}"]
        if key is not None:
            keys.append(f"{start}key:{len(channel)}:{channel}:{key}")
        last_ms = max(ttl_ms, LAST_SECONDS * 1000)
        arguments = [payload, history, ttl_ms, last_ms, KEY_SECONDS * 1000, self._topics + channel]
        try:
            # Without a key a second try could publish it twice.
            replies = self._run(PUBLISH, [Call(keys, arguments)], is_repeatable=key is not None)
        except BrokerError as error:
            raise PublishError(str(error)) from error
        return Position.parse(replies[0].decode())

    def read(self, requests: Sequence[Request]) -> Reading:
        """What is kept of channels, in one step for each 100 of them and one round trip for all."""
        steps = range(0, max(len(requests), 1), STEP)
        calls = [self._read_call(requests[step : step + STEP]) for step in steps]
        replies = self._run(READ, calls)
        if any(births for _number, _epoch, births, *_rest in replies[1:]):
            # The position of the first step cannot vouch for a channel that was born after it.
            replies = self._run(READ, calls)
        return _reading(requests, replies)

    def _read_call(self, requests: Sequence[Request]) -> Call:
        start, keys = self._start, [f"{self._start}clock"]
        arguments: list[Any] = [LAST_SECONDS * 1000]
        for channel, *bounds in requests:
            keys += [f"{start}last:{channel}", f"{start}log:{channel}"]
            arguments += ["" if bound is None else bound for bound in bounds]
        return Call(keys, arguments)

    # Feeds

    def open_feed(self) -> Feed:
        """A connection of its own, subscribed to its signals."""

        def begin(link: Link, deadline: float) -> RedisFeed:
            feed = RedisFeed(self, link, self._topics, self._signals + secrets.token_hex(8))
            feed.begin(deadline)
            return feed

        feed: RedisFeed = self._caller.call(begin, is_lent=False)
        self._feeds.add(feed)
        return feed

    def signal(self, topic: str, token: str, run: str) -> None:
        """Send a signal to the feed of a topic, which is connected to the server of a run."""

        def send(link: Link, deadline: float) -> Any:
            command = "SPUBLISH" if link.has_shards else "PUBLISH"
            replies = link.call([(command, topic, token)], deadline)
            for error in _errors(replies):
                raise error
            [receivers] = replies
            # Another server may have taken the place of the feed's, and the feed not know it yet.
            return receivers and link.run == run

        if not self._caller.call(send):
            raise BrokerError("Redis: the feed is lost")

    # Presence

    def change_presence(self, changes: Sequence[Change]) -> None:
        """Note which connections have come and gone."""
        self._present.change(changes)

    def members(self, channel: str) -> dict[str, list[str]]:
        """The data of each connection of each member."""
        [flat] = self._run(PRESENCE, [self._presence_call("members", [channel])])
        members: dict[str, list[str]] = {}
        for member, data in zip(flat[::2], flat[1::2]):
            members.setdefault(member.decode(), []).append(data.decode())
        return members

    def rosters(self, channels: Sequence[str]) -> list[dict[str, str]]:
        """The members of channels as they were announced."""
        replies = self._run(PRESENCE, [self._presence_call("roster", [one]) for one in channels])
        return [
            {member.decode(): data.decode() for member, data in zip(flat[::2], flat[1::2])}
            for flat in replies
        ]

    def beat(self) -> int:
        """Say that this process lives, announce leaves, and sweep up after dead processes."""
        for _ in range(SWEEPS):
            [answer] = self._run(PRESENCE, [self._presence_call("beat", [])])
            is_known, alive, is_more, epoch = answer
            is_known = is_known and self._epoch in (None, epoch)
            self._epoch = epoch
            self._present.check(is_known)
            if not is_more:
                break
        if time.monotonic() >= self._next_keeping:
            self._keep()
        return int(alive)

    def _keep(self) -> None:
        """Prolong what is kept of the channels that have members here."""
        channels = self._present.channels
        steps = range(0, len(channels), CHANGES)
        calls = [self._presence_call("keep", channels[step : step + CHANGES]) for step in steps]
        if calls:
            self._run(PRESENCE, calls)
        self._next_keeping = time.monotonic() + self._keep_ms / 3000

    def _forget(self) -> None:
        while not self._run(PRESENCE, [self._presence_call("forget", [])])[0]:
            pass

    def _note(self, changes: Sequence[Change]) -> bool:
        """Whether this process was known before."""
        calls = []
        for step in range(0, len(changes), CHANGES):
            arguments: list[str] = []
            for channel, member, connection, data in changes[step : step + CHANGES]:
                arguments += [channel, member, connection, "-" if data is None else "+", data or ""]
            calls.append(self._presence_call("change", arguments))
        return bool(self._run(PRESENCE, calls)[0])

    def _presence_call(self, what: str, arguments: Sequence[str]) -> Call:
        seconds = [self._leave_ms, self._worker_ms, self._keep_ms]
        common = [what, self._start, self._topics, *seconds, self.worker]
        return Call([f"{self._start}clock"], [*common, *arguments])

    # Asking the server

    def _run(self, script: Script, calls: Sequence[Call], *, is_repeatable: bool = True) -> Any:
        """The replies to calls of a script, in one round trip."""

        def call(link: Link, deadline: float) -> Any:
            # A clock that is missing, or of another run, gets the epoch of this call.
            command = "SPUBLISH" if link.has_shards else "PUBLISH"
            head = (link.run, secrets.token_hex(4), self._durable, command)
            tails = [(len(keys), *keys, *head, *arguments) for keys, arguments in calls]
            replies = link.call([("EVALSHA", script.digest, *tail) for tail in tails], deadline)
            if any(code_of(error) == "NOSCRIPT" for error in _errors(replies)):
                # Calls that change data come alone. So nothing was done, or what was is harmless.
                replies = link.call([("EVAL", script.source, *tail) for tail in tails], deadline)
            for error in _errors(replies):
                raise error
            return replies

        return self._caller.call(call, is_repeatable=is_repeatable)

    def eviction_policy(self) -> str:
        """Its ``maxmemory-policy``, which says nothing where there is no ``maxmemory``."""

        def ask(link: Link, deadline: float) -> dict[str, str]:
            [reply] = link.call([("INFO", "memory")], deadline)
            return facts(reply)

        memory: dict[str, str] = self._caller.call(ask)
        is_bounded = memory.get("maxmemory", "0") != "0"
        return memory.get("maxmemory_policy", "noeviction") if is_bounded else "noeviction"

    def close(self) -> None:
        """Close the connections that rest; the others when they are given back."""
        for feed in list(self._feeds):
            feed.is_ended = True
            with contextlib.suppress(BrokerError):
                feed.signal()  # wakes its owner; only the owner may close its connection
        self._caller.close()


def _errors(replies: Sequence[Any]) -> list[Exception]:
    return [reply for reply in replies if isinstance(reply, Exception)]


def _may_pass(error: BaseException, may_repeat: bool) -> bool:
    """Whether to try again: nothing was done, or it may be done twice; and it can help."""
    code = code_of(error)
    if code in PASSING:
        return True
    return may_repeat and code not in LASTING and not isinstance(error, redis.ResponseError)


def _reading(requests: Sequence[Request], replies: Sequence[Any]) -> Reading:
    """What the steps of a read have answered."""
    number, epoch = int(replies[0][0]), replies[0][1].decode()
    if any(reply[1] != replies[0][1] for reply in replies):
        raise BrokerError("Redis: its data were lost while they were read")
    flat = [item for reply in replies for item in reply[3:]]
    replays = [
        Replay(_publications(request, epoch, entries), int(last))
        for request, last, entries in zip(requests, flat[::2], flat[1::2])
    ]
    return Reading(Position(number, epoch), replays)


def _publications(request: Request, epoch: str, entries: Sequence[Any]) -> list[Publication]:
    kept = [
        Publication(
            request.channel, int(name.partition(b"-")[0]), int(previous), epoch, payload.decode()
        )
        for name, (_p, previous, _d, payload) in entries
    ]
    return kept if request.since is not None else kept[::-1]


class RedisFeed(Feed):
    """A connection that is subscribed to topics."""

    def __init__(self, broker: RedisBroker, link: Link, topics: str, signals: str) -> None:
        self._broker = broker
        self._link = link
        self._topics = topics  # what the topics of channels begin with
        self._signals = signals.encode()  # the topic of its signals
        self._shard = "S" if link.has_shards else ""
        self._leaving: Counter[bytes] = Counter()  # topics whose end is asked for
        self._heard = time.monotonic()
        self._asked: float | None = None  # when Redis was asked for a word
        self.is_ended = False

    def begin(self, deadline: float) -> None:
        """Subscribe to its own signals."""
        [reply] = self._link.call([(f"{self._shard}SUBSCRIBE", self._signals)], deadline)
        if isinstance(reply, Exception):
            self._link.close()
            raise reply

    def subscribe(self, channels: Iterable[str]) -> None:
        """Ask for channels."""
        self._send("SUBSCRIBE", [self._topics + channel for channel in channels])

    def unsubscribe(self, channels: Iterable[str]) -> None:
        """Ask for no more of channels."""
        topics = [self._topics + channel for channel in channels]
        self._leaving.update(topic.encode() for topic in topics)
        self._send("UNSUBSCRIBE", topics)

    def _send(self, command: str, topics: Sequence[str]) -> None:
        steps = range(0, len(topics), TOPICS)
        command = self._shard + command
        with self._trouble():
            self._link.send([(command, *topics[step : step + TOPICS]) for step in steps])

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._link.close()
            if isinstance(error, TROUBLE):
                raise BrokerError(f"the feed is lost: {explain(error)}") from error
            raise

    def receive(self, timeout: float) -> list[Arrival]:
        """What has arrived; waits for the first of it."""
        end = time.monotonic() + timeout
        with self._trouble():
            while True:
                if self._link.can_read(self._patience(end)):
                    arrivals = self._read()
                    if arrivals and not self.is_ended:
                        return arrivals
                if self.is_ended:
                    raise redis.ConnectionError("the broker is closed")
                self._check_life()
                if time.monotonic() >= end:
                    return []

    def _patience(self, end: float) -> float:
        """How long to wait before the next look at the clock, in seconds."""
        due = self._heard + SILENCE if self._asked is None else self._asked + self._broker.timeout
        return max(min(end, due) - time.monotonic(), 0.0)

    def _read(self) -> list[Arrival]:
        """All that is there."""
        self._heard, self._asked = time.monotonic(), None
        arrivals = []
        for _ in range(ARRIVALS):
            arrival = self._arrival(self._link.read())
            if arrival is not None:
                arrivals.append(arrival)
            if not self._link.can_read(0):
                break
        return arrivals

    def _check_life(self) -> None:
        """Ask a silent server for a word: a connection that is half open says nothing, either."""
        now = time.monotonic()
        if self._asked is None and now >= self._heard + SILENCE:
            self._link.send([("PING",)])
            self._asked = now
        elif self._asked is not None and now >= self._asked + self._broker.timeout:
            raise redis.TimeoutError("Redis does not answer")

    def _arrival(self, reply: Any) -> Arrival | None:
        kind, topic, *rest = reply
        if kind in (b"message", b"smessage"):
            if topic == self._signals:
                return Signal(rest[0].decode())
            return _parse(topic.decode()[len(self._topics) :], rest[0])
        if kind in (b"subscribe", b"ssubscribe"):
            return Subscribed(topic.decode()[len(self._topics) :])
        if kind in (b"unsubscribe", b"sunsubscribe"):
            # A node that no longer has the slot ends the subscription by itself.
            if not self._leaving[topic]:
                raise redis.ConnectionError("the server has ended a subscription")
            self._leaving[topic] -= 1
        return None  # a pong, or the end of a subscription

    def signal(self, token: str = "") -> None:
        """Let a signal arrive; it may arrive twice."""
        self._broker.signal(self._signals.decode(), token, self._link.run)

    def close(self) -> None:
        """Close its connection."""
        self._link.close()


def _parse(channel: str, data: bytes) -> Arrival:
    """What was sent to a channel's topic."""
    if data[:1] == b"+":
        length, _, rest = data[1:].partition(b":")
        member = rest[: int(length)].decode()
        return Joined(channel, member, rest[int(length) :].decode())
    if data[:1] == b"-":
        return Left(channel, data[1:].decode())
    number, previous, epoch, payload = data.decode().split(" ", 3)
    return Publication(channel, int(number), int(previous), epoch, payload)
