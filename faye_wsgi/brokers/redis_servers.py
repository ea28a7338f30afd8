"""Where the Redis server of a broker is: at a URL, or where Sentinels say."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import redis

from faye_wsgi.brokers.pool import Server
from faye_wsgi.brokers.redis_link import TROUBLE, Link, connect, connection_options, open_link
from faye_wsgi.brokers.url import Address, split_hosts, take_options

__all__ = ["ask_any", "behind_sentinels", "single_server"]

SENTINEL_PORT = 26379


def single_server(url: str, *, size: int, timeout: float) -> Server[Link]:
    """The server of ``redis://``, ``rediss://`` (TLS) or ``unix://``."""
    connection_class, options = connection_options(url)

    def dial(deadline: float) -> Link:
        return connect(connection_class, options, deadline)

    return Server(dial, int(options.get("db") or 0), size=size, timeout=timeout)


# Sentinel


def behind_sentinels(url: str, *, size: int, timeout: float) -> Server[Link]:
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
