"""Subscribers: connections and functions, and what waits for them.

An ``Outlet`` stands for one connection or function, however many channels it has. What is
delivered goes straight to its outbox (``send_to_all``). What the outbox does not take waits here,
in order, until there is room; above ``high_water`` bytes the policy ``slow`` applies.

While a subscription begins, its outlet is held: everything waits, so that the replay comes first
and nothing overtakes it.

The relay, the connection's hub and the greenlet or thread that subscribes call this. One native
lock guards an outlet. The danger is a switch of greenlets while it is held, which would be a
deadlock: nothing below it waits. It is reentrant, for ``ask_for_room`` may call back at once.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Container, Iterable, Iterator
from itertools import count
from typing import Any, Callable, Literal

from gevent.monkey import get_original

from faye_wsgi.delivery.messages import Format, Item, Message, encode_item
from faye_wsgi.driver.eventstream import encode_event
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport import tally

__all__ = ["Audience", "Mailbox", "Outlet", "Slow", "send_to_all"]

log = logging.getLogger("faye_wsgi")

_RLock = get_original("_thread", "RLock")

Slow = Literal["close", "reset", "latest"]

TOO_SLOW = 1013  # "try again later"
FAILED = 1011
_ids = count(1)
MAILBOX = 65_536  # characters that wait in a function's mailbox


class Outlet:
    """One connection or function, and what waits for it."""

    __slots__ = (
        "_first_skipped",
        "_held",
        "_high_water",
        "_is_asking",
        "_last_skipped",
        "_lock",
        "_size",
        "_skipped",
        "_slow",
        "_waiting",
        "formats",
        "id",
        "is_clear",
        "is_closed",
        "joining",
        "kind",
        "outbox",
        "target",
    )

    def __init__(self, target: Any, kind: str, outbox: Any, high_water: int, slow: Slow) -> None:
        self.id = str(next(_ids))
        self.target = target
        self.kind = kind  # 'websocket', 'eventsource' or 'function'
        self.outbox = outbox
        self.formats: dict[str, Format | None] = {}  # of its channels
        self.is_clear = True  # nothing waits: what comes may go straight to the outbox
        self.is_closed = False
        self.joining = threading.Lock()  # one subscription begins at a time
        self._lock = _RLock()
        self._held: list[Item] | None = None  # what waits for the end of ``hold``
        self._waiting: list[Item] = []  # an empty deque takes 700 bytes
        self._size = 0
        self._is_asking = False
        self._slow = slow
        self._high_water = high_water
        self._skipped: dict[str, None] = {}  # channels of which something was left out
        self._first_skipped: Any = None
        self._last_skipped: Any = None

    @property
    def waiting(self) -> int:
        """Bytes (characters of text) that wait here."""
        return self._size

    # While a subscription begins

    def hold(self) -> None:
        """Let everything wait, with what waits already."""
        with self._lock:
            if self._skipped:
                self._waiting.extend(self._take_resets())
            self._held = list(self._waiting)
            self._waiting.clear()
            self.is_clear = False

    def insert(self, items: list[Item], by_number: bool) -> None:
        """Put a replay into what is held: among it by number, or before it."""
        with self._lock:
            if self._held is not None and not self.is_closed:
                self._held = [*items, *self._held]
                if by_number:
                    self._held.sort(key=_number)
                self._size += sum(item.size for item in items)

    def take_held(self, number: int | None = None) -> list[Item]:
        """Take back what is held, up to a number, in order."""
        with self._lock:
            held = self._held or []
            end = len(held)
            if number is not None:
                end = next((i for i, item in enumerate(held) if item.number > number), end)
            taken = held[:end]
            del held[:end]
            self._size -= sum(item.size for item in taken)
            return taken

    def send(self, items: Iterable[Item]) -> None:
        """Send items past those that wait, and wait while the peer is slow.

        Raises ConnectionClosed.
        """
        for item in items:
            if not self._send(item):
                self.outbox.send(item.message)

    def drop_held(self, channels: Container[str]) -> None:
        """Take back what is held of channels whose subscription has failed."""
        with self._lock:
            if self._held is not None:
                self._held = [item for item in self._held if item.channel not in channels]

    def release(self) -> None:
        """The end of ``hold``: what was held goes out."""
        with self._lock:
            held, self._held = self._held or [], None
            self._waiting.extend(held)
            self._size = sum(item.size for item in self._waiting)
            self._flush()

    # Delivery

    def push(self, item: Item) -> None:
        """Send an item, behind everything that waits, or let it wait."""
        with self._lock:
            if self.is_closed:
                return
            if self._skipped and item.place is not None:
                self._skip(item)
            elif not self.is_clear or not self._send(item):
                (self._waiting if self._held is None else self._held).append(item)
                self._size += item.size
                self.is_clear = False
                if self._size > self._high_water:
                    self._overflow()
                self._ask()

    @property
    def is_skipping(self) -> bool:
        """Whether something was left out, and its reset has not been sent."""
        return bool(self._skipped)

    def push_text(self, text: str, number: int) -> None:
        """Send this outlet alone a text, behind everything up to a number."""
        message: Any = encode_event(text) if self.kind == "eventsource" else text
        self.push(Item("", number, None, message, len(message)))

    def close(self) -> None:
        """Nothing more is delivered."""
        with self._lock:
            self.is_closed = True
            self.is_clear = False
            self._waiting.clear()
            self._held = None
            self._skipped.clear()
            self._size = 0

    def fail(self, code: int, reason: str) -> None:
        """Close the connection."""
        self.close()
        if self.kind == "websocket":
            self.target.close(code, reason)
        else:
            self.target.close()

    def _send(self, item: Item) -> bool:
        return bool(self.outbox.send_shared(item.message, item.shared))

    def _ask(self) -> None:
        if self._held is None and not self._is_asking and not self.is_closed:
            self._is_asking = True
            self.outbox.ask_for_room(self._on_room)

    def _on_room(self) -> None:
        with self._lock:
            self._is_asking = False
            self._flush()

    def _flush(self) -> None:
        if self._held is not None or self.is_closed:
            return
        if self._skipped:
            self._waiting.extend(self._take_resets())
        sent = 0
        try:
            for item in self._waiting:
                if not self._send(item):
                    break
                self._size -= item.size
                sent += 1
        finally:
            del self._waiting[:sent]
        if self._waiting:
            self._ask()
        else:
            self.is_clear = not self.is_closed

    # Slow subscribers

    def _overflow(self) -> None:
        """More than ``high_water`` waits."""
        action: str = self._slow
        if self._slow != "close" and self._held is None:
            kept = [item for item in self._waiting if item.place is None]  # presence
            items = [item for item in self._waiting if item.place is not None]
            if self._slow == "latest":
                newest = {item.channel: item for item in items}
                kept += [item for item in items if newest[item.channel] is item]
            else:
                for item in items:
                    self._skip(item)
            self._waiting = kept
            self._size = sum(item.size for item in kept)
        if self._size > self._high_water:
            action = "close"
            # Also where nothing more can be left out: changes of presence are not repeated, and a
            # replay without a part of what belongs between would end with a cursor that lies.
            log.debug("%r is too slow: it is closed, and may come back", self.target)
            self.fail(TOO_SLOW, "too slow")
        tally.count(tally.SLOW, (self.kind, action))

    def _skip(self, item: Item) -> None:
        if not self._skipped:
            self._first_skipped = item
        self._skipped[item.channel] = None
        self._last_skipped = item

    def _take_resets(self) -> list[Item]:
        """A reset for each channel of which something was left out."""
        channels, self._skipped = list(self._skipped), {}
        first, last = self._first_skipped, self._last_skipped
        resets = self.make_resets(channels, first.number, first.before, last.place)
        self._size += sum(item.size for item in resets)
        return resets

    # Items for this outlet alone

    def make(
        self, message: Message, number: int, place: Any = None, before: Any = None
    ) -> Item | None:
        """An item for this outlet alone; None where its ``format`` leaves it out."""
        format = self.formats.get(message.channel)
        return encode_item(self.kind, format, message, number, place, before)

    def make_resets(self, channels: list[str], number: int, before: Any, after: Any) -> list[Item]:
        """The resets of channels, from one cursor to another.

        Only the last one has the cursor ``after``. A client that gets another one, and then loses
        its connection, must not come back with a cursor that vouches for the rest of them.
        """
        items = []
        for index, channel in enumerate(channels, 1):
            place = after if index == len(channels) else before
            message = Message(channel, str(place), reset=True)
            items.append(self.make(message, number, place, before))
        return [item for item in items if item is not None]


def _number(item: Item) -> int:
    return item.number


def send_to_all(outlets: Iterable[Outlet], item: Item) -> None:
    """Send an item to outlets, and wait for none of them."""
    ready: list[Outlet] = []
    waiting: list[Outlet] = []
    for outlet in outlets:
        (ready if outlet.is_clear else waiting).append(outlet)
    message, shared = item.message, item.shared
    for outlet in ready:
        try:
            if not outlet.outbox.send_shared(message, shared):
                outlet.push(item)
        except Exception:
            log.exception("a message could not be sent: %r is closed", outlet.target)
            outlet.fail(FAILED, "")
    for outlet in waiting:
        outlet.push(item)


class Audience:
    """The subscribers of a channel, by what is encoded for them."""

    __slots__ = ("groups", "watchers")

    def __init__(self) -> None:
        self.groups: dict[tuple[str, Format | None], dict[Outlet, None]] = {}
        self.watchers: dict[tuple[str, Format | None], dict[Outlet, None]] = {}

    def __iter__(self) -> Iterator[Outlet]:
        return (outlet for group in self.groups.values() for outlet in group)

    def add(self, outlet: Outlet, format: Format | None, watches: bool) -> None:
        """An outlet gets the channel; with ``watches`` who comes and goes, too."""
        key = (outlet.kind, format)
        self.groups.setdefault(key, {})[outlet] = None
        if watches:
            self.watchers.setdefault(key, {})[outlet] = None

    def discard(self, outlet: Outlet) -> None:
        """An outlet gets nothing more of the channel."""
        for groups in (self.groups, self.watchers):
            for key, group in list(groups.items()):
                group.pop(outlet, None)
                if not group:
                    del groups[key]


class Mailbox:
    """What an outbox is to a connection, for a function: it runs in a thread of its own.

    The thread is a greenlet where threads are patched. So a slow function holds up no other one.
    """

    def __init__(self, function: Callable[[Message], object], when_closed: Any) -> None:
        self._function = function
        self._when_closed = when_closed
        self._changed = threading.Condition()
        self._messages: deque[Message] = deque()
        self._size = 0
        self._is_closed = False
        self._askers: list[Callable[[], object]] = []
        name = f"faye_wsgi.channels {getattr(function, '__name__', 'function')}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def __repr__(self) -> str:
        return f"<subscription of {self._function!r}>"

    def send_shared(self, message: Message, shared: Any) -> bool:
        """Put a message in; False if too much waits."""
        with self._changed:
            if self._size > MAILBOX and not self._is_closed:
                return False
            self._messages.append(message)
            self._size += _size(message)
            self._changed.notify_all()
            return True

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Put a message in, and wait until there is room for more."""
        with self._changed:
            self._messages.append(message)
            self._size += _size(message)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._size <= MAILBOX or self._is_closed)
            if self._is_closed:
                raise ConnectionClosed

    def ask_for_room(self, tell: Callable[[], object]) -> None:
        """Have ``tell`` called when there is room, or it is closed."""
        with self._changed:
            if self._size > MAILBOX and not self._is_closed:
                self._askers.append(tell)
                return
        tell()

    def close(self) -> None:
        """Call the function no more."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._messages.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._run_all()
        finally:
            self._when_closed(self)

    def _run_all(self) -> None:
        while (message := self._next()) is not None:
            try:
                self._function(message)
            except Exception:
                log.exception("%r raised", self)
            with self._changed:
                self._size -= _size(message)
                self._changed.notify_all()
                has_room = self._size <= MAILBOX
                askers = self._askers if has_room else []
                if has_room:
                    self._askers = []
            for tell in askers:
                tell()

    def _next(self) -> Message | None:
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._is_closed)
            return None if self._is_closed else self._messages.popleft()


def _size(message: Message) -> int:
    return len(message.payload or "")
