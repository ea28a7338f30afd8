"""What subscribers get: messages, and their encoding for each kind of subscriber.

A publication's payload is JSON already, so the text of a message is put together around it. It is
parsed only for a function or a ``format`` that asks for its data.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from faye_wsgi.brokers.base import Cursor
from faye_wsgi.driver.eventstream import encode_event

__all__ = ["Format", "Item", "Message", "encode_item", "to_json"]


log = logging.getLogger("faye_wsgi")


class Message:
    """What a subscriber gets: a publication, a reset, or a change of who is there.

    ``channel`` is its channel. ``id`` is the cursor behind it, '' for presence. ``reset`` is True
    where messages may have been missed: fetch the state, then go on from ``id``. ``joined`` (data
    by member) and ``left`` (members) are of presence, or ``count`` where there are too many
    members to name; else they are empty, and None.
    """

    __slots__ = ("_data", "channel", "count", "id", "joined", "left", "payload", "reset")

    def __init__(
        self,
        channel: str,
        id: str = "",
        payload: str | None = None,
        *,
        reset: bool = False,
        joined: Mapping[str, Any] | None = None,
        left: Sequence[str] = (),
        count: int | None = None,
    ) -> None:
        self.channel = channel
        self.id = id
        self.payload = payload  # JSON; None where this is no publication
        self.reset = reset
        self.joined = joined or {}
        self.left = left
        self.count = count
        self._data: Any = _UNPARSED

    def __repr__(self) -> str:
        return f"<Message {to_json(self)[:200]}>"

    @property
    def data(self) -> Any:
        """What was published; None for a reset and for presence."""
        if self._data is _UNPARSED:
            self._data = None if self.payload is None else json.loads(self.payload)
        return self._data


_UNPARSED = object()

Format = Callable[[Message], Optional[str]]


def to_json(message: Message) -> str:
    """The text of a message, as clients get it where there is no ``format``."""
    channel = json.dumps(message.channel, ensure_ascii=False)
    if message.payload is not None:
        return f'{{"channel":{channel},"id":"{message.id}","data":{message.payload}}}'
    if message.reset:
        return f'{{"channel":{channel},"id":"{message.id}","reset":true}}'
    change: dict[str, Any] = {}
    if message.count is not None:
        change["count"] = message.count
    if message.joined or not (message.left or change):
        change["joined"] = message.joined
    if message.left:
        change["left"] = message.left
    rest = json.dumps(change, ensure_ascii=False, separators=(",", ":"))
    return f'{{"channel":{channel},{rest[1:]}'


class Item:
    """An encoded message, which many subscribers get.

    ``message`` is what goes into their outbox: text for WebSockets, an event's bytes for
    EventSources, the Message itself for functions. ``place`` is the cursor behind it, None for
    presence; ``before`` is the cursor before it. In ``shared`` the drivers of all receivers share
    its frame.
    """

    __slots__ = ("_before", "channel", "message", "number", "place", "shared", "size")

    def __init__(
        self,
        channel: str,
        number: int,
        place: Cursor | None,
        message: Any,
        size: int,
        before: Cursor | None = None,
    ) -> None:
        self.channel = channel
        self.number = number
        self.place = place
        self.message = message
        self.size = size
        self.shared: dict[Any, Any] = {}
        self._before = before

    @property
    def before(self) -> Cursor:
        """The cursor before it, which vouches for all that was delivered earlier."""
        if self._before is None:
            assert self.place is not None
            self._before = self.place.before(self.number)
        return self._before


def encode_item(
    kind: str,
    format: Format | None,
    message: Message,
    number: int,
    place: Cursor | None,
    before: Cursor | None = None,
) -> Item | None:
    """A message for subscribers of a kind; None where ``format`` leaves it out."""
    if kind == "function":
        size = len(message.payload or "")
        return Item(message.channel, number, place, message, size, before)
    text = to_json(message) if format is None else _format(format, message)
    if text is None:
        return None
    if kind == "eventsource":
        data = encode_event(text, id=message.id or None)
        return Item(message.channel, number, place, data, len(data), before)
    return Item(message.channel, number, place, text, len(text), before)


def _format(format: Format, message: Message) -> str | None:
    # It runs in the greenlet or thread that delivers to all others: what it raises must not end it.
    try:
        text = format(message)
        if text is not None:
            text.encode()
        return text
    except Exception:
        log.exception("format raised: the message is left out for its subscribers")
        return None
