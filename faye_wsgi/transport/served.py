"""The connections that this process serves, all and by their owners: an address, a user.

What runs out is the process's: descriptors and memory. So there is one count for all endpoints. A
connection is in it from before its handshake is answered until its descriptor is closed, also
while it outlives its view.

``max_connections`` bounds all of them; ``max_per_address`` and ``max_per_user`` those of an owner.

The set is weak. A stream through the WSGI iterable whose response the server never used has no
end, and leaves when it is collected. ``add``, ``discard`` and ``len`` are atomic under the
interpreter's lock, so that no lock of ours is needed: connections end in any thread, and in the
middle of garbage collection.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from faye_wsgi.transport import tally

__all__ = ["Owner", "count", "enter", "forget", "has", "leave"]

Owner = tuple[str, str]  # a kind, and a name


class _Group(weakref.WeakSet[object]):
    """The connections of one owner. They alone keep it."""


_served: weakref.WeakKeyDictionary[object, list[_Group]] = weakref.WeakKeyDictionary()
_groups: weakref.WeakValueDictionary[Owner, _Group] = weakref.WeakValueDictionary()


def enter(end: object, owners: Iterable[Owner] = ()) -> None:
    """Count a connection, by the object that sees its end (``Closing``, ``IterableStream``)."""
    groups = [_groups.setdefault(owner, _Group()) for owner in owners]
    for group in groups:
        group.add(end)
    _served[end] = groups


def leave(end: object) -> None:
    """The connection has ended; nothing happens a second time."""
    for group in _served.pop(end, ()):
        group.discard(end)
    tally.leave(end)


def has(end: object) -> bool:
    """Whether it is the end of such a connection: a client of ours is not served."""
    return end in _served


def count(owner: Owner | None = None) -> int:
    """How many there are: all, or those of an owner."""
    if owner is None:
        return len(_served)
    return len(_groups.get(owner, ()))


def forget() -> None:
    """In the child of a fork: all are the parent's."""
    _served.clear()
    _groups.clear()
    tally.forget()
