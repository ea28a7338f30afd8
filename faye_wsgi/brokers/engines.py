"""Which engine a URL names."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

from faye_wsgi.brokers.base import Broker
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.brokers.url import take_options, truth

__all__ = ["connect", "partition"]

SCHEMES = (
    "memory",
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
    "postgres",
    "postgresql",
)


def connect(
    url: str, *, prefix: str = "faye", timeout: float = 2.0, **options: Any
) -> tuple[Broker, ...]:
    """The brokers of a URL, one for each partition; nothing is connected yet.

    ``timeout`` is in seconds, and bounds each call. All names in the engine begin with ``prefix``.
    - ``memory://``
    - ``redis://[user:password@]host[:port][/database]``, ``rediss://`` for TLS, and
      ``unix:///path/to/socket``
    - ``redis+sentinel://[user:password@]host[:port],host[:port]/service[/database]``: the primary
      that Sentinels name
    - ``redis+cluster://[user:password@]host[:port],host[:port]``: a Cluster, by some of its nodes
    - ``postgres://[user:password@]host[:port][,host[:port]]/database``: a schema named ``prefix``

    Those of Sentinels and of a Cluster are ``rediss+…`` for TLS. All engines take the options
    ``leave_seconds`` and ``worker_seconds``. Redis and Postgres also take these, which may stand in
    the URL, too (``redis://localhost/0?durable=1``), as may redis-py's (``ssl_ca_certs`` and
    others) and libpq's (``sslmode`` and others):

    - ``durable`` (False): the server keeps what it has acknowledged, whatever happens, so that
      cursors stay valid when it is started again. Redis must be set up for it (``appendonly yes``,
      ``appendfsync always``), and be one server only: after a failover, what its replica had not
      got yet is lost. In Postgres it makes publications wait for the disk.
    - ``max_connections`` (16, of Postgres 4): connections of this process to a server, besides
      those of feeds.
    - ``partitions`` (16), of a Cluster: into how many parts the channels are split. It is the same
      in all processes, and changes only when all of them are stopped.
    - ``listen``, of Postgres: whether feeds wait for notifications, or look for themselves every
      100 ms. By default they wait where no pooler of connections is found.

    Raises ValueError for a URL or a prefix that is wrong, ImportError where the engine's client is
    not installed.
    """
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        names = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"no broker has the scheme {scheme!r}: there are {names}")
    if scheme == "memory":
        return (MemoryBroker(**options),)
    if scheme.startswith("postgres"):
        return _connect_postgres(url, prefix, timeout, **options)
    return _connect_redis(url, prefix, timeout, **options)


def partition(channel: str, count: int) -> int:
    """Which of ``count`` partitions a channel is in: the same in each process and each release."""
    return crc32(channel.encode()) % count


def _connect_redis(
    url: str,
    prefix: str,
    timeout: float,
    *,
    durable: bool = False,
    max_connections: int = 16,
    partitions: int = 16,
    **options: Any,
) -> tuple[Broker, ...]:
    try:
        from faye_wsgi.brokers.redis import RedisBroker
        from faye_wsgi.brokers.redis_cluster import Cluster
        from faye_wsgi.brokers.redis_servers import behind_sentinels, single_server
    except ImportError as error:
        if error.name != "redis":
            raise
        raise ImportError("no redis-py: pip install 'faye_wsgi[redis]'", name="redis") from None
    if not prefix or set(prefix) & set("{}"):
        raise ValueError("the prefix of keys must not be empty, or have braces")
    url, query = take_options(url, "durable", "max_connections", "partitions")
    options["durable"] = truth(query["durable"]) if "durable" in query else durable
    size = _count("max_connections", query.get("max_connections", max_connections))
    count = _count("partitions", query.get("partitions", partitions))
    kind = urlsplit(url).scheme.partition("+")[2]
    if options["durable"] and kind:
        raise ValueError(f"durable is for one server: a failover in a {kind} loses what was new")
    if kind == "cluster":
        cluster = Cluster(url, size=size, timeout=timeout)
        return tuple(
            RedisBroker(cluster.partition(tag), prefix=tag, timeout=timeout, **options)
            for tag in (f"{prefix}:{number}" for number in range(count))
        )
    place = behind_sentinels if kind == "sentinel" else single_server
    server = place(url, size=size, timeout=timeout)
    return (RedisBroker(server, prefix=prefix, timeout=timeout, **options),)


def _connect_postgres(
    url: str,
    prefix: str,
    timeout: float,
    *,
    durable: bool = False,
    max_connections: int = 4,
    listen: bool | None = None,
    **options: Any,
) -> tuple[Broker, ...]:
    try:
        from faye_wsgi.brokers.postgres import PostgresBroker
        from faye_wsgi.brokers.postgres_link import single_server
    except ImportError as error:
        if error.name != "psycopg" and "libpq" not in str(error):
            raise
        text = f"no psycopg: pip install 'faye_wsgi[postgres]' ({error})"
        raise ImportError(text, name="psycopg") from None
    url, query = take_options(url, "durable", "max_connections", "listen")
    options["durable"] = truth(query["durable"]) if "durable" in query else durable
    options["listen"] = truth(query["listen"]) if "listen" in query else listen
    size = _count("max_connections", query.get("max_connections", max_connections))
    server = single_server(url, size=size, timeout=timeout)
    return (PostgresBroker(server, prefix=prefix, timeout=timeout, **options),)


def _count(name: str, value: int | str) -> int:
    if int(value) < 1:
        raise ValueError(f"{name} is at least 1")
    return int(value)
