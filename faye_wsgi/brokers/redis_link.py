"""A connection to a Redis server, and what its errors mean.

Of redis-py only its Connection is used: it parses URLs and replies, authenticates and speaks TLS.
Its clients, pools and PubSub connect, send and subscribe again by themselves, by rules that change
with each release, and tell nothing of it. A broker must know of each: what was sent twice is
published twice, and what was published while a feed was away must be read.

A Connection connects by itself only where it has no socket. So a link is closed at its first
error, and not used again.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from faye_wsgi.brokers.fork import watch_link
from faye_wsgi.brokers.url import ENCODE
from faye_wsgi.errors import BrokerError

__all__ = [
    "TROUBLE",
    "Link",
    "code_of",
    "connect",
    "connection_options",
    "explain",
    "facts",
    "open_link",
]

TROUBLE = (redis.RedisError, OSError)  # what a link raises

Command = tuple[Any, ...]


class Link:
    """A connection to a server, which is known by its run."""

    __slots__ = ("_connection", "__weakref__", "has_shards", "run", "timeout")

    def __init__(self, connection: Any, timeout: float) -> None:
        self._connection = connection
        self.timeout = timeout  # seconds for the rest of a reply that has begun
        self.run = ""  # changes when the server is started again
        self.has_shards = False  # it belongs to a Cluster with sharded Pub/Sub
        watch_link(self)

    def call(self, commands: Iterable[Command], deadline: float) -> list[Any]:
        """The replies to commands, in one round trip; an error that is a reply is in the list."""
        commands = list(commands)
        try:
            self.send(commands)
            return [self._read(deadline) for _ in commands]
        except BaseException:
            # Also where a greenlet is killed: the next call would take our reply for its own.
            self.close()
            raise

    def send(self, commands: Iterable[Command]) -> None:
        """Send commands; their replies are to be read."""
        packed = self._open().pack_commands(commands)
        self._connection.send_packed_command(packed, check_health=False)

    def _read(self, deadline: float) -> Any:
        if not self.can_read(max(deadline - time.monotonic(), 0.0)):
            raise redis.TimeoutError("it does not answer")
        try:
            return self.read()
        except redis.ResponseError as error:
            return error

    def can_read(self, timeout: float) -> bool:
        """Whether something arrives within ``timeout`` seconds; raises where the link is lost."""
        return bool(self._open().can_read(timeout))

    def read(self) -> Any:
        """The next reply, or what a subscription has brought."""
        return self._open().read_response()

    def _open(self) -> Any:
        if self._connection is None:
            raise redis.ConnectionError("the connection is closed")
        return self._connection

    def is_idle(self) -> bool:
        """Whether it can be used: it is open, and nothing arrives that was not asked for."""
        try:
            return not self.can_read(0)
        except TROUBLE:
            return False

    def leave_to_parent(self, other: int) -> None:
        """In the child of a fork: put the descriptor ``other`` in the place of the socket's."""
        sock = None if self._connection is None else self._connection._sock
        if sock is not None and sock.fileno() >= 0:
            os.dup2(other, sock.fileno(), inheritable=False)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, by ``close`` or by an error."""
        return self._connection is None

    def close(self) -> None:
        """Close it; redis-py keeps the descriptor of a parent process as it is."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*TROUBLE):
                connection.disconnect()


# Connecting


def connection_options(url: str) -> tuple[Any, dict[str, Any]]:
    """redis-py's class for the connections of a URL, and its options; ValueError."""
    try:
        options = redis.connection.parse_url(url)
    except ValueError:
        raise ValueError(f"the URL of the broker cannot be read. {ENCODE}") from None
    connection_class = options.pop("connection_class", redis.connection.Connection)
    if issubclass(connection_class, redis.connection.SSLConnection):
        _verify_name(options)
    options.update(decode_responses=False, encoding="utf-8", retry_on_timeout=False)
    if int(redis.__version__.split(".")[0]) >= 5:
        options["protocol"] = 2  # a feed's messages arrive among replies
    for name in ("socket_timeout", "socket_connect_timeout", "health_check_interval"):
        options.pop(name, None)
    try:
        connection_class(**options)
    except (TypeError, redis.RedisError) as error:
        raise ValueError(f"the URL of the broker has a wrong option: {error}") from None
    return connection_class, options


def _verify_name(options: dict[str, Any]) -> None:
    """Let TLS compare the server's name; before 6.0 redis-py did not."""
    wanted = str(options.get("ssl_check_hostname", "1")).lower()
    verifies = str(options.get("ssl_cert_reqs", "required")).lower() not in ("none", "optional")
    options["ssl_check_hostname"] = verifies and wanted not in ("0", "f", "false", "n", "no")


def open_link(connection_class: Any, options: Mapping[str, Any], deadline: float) -> Link:
    """Connect to any server."""
    timeout = max(deadline - time.monotonic(), 0.001)
    timeouts = {"socket_timeout": timeout}
    if not issubclass(connection_class, redis.connection.UnixDomainSocketConnection):
        timeouts["socket_connect_timeout"] = timeout  # of a Unix socket it is the same
    connection = connection_class(**options, **timeouts, health_check_interval=0)
    connection.connect()
    return Link(connection, timeout)


def connect(connection_class: Any, options: Mapping[str, Any], deadline: float) -> Link:
    """Connect to a server that takes writes, and ask for its run."""
    link = open_link(connection_class, options, deadline)
    try:
        replies = link.call([("INFO", "server"), ("INFO", "replication")], deadline)
        _greet(link, *map(facts, replies))
    except BaseException:
        link.close()
        raise
    return link


def facts(reply: Any) -> dict[str, str]:
    """What a reply to INFO tells; an error that is the reply is raised."""
    if isinstance(reply, Exception):
        raise reply
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _greet(link: Link, server: Mapping[str, str], replication: Mapping[str, str]) -> None:
    if replication.get("role", "master") != "master":
        raise redis.exceptions.ReadOnlyError("it is a replica")
    link.run = server.get("run_id", "")
    if not link.run:
        raise BrokerError("the server does not tell its run_id (INFO server): it is not supported")
    version = server.get("redis_version", "0").split(".")[0]
    mode = server.get("redis_mode") or server.get("server_mode")  # Valkey's name for it
    link.has_shards = mode == "cluster" and int(version) >= 7


# Errors

# redis-py takes the code from some errors, in each release from others.
_CLASSES = {
    "AskError": "ASK",
    "AuthenticationError": "NOAUTH",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}

_CURES = {
    "BUSY": "a script blocks this Redis: SCRIPT KILL ends it",
    "CLUSTERDOWN": "a part of the Cluster is down: see CLUSTER INFO",
    "LOADING": "Redis is reading its data from the disk: wait until it has started",
    "MASTERDOWN": "this Redis is a replica: name the primary, or use redis+sentinel://",
    "MISCONF": "Redis cannot save to its disk, and takes no writes: see its log",
    "MOVED": "this Redis is a part of a Cluster: use redis+cluster://",
    "NOAUTH": "check the user and the password in the URL",
    "NOPERM": "let the user have the commands, the keys (~) and the channels (&) of the prefix",
    "NOREPLICAS": "too few replicas are connected (min-replicas-to-write)",
    "OOM": "Redis is full: raise maxmemory, or keep less history",
    "READONLY": "this Redis is a replica: name the primary, or use redis+sentinel://",
    "CERTIFICATE": "name the authority with ?ssl_ca_certs=FILE, and the server as its certificate",
}

_ALIASES = {
    "The user executing the script": "NOPERM",
    "ACL failure in script": "NOPERM",
    "WRONGPASS": "NOAUTH",
}
_CODE = re.compile(rf"\b({'|'.join((*_CURES, *_ALIASES))}|NOSCRIPT|ASK|TRYAGAIN)\b")


def code_of(error: BaseException) -> str:
    """The code of a server's error, also of one inside a script; '' where it has none."""
    name = _CLASSES.get(type(error).__name__)
    if name is not None:
        return name
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        return "CERTIFICATE"
    found = _CODE.search(str(error)) if isinstance(error, redis.ResponseError) else None
    return _ALIASES.get(found[1], found[1]) if found else ""


def explain(error: BaseException) -> str:
    """What happened, and what to do about it."""
    cure = _CURES.get(code_of(error))
    return f"Redis: {error}" if cure is None else f"Redis: {error}: {cure}"
