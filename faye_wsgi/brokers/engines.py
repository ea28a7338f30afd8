"""Which engine a URL names."""

from __future__ import annotations

from typing import Any

from faye_wsgi.brokers.base import Broker
from faye_wsgi.brokers.memory import MemoryBroker

__all__ = ["connect"]

SCHEMES = ("memory",)


def connect(url: str, *, prefix: str, timeout: float, **options: Any) -> tuple[Broker, ...]:
    """The brokers of a URL, one for each partition; none connects before its first use.

    ``prefix`` begins the names of what the engine stores, ``timeout`` bounds each call, in seconds.
    The other options are the engine's. ValueError for a URL that no engine has.
    """
    scheme = url.partition("://")[0]
    if scheme != "memory":
        raise ValueError(f"no engine for {scheme}://: there are {', '.join(SCHEMES)}")
    return (MemoryBroker(**options),)
