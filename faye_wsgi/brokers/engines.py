"""Which engine a URL names."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from faye_wsgi.brokers.base import Broker
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.brokers.url import take_options, truth

__all__ = ["connect"]

SCHEMES = ("memory", "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")


def connect(
    url: str, *, prefix: str = "faye", timeout: float = 2.0, **options: Any
) -> tuple[Broker, ...]:
    """The brokers of a URL, one for each partition; nothing is connected yet.

    ``timeout`` is in seconds, and bounds each call. All names in the engine begin with ``prefix``.
    All engines take the options ``leave_seconds`` and ``worker_seconds``. Redis also takes these,
    which may stand in the URL, too (``redis://localhost/0?durable=1``):

    - ``durable`` (False): Redis keeps what it has acknowledged, whatever happens (``appendonly
      yes``, ``appendfsync always``), so that cursors stay valid when it is started again.
    - ``max_connections`` (16): connections of this process to a server, besides those of feeds.

    Raises ValueError for a URL or a prefix that is wrong, ImportError where the engine's client is
    not installed.
    """
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        names = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"no broker has the scheme {scheme!r}: there are {names}")
    if scheme == "memory":
        return (MemoryBroker(**options),)
    return _connect_redis(url, prefix, timeout, **options)


def _connect_redis(
    url: str,
    prefix: str,
    timeout: float,
    *,
    durable: bool = False,
    max_connections: int = 16,
    **options: Any,
) -> tuple[Broker, ...]:
    try:
        from faye_wsgi.brokers.redis import RedisBroker
        from faye_wsgi.brokers.redis_servers import behind_sentinels, single_server
    except ImportError as error:
        if error.name != "redis":
            raise
        raise ImportError("no redis-py: pip install 'faye_wsgi[redis]'", name="redis") from None
    if not prefix or set(prefix) & set("{}"):
        raise ValueError("the prefix of keys must not be empty, or have braces")
    url, query = take_options(url, "durable", "max_connections")
    size = int(query.get("max_connections", max_connections))
    if size < 1:
        raise ValueError("max_connections is at least 1")
    place = behind_sentinels if "+" in urlsplit(url).scheme else single_server
    broker = RedisBroker(
        place(url, size=size, timeout=timeout),
        prefix=prefix,
        timeout=timeout,
        durable=truth(query["durable"]) if "durable" in query else durable,
        **options,
    )
    return (broker,)
