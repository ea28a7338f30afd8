"""A Redis Cluster: each partition of the channels is in one slot, on the node that owns the slot.

The partitions share the connections to a node. Where a slot is, any node tells (CLUSTER SLOTS); it
is asked at first, and again when a call went wrong (MOVED, a node that is away).
"""

from __future__ import annotations

import binascii
import time
from typing import Any

import redis

from faye_wsgi.brokers.pool import Pool
from faye_wsgi.brokers.redis_link import Link, connect, connection_options
from faye_wsgi.brokers.redis_servers import ask_any
from faye_wsgi.brokers.url import Address, split_hosts

__all__ = ["Cluster", "Partition"]

PORT = 6379
SLOTS = 16_384
TABLE_SECONDS = 0.1  # how long what a node told of all slots is not asked again


class Cluster:
    """The nodes of a Cluster, by the URL of some.

    ``redis+cluster://[user:password@]host[:port],host[:port][?option=…]``, with TLS
    ``rediss+cluster://``.
    """

    def __init__(self, url: str, *, size: int, timeout: float) -> None:
        self._nodes, start, rest = split_hosts(url, PORT)
        self._connection_class, self._options = connection_options(f"{start}localhost{rest}")
        if self._options.pop("db", 0):
            raise ValueError("a Cluster has no databases: leave out the path of the URL")
        self._size, self._timeout = size, timeout
        self._partitions: set[Partition] = set()
        self.reset()

    def reset(self) -> None:
        """Forget all connections, as the child of a fork must."""
        self._pools: dict[Address, Pool[Link]] = {}
        self._table: list[tuple[int, int, Address]] = []  # first slot, last slot, node
        self._asked = float("-inf")

    def partition(self, tag: str) -> Partition:
        """What has the hash tag ``{tag}``."""
        made = Partition(self, binascii.crc_hqx(tag.encode(), 0) % SLOTS)
        self._partitions.add(made)
        return made

    def find(self, slot: int, deadline: float) -> Pool[Link]:
        """The connections to the node that owns a slot now."""
        if time.monotonic() > self._asked + TABLE_SECONDS:
            self._ask(deadline)
        for first, last, address in self._table:
            if first <= slot <= last:
                # Two threads may make a pool each: the first stays, the other was not used yet.
                return self._pools.setdefault(address, self._pool(address))
        raise redis.ConnectionError(f"no node of the Cluster owns the slot {slot}")

    def _pool(self, address: Address) -> Pool[Link]:
        options = {**self._options, "host": address[0], "port": address[1]}

        def dial(deadline: float) -> Link:
            return connect(self._connection_class, options, deadline)

        return Pool(dial, self._size, self._timeout / 2)

    def _ask(self, deadline: float) -> None:
        ranges, (asked, _port) = ask_any(
            self._nodes,
            ("CLUSTER", "SLOTS"),
            self._connection_class,
            self._options,
            deadline,
            "no node of the Cluster answers",
        )
        self._table = [
            (int(first), int(last), _address(owner, asked)) for first, last, owner, *_ in ranges
        ]
        self._asked = time.monotonic()
        for _first, _last, address in self._table:
            if address not in self._nodes:
                self._nodes.append(address)

    def leave(self, partition: Partition) -> None:
        """Close all connections when the last partition is closed."""
        self._partitions.discard(partition)
        if not self._partitions:
            for pool in self._pools.values():
                pool.close()


def _address(node: list[Any], asked: str) -> Address:
    """A node that does not know its own name is reached by that of the one that was asked."""
    return node[0].decode() if node[0] else asked, int(node[1])


class Partition:
    """What is in one slot: a server like others for its broker."""

    database = 0

    def __init__(self, cluster: Cluster, slot: int) -> None:
        self._cluster = cluster
        self._slot = slot
        self._found: Pool[Link] | None = None

    def pool(self, deadline: float, *, is_fresh: bool = False) -> Pool[Link]:
        """The connections to the node of the slot; with ``is_fresh``, where that is now."""
        if is_fresh or self._found is None:
            self._found = self._cluster.find(self._slot, deadline)
        return self._found

    def reset(self) -> None:
        """Forget all connections, as the child of a fork must."""
        self._found = None
        self._cluster.reset()

    def close(self) -> None:
        """Close the connections, if no other partition needs them."""
        self._cluster.leave(self)
