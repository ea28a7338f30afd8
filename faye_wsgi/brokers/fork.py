"""The child of a fork has its own brokers, and none of its parent's connections."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["watch_broker", "watch_link"]


class Broker(Protocol):
    """What begins again in a child."""

    def begin_process(self) -> None:
        """Be a worker with connections of its own."""


class Link(Protocol):
    """What has descriptors that are the parent's in a child."""

    def leave_to_parent(self, other: int) -> None:
        """In the child: put the descriptor ``other`` in the place of its own."""


_brokers: weakref.WeakSet[Broker] = weakref.WeakSet()
_links: weakref.WeakSet[Link] = weakref.WeakSet()

watch_broker = _brokers.add
watch_link = _links.add


def _after_fork_in_child() -> None:
    """Leave all connections to the parent.

    gevent's greenlets live on in the child, also those that wait for an answer or for a feed. They
    would take a part of what is sent to the parent. Here they find the end of a pipe.
    """
    reader, writer = os.pipe()
    os.close(writer)
    for link in list(_links):
        link.leave_to_parent(reader)
    os.close(reader)
    for broker in list(_brokers):
        broker.begin_process()


os.register_at_fork(after_in_child=_after_fork_in_child)
