"""Where the server of a broker is, and the connections to it that are kept open."""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Callable

from faye_wsgi.brokers.redis_link import Link, connect, connection_options
from faye_wsgi.errors import BrokerError

__all__ = ["Pool", "Server"]


class Pool:
    """Up to ``size`` connections to a server, each lent to one caller at a time."""

    def __init__(self, dial: Callable[[float], Link], size: int, least_timeout: float) -> None:
        self.dial = dial
        self._size = size
        self._least_timeout = least_timeout  # a link that was made in a hurry is not kept
        self.reset()

    def reset(self) -> None:
        """Forget all connections, as the child of a fork must."""
        self._is_closed = False
        self._slots: queue.LifoQueue[Link | None] = queue.LifoQueue()
        for _ in range(self._size):
            self._slots.put(None)

    def take(self, deadline: float, *, is_fresh: bool = False) -> Link:
        """A connection that was alive just now; a new one, where ``is_fresh`` asks for it."""
        try:
            link = self._slots.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            raise BrokerError(f"all {self._size} connections to Redis are in use") from None
        if link is not None and not is_fresh and link.is_idle():
            return link
        try:
            if link is not None:
                link.close()
            return self.dial(deadline)
        except BaseException:
            self._slots.put(None)
            raise

    def give(self, link: Link) -> None:
        """Give a connection back."""
        if self._is_closed or link.timeout < self._least_timeout:
            link.close()
        self._slots.put(None if link.is_closed else link)

    def close(self) -> None:
        """Close the connections that rest, and the others when they are given back."""
        self._is_closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                link = self._slots.get_nowait()
                if link is not None:
                    link.close()


class Server:
    """One server by its URL: redis://, rediss:// or unix://."""

    def __init__(self, url: str, *, size: int, timeout: float) -> None:
        self._connection_class, self._options = connection_options(url)
        self.database = int(self._options.get("db") or 0)
        self._pool = Pool(self._dial, size, timeout / 2)

    def pool(self, deadline: float, *, is_fresh: bool = False) -> Pool:
        """The connections to it; with ``is_fresh``, to where it is now."""
        return self._pool

    def _dial(self, deadline: float) -> Link:
        return connect(self._connection_class, self._options, deadline)

    def reset(self) -> None:
        """Forget all connections, as the child of a fork must."""
        self._pool.reset()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
