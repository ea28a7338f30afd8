"""The connections that this process serves, for the option ``max_connections``.

What runs out is the process's: descriptors and memory. So there is one count for all endpoints. A
connection is in it from before its handshake is answered until its descriptor is closed, also
while it outlives its view.

The set is weak. A stream through the WSGI iterable whose response the server never used has no
end, and leaves when it is collected. ``add``, ``discard`` and ``len`` are atomic under the
interpreter's lock, so that no lock of ours is needed: connections end in any thread, and in the
middle of garbage collection.
"""

from __future__ import annotations

import weakref

from faye_wsgi.transport import tally

__all__ = ["count", "enter", "forget", "has", "leave"]

_served: weakref.WeakSet[object] = weakref.WeakSet()


def enter(end: object) -> None:
    """Count a connection, by the object that sees its end (``Closing``, ``IterableStream``)."""
    _served.add(end)


def leave(end: object) -> None:
    """The connection has ended; nothing happens a second time."""
    _served.discard(end)
    tally.leave(end)


def has(end: object) -> bool:
    """Whether it is the end of such a connection: a client of ours is not served."""
    return end in _served


def count() -> int:
    """How many there are."""
    return len(_served)


def forget() -> None:
    """In the child of a fork: all are the parent's."""
    _served.clear()
    tally.forget()
