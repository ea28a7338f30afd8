"""The crowd: clients that subscribe, note what comes, are cut at random, and come back.

They are greenlets of a process that gevent has patched. A client comes back with the id of its
last message, as browsers do; sometimes as a new one, without a cursor or with one that it asked
for (as a page does that was rendered with it). A WebSocket adds channels and removes them again. A
person has one client or two, and some stay away for so long that the others are told.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import gevent
import gevent.event

from faye_wsgi import Channels, Client
from faye_wsgi.brokers.base import Cursor
from faye_wsgi.errors import ConnectionClosed, HandshakeError

from ..stress import harness
from ..support import frames
from ..support.servers import Server
from ..support.sse import EventReader
from .records import Got, Session, Span, Turnout, now

SILENCE = 15.0  # seconds without a message, after which a client comes back
CUT_AFTER = 6.0  # seconds, on average, until a connection is cut
ADDABLE = [*(f"room:{number}" for number in range(6)), "quiet:1"]
SHORT = 0.05, 0.5  # seconds until a client comes back
LONG = 3.0, 5.0  # seconds until one comes back that was shown as left meanwhile
FORGETS = 0.1  # of the connections begin anew
FIDGETS_AFTER = 1.0  # seconds, on average, until a WebSocket adds or removes a channel
LOBBY = "lobby"  # where people are present, and nothing is published
TROUBLE = (OSError, EOFError, ConnectionClosed, HandshakeError, AssertionError)

Texts = Iterator[str]
Open = Callable[["Browser", Session], "Connection"]


class Connection(NamedTuple):
    """A connection that was opened for a session."""

    texts: Texts
    close: Callable[[], None]
    send: Callable[[str], object] | None = None


class Browser:
    """A client with its channels, which comes back until it is done."""

    def __init__(
        self,
        name: str,
        open: Open,
        server: Server,
        channels: Sequence[str],
        seed: str,
        world: Channels,
        partitions: int,
        member: str | None,
    ) -> None:
        self.name = name
        self.server = server
        self.channels = tuple(channels)
        self.dice = random.Random(f"{seed} {name}")
        self.sessions: list[Session] = []
        self.missing: set[str] | None = None  # channels whose end has not come; None: go on
        self.member = member
        self.stays_away = False  # at times for so long that it is shown as left
        self._open = open
        self._world = world
        self._partitions = partitions
        self._given_back: dict[str, Cursor | None] = {}  # channels that it had once
        self._is_over = False
        self._cut: Callable[[], object] = lambda: None
        self.greenlet = gevent.spawn(self._run)

    def finish(self) -> None:
        """Be done when the end of each channel has come, without any further cut.

        A member stays even then, until ``leave``.
        """
        self.missing = set(self.channels)

    def leave(self) -> None:
        """Go now."""
        self._is_over = True
        self._cut()

    @property
    def has_all(self) -> bool:
        """Whether the end of each channel has come."""
        return self.missing is not None and not self.missing

    @property
    def is_done(self) -> bool:
        return self.has_all and (self._is_over or self.member is None)

    def _run(self) -> None:
        since: Cursor | None = None
        while not self.is_done:
            session = Session(self.name, now(), self._since(since), member=self.member)
            session.spans = [Span(one, session.since, session.began) for one in self.channels]
            if self.member is not None:
                session.spans.append(Span(LOBBY, None, session.began))
            self.sessions.append(session)
            session.ended = self._live(session)
            session.ended_at = now()
            since = session.last
            may_rest = self.stays_away and self.missing is None and self.dice.random() < 0.3
            gevent.sleep(self.dice.uniform(*(LONG if may_rest else SHORT)))

    def _since(self, since: Cursor | None) -> Cursor | None:
        if self.dice.random() > FORGETS and since is not None:
            return since
        if self.missing is not None and since is not None:
            return since
        if self.dice.random() < 0.5:
            with contextlib.suppress(Exception):
                return self._parse(self._world.cursor(*self.channels))
        return None

    def _parse(self, cursor: str) -> Cursor:
        return Cursor.parse(cursor, self._partitions)

    def _live(self, session: Session) -> str:
        """One connection; why it has ended."""
        helpers: list[gevent.Greenlet] = []
        try:
            with gevent.Timeout(SILENCE, TimeoutError("it does not open")):
                connection = self._open(self, session)
        except TROUBLE as error:
            return f"did not open: {error!r}"
        self._cut = connection.close
        try:
            if self.missing is None:
                after = self.dice.expovariate(1 / CUT_AFTER)
                helpers.append(gevent.spawn_later(after, connection.close))
                if connection.send is not None:
                    helpers.append(gevent.spawn(self._fidget, session, connection.send))
            for text in connection.texts:
                self._note(session, json.loads(text))
                if self.is_done:
                    return "done"
            return "cut" if helpers and helpers[0].dead else "the server has ended it"
        except TROUBLE as error:
            return f"{error!r}"
        finally:
            gevent.killall(helpers)
            connection.close()

    def _fidget(self, session: Session, send: Callable[[str], object]) -> None:
        """Add a channel, and remove it again."""
        with contextlib.suppress(*TROUBLE):
            while self.missing is None:
                gevent.sleep(self.dice.expovariate(1 / FIDGETS_AFTER))
                added = [span for span in session.spans if span.first and span.left is None]
                if session.spans[0].joined is None or any(one.joined is None for one in added):
                    continue
                if added and self.dice.random() < 0.5:
                    span = self.dice.choice(added)
                    span.left = len(session.got)
                    self._given_back[span.channel] = session.last
                    send(json.dumps({"remove": span.channel}))
                else:
                    self._add(session, send)

    def _add(self, session: Session, send: Callable[[str], object]) -> None:
        kept = {span.channel for span in session.spans if span.left is None}
        others = [channel for channel in ADDABLE if channel not in kept]
        if others and session.got:
            channel = self.dice.choice(others)
            since = self._given_back.get(channel) if self.dice.random() < 0.5 else None
            session.spans.append(Span(channel, since, now(), len(session.got)))
            order = {"add": channel, "since": None if since is None else str(since)}
            send(json.dumps(order))

    def _note(self, session: Session, message: Any) -> None:
        if "started" in message:
            added = message.get("added")
            session.present = session.present or now()
            for span in session.spans:
                if span.joined is None and (span.channel == added if added else not span.first):
                    span.started = self._parse(message["started"])
                    span.recovered = message["recovered"]
                    span.joined = len(session.got)
            return
        channel, value = message["channel"], None
        if "joined" in message or "left" in message:
            joined, left = message.get("joined", {}), message.get("left", ())
            session.turnouts.append(Turnout(now(), tuple(joined), tuple(left)))
            return
        if "reset" not in message:
            value = message["data"][0]
            if self.missing and is_end(value):
                self.missing.discard(channel)
        session.got.append(Got(now(), channel, self._parse(message["id"]), value))


def is_end(value: str) -> bool:
    """Whether this is a publication that ends a channel."""
    return value.startswith("end.")


def path_of(session: Session, *, with_since: bool = True) -> str:
    """The target of the request for a session."""
    query = [("channel", span.channel) for span in session.spans if span.channel != LOBBY]
    if session.member is not None:
        query.append(("member", session.member))
    if session.since is not None and with_since:
        query.append(("since", str(session.since)))
    return f"/channels?{urlencode(query)}"


def websocket(browser: Browser, session: Session) -> Connection:
    """A WebSocket of faye_wsgi's Client."""
    ws = Client(browser.server.url(path_of(session), "ws"), open_timeout=SILENCE)
    ws.wait_open()

    def texts() -> Texts:
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield str(ws.receive(SILENCE))
        session.ended = f"{ws.close_code}"

    return Connection(texts(), ws.close, ws.send)


def slow_websocket(browser: Browser, session: Session) -> Connection:
    """A raw WebSocket with a small window, which forgets to read at times."""
    raw = harness.Client(browser.server, SILENCE)
    raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.open(path_of(session))

    def texts() -> Texts:
        while True:
            if browser.missing is None and browser.dice.random() < 0.02:
                gevent.sleep(browser.dice.uniform(0.5, 4))
            frame = raw.read()
            if frame.opcode == frames.CLOSE:
                raise EOFError(f"closed with {frame.close_code}")
            if frame.opcode == frames.TEXT:
                yield frame.text

    def close() -> None:
        with contextlib.suppress(OSError):  # it may be closed already
            raw.reset()

    return Connection(texts(), close)


def eventsource(browser: Browser, session: Session) -> Connection:
    """An event stream, which comes back with Last-Event-ID."""
    since = session.since
    headers = {} if since is None else {"Last-Event-ID": str(since)}
    path = path_of(session, with_since=False)
    reader = EventReader(browser.server, path, headers, timeout=SILENCE)
    status = reader.head.status
    if status != 200:
        reader.close()
        raise ConnectionError(f"the answer is {status}")

    def texts() -> Texts:
        for event in reader:
            yield event.data

    def close() -> None:
        with contextlib.suppress(OSError):
            reader.sock.shutdown(socket.SHUT_RDWR)
        reader.close()

    return Connection(texts(), close)


KINDS: tuple[Open, ...] = (websocket, websocket, eventsource, slow_websocket)
