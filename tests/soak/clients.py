"""The crowd: clients that subscribe, note what comes, are cut at random, and come back.

They are greenlets of a process that gevent has patched. A client comes back with the id of its
last message, as browsers do; sometimes as a new one, without a cursor or with one that it asked
for (as a page does that was rendered with it).
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

import gevent
import gevent.event

from faye_wsgi import Client
from faye_wsgi.brokers.base import Position
from faye_wsgi.errors import ConnectionClosed, HandshakeError

from ..stress import harness
from ..support import frames
from ..support.servers import Server
from ..support.sse import EventReader
from .records import Got, Session, now

SILENCE = 15.0  # seconds without a message, after which a client comes back
CUT_AFTER = 6.0  # seconds, on average, until a connection is cut
SHORT = 0.05, 0.5  # seconds until a client comes back
FORGETS = 0.1  # of the connections begin anew
TROUBLE = (OSError, EOFError, ConnectionClosed, HandshakeError, AssertionError)

# What reads the texts of a connection that was opened for a session, and what cuts it.
Texts = Iterator[str]
Open = Callable[["Browser", Session], "tuple[Texts, Callable[[], None]]"]


class Browser:
    """A client with its channels, which comes back until it is done."""

    def __init__(
        self,
        name: str,
        open: Open,
        server: Server,
        channels: Sequence[str],
        seed: str,
        cursor: Callable[..., str],
    ) -> None:
        self.name = name
        self.server = server
        self.channels = tuple(channels)
        self.dice = random.Random(f"{seed} {name}")
        self.sessions: list[Session] = []
        self.missing: set[str] | None = None  # channels whose end has not come; None: go on
        self._open = open
        self._cursor = cursor
        self._cut: Callable[[], None] = lambda: None
        self.greenlet = gevent.spawn(self._run)

    def finish(self) -> None:
        """Be done when the end of each channel has come, without any further cut."""
        self.missing = set(self.channels)

    def _run(self) -> None:
        since: Position | None = None
        while self.missing is None or self.missing:
            session = Session(self.name, self.channels, self._since(since), now())
            self.sessions.append(session)
            session.ended = self._live(session)
            since = session.last
            gevent.sleep(self.dice.uniform(*SHORT))

    def _since(self, since: Position | None) -> Position | None:
        if self.dice.random() > FORGETS and since is not None:
            return since
        if self.missing is not None and since is not None:
            return since
        if self.dice.random() < 0.5:
            with contextlib.suppress(Exception):
                return Position.parse(self._cursor(*self.channels))
        return None

    def _live(self, session: Session) -> str:
        """One connection; why it has ended."""
        cut = None
        try:
            with gevent.Timeout(SILENCE, TimeoutError("it does not open")):
                texts, close = self._open(self, session)
        except TROUBLE as error:
            return f"did not open: {error!r}"
        try:
            if self.missing is None:
                cut = gevent.spawn_later(self.dice.expovariate(1 / CUT_AFTER), close)
            for text in texts:
                self._note(session, json.loads(text))
                if self.missing is not None and not self.missing:
                    return "done"
            return "cut" if cut is not None and cut.dead else "the server has ended it"
        except TROUBLE as error:
            return f"{error!r}"
        finally:
            if cut is not None:
                cut.kill()
            close()

    def _note(self, session: Session, message: Any) -> None:
        if "started" in message:
            session.started = Position.parse(message["started"])
            session.recovered = message["recovered"]
            session.replayed = len(session.got)
            return
        channel, value = message["channel"], None
        if "reset" not in message:
            value = message["data"][0]
            if self.missing and is_end(value):
                self.missing.discard(channel)
        session.got.append(Got(now(), channel, Position.parse(message["id"]), value))


def is_end(value: str) -> bool:
    """Whether this is a publication that ends a channel."""
    return value.startswith("end.")


def path_of(session: Session, *, with_since: bool = True) -> str:
    """The target of the request for a session."""
    query = [("channel", channel) for channel in session.channels]
    if session.since is not None and with_since:
        query.append(("since", str(session.since)))
    return f"/channels?{urlencode(query)}"


def websocket(browser: Browser, session: Session) -> tuple[Texts, Callable[[], None]]:
    """A WebSocket of faye_wsgi's Client."""
    ws = Client(browser.server.url(path_of(session), "ws"), open_timeout=SILENCE)
    ws.wait_open()

    def texts() -> Texts:
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield str(ws.receive(SILENCE))
        session.ended = f"{ws.close_code}"

    return texts(), ws.close


def slow_websocket(browser: Browser, session: Session) -> tuple[Texts, Callable[[], None]]:
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

    return texts(), close


def eventsource(browser: Browser, session: Session) -> tuple[Texts, Callable[[], None]]:
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

    return texts(), close


KINDS: tuple[Open, ...] = (websocket, websocket, eventsource, slow_websocket)
