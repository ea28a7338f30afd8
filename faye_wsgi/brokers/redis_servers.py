"""Where the server of a broker is, and the connections to it that are kept open."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Callable
from urllib.parse import unquote

import redis

from faye_wsgi.brokers.redis_link import TROUBLE, Link, connect, connection_options, open_link
from faye_wsgi.brokers.url import Address, split_hosts, take_options
from faye_wsgi.errors import BrokerError

__all__ = ["Pool", "Server", "ask_any", "behind_sentinels", "single_server"]

SENTINEL_PORT = 26379


class Turn:
    """A caller that waits for a connection, and what it gets."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.has_come = threading.Event()


class Pool:
    """Up to ``size`` connections to a server, each lent to one caller at a time.

    Callers wait in line: a connection is handed to the first of them. Were it free for a moment
    instead, the caller that gives it back could take it again before any other runs, and greenlets
    that publish without a pause would leave no turn to the rest.
    """

    def __init__(self, dial: Callable[[float], Link], size: int, least_timeout: float) -> None:
        self.dial = dial
        self._size = size
        self._least_timeout = least_timeout  # a link that was made in a hurry is not kept
        self.reset()

    def reset(self) -> None:
        """Forget all connections, as the child of a fork must."""
        self._is_closed = False
        self._lock = threading.Lock()
        self._slots: list[Link | None] = [None] * self._size
        self._line: deque[Turn] = deque()  # empty while there are slots

    def take(self, deadline: float, *, is_fresh: bool = False) -> Link:
        """A connection that was alive just now; a new one, where ``is_fresh`` asks for it."""
        link = self._take_slot(deadline)
        try:
            if link is not None and not is_fresh and link.is_idle():
                return link
            if link is not None:
                link.close()
            return self.dial(deadline)
        except BaseException:
            self._give_slot(None)
            raise

    def _take_slot(self, deadline: float) -> Link | None:
        with self._lock:
            if self._slots:
                return self._slots.pop()
            turn = Turn()
            self._line.append(turn)
        try:
            turn.has_come.wait(max(deadline - time.monotonic(), 0.0))
        except BaseException:  # the greenlet is killed: the slot goes to the next caller
            if not self._leave_line(turn):
                self._give_slot(turn.link)
            raise
        if self._leave_line(turn):
            raise BrokerError(f"all {self._size} connections to Redis are in use")
        return turn.link

    def _leave_line(self, turn: Turn) -> bool:
        """Wait no more; False if the turn has come."""
        with self._lock:
            if turn.has_come.is_set():
                return False
            self._line.remove(turn)
            return True

    def give(self, link: Link) -> None:
        """Give a connection back."""
        if self._is_closed or link.timeout < self._least_timeout:
            link.close()
        self._give_slot(None if link.is_closed else link)

    def _give_slot(self, link: Link | None) -> None:
        with self._lock:
            if self._line:
                turn = self._line.popleft()
                turn.link = link
                turn.has_come.set()
            else:
                self._slots.append(link)

    def close(self) -> None:
        """Close the connections that rest, and the others when they are given back."""
        self._is_closed = True
        with self._lock:
            links, self._slots = self._slots, [None] * len(self._slots)
        for link in links:
            if link is not None:
                link.close()


class Server:
    """The one server of a broker, wherever ``dial`` finds it."""

    def __init__(
        self, dial: Callable[[float], Link], database: int, *, size: int, timeout: float
    ) -> None:
        self.database = database
        self._pool = Pool(dial, size, timeout / 2)

    def pool(self, deadline: float, *, is_fresh: bool = False) -> Pool:
        """The connections to it; ``is_fresh`` is of no account: each dialing finds it anew."""
        return self._pool

    def reset(self) -> None:
        """Forget all connections, as the child of a fork must."""
        self._pool.reset()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def single_server(url: str, *, size: int, timeout: float) -> Server:
    """The server of ``redis://``, ``rediss://`` (TLS) or ``unix://``."""
    connection_class, options = connection_options(url)

    def dial(deadline: float) -> Link:
        return connect(connection_class, options, deadline)

    return Server(dial, int(options.get("db") or 0), size=size, timeout=timeout)


# Sentinel


def behind_sentinels(url: str, *, size: int, timeout: float) -> Server:
    """The server that Sentinels name, by the URL of these.

    ``redis+sentinel://[user:password@]host[:port],host[:port]/service[/database][?option=…]``,
    and ``rediss+sentinel://`` for TLS to all. User and password are for the server; those for the
    Sentinels are the options ``sentinel_username`` and ``sentinel_password``.
    """
    url, ours = take_options(url, "sentinel_username", "sentinel_password")
    addresses, start, rest = split_hosts(url, SENTINEL_PORT)
    path, mark, query = rest.partition("?")
    match = re.fullmatch(r"/([^/]+)(?:/([0-9]+)?)?", path)
    if match is None:
        raise ValueError("the URL of Sentinels ends in /service or /service/database")
    service, database = unquote(match[1]), int(match[2] or 0)
    connection_class, options = connection_options(f"{start}localhost/{database}{mark}{query}")
    own = ("db", "host", "port", "username", "password")
    theirs = {name: value for name, value in options.items() if name not in own}
    theirs.update({name.partition("_")[2]: value for name, value in ours.items()})

    failure = f"no Sentinel knows where {service!r} is"

    def dial(deadline: float) -> Link:
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        [host, port], _ = ask_any(addresses, command, connection_class, theirs, deadline, failure)
        place = {"host": host.decode(), "port": int(port)}
        return connect(connection_class, {**options, **place}, deadline)

    return Server(dial, database, size=size, timeout=timeout)


def ask_any(
    addresses: list[Address],
    command: tuple[str, ...],
    connection_class: Any,
    options: Mapping[str, Any],
    deadline: float,
    failure: str,
) -> tuple[list[Any], Address]:
    """The list that the first of several servers answers, and its address.

    The next time the others are asked first: one that is cut off from them tells what was true
    before. Raises redis-py's ConnectionError.
    """
    problem: Any = None
    order = list(addresses)
    for count, (host, port) in enumerate(order):
        # A server that is silent leaves time for the others, and for what comes then.
        now = time.monotonic()
        share = now + (deadline - now) / (len(order) - count + 1)
        try:
            link = open_link(connection_class, {**options, "host": host, "port": port}, share)
            try:
                [reply] = link.call([command], share)
            finally:
                link.close()
        except TROUBLE as error:
            reply = error
        if isinstance(reply, list):
            addresses[:] = order[count + 1 :] + order[: count + 1]  # at once, for other threads
            return reply, (host, port)
        problem = reply
    raise redis.ConnectionError(f"{failure}: {problem}" if problem else failure)
