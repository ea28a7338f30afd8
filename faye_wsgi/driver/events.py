"""The events that a driver reports and a listener receives: one family all the way up.

An event's ``target`` is set when it is dispatched to listeners. Events are plain
slotted classes, because a message event is made for every message.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Union

Data = Union[str, bytes]
EventType = Literal["open", "message", "ping", "pong", "drain", "error", "close"]


class Event:
    """The base: ``type`` names the event, ``target`` is the object that it happened to."""

    __slots__ = ("target",)
    type: ClassVar[EventType]
    target: Any

    def __repr__(self) -> str:
        names = [name for name in type(self).__slots__ if name != "target"]
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = type(self).__slots__
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = object.__hash__


class OpenEvent(Event):
    """The opening handshake is complete."""

    __slots__ = ()
    type = "open"


class MessageEvent(Event):
    """A whole message: ``data`` is str for a text message, bytes for a binary one."""

    __slots__ = ("data",)
    type = "message"

    def __init__(self, data: Data) -> None:
        self.data = data


class PingEvent(Event):
    """A ping arrived; the driver answers it by itself."""

    __slots__ = ("data",)
    type = "ping"

    def __init__(self, data: bytes) -> None:
        self.data = data


class PongEvent(Event):
    """A pong arrived, asked for or not."""

    __slots__ = ("data",)
    type = "pong"

    def __init__(self, data: bytes) -> None:
        self.data = data


class DrainEvent(Event):
    """What waited for a slow peer has gone out: the write buffer is below its low-water mark."""

    __slots__ = ()
    type = "drain"


class ErrorEvent(Event):
    """Something failed; informational, at most one, always followed by a close event."""

    __slots__ = ("message",)
    type = "error"

    def __init__(self, message: str) -> None:
        self.message = message


class CloseEvent(Event):
    """The connection has ended; ``code`` and ``reason`` are None on the drafts."""

    __slots__ = ("code", "reason")
    type = "close"

    def __init__(self, code: int | None, reason: str | None) -> None:
        self.code = code
        self.reason = reason
