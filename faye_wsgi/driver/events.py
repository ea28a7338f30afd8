"""The events that a driver reports and a listener receives.

The same classes serve both. A driver reports a message as the str or bytes itself; the
transport makes a MessageEvent of it if there are listeners. Events are plain classes with
slots, because they are made so often. ``target`` is set when an event is dispatched.
"""

from __future__ import annotations

from typing import Any, Literal, Union

Data = Union[str, bytes]
EventType = Literal["open", "message", "ping", "pong", "drain", "error", "close"]


class Event:
    """The base class. ``type`` is the event's name, ``target`` the object that it belongs to."""

    __slots__ = ("target",)
    type: EventType = "open"  # each class has its own
    fields: tuple[str, ...] = ()  # what it tells, beside its type and target
    target: Any

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields)
        return f"{self.__class__.__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.fields)

    def __hash__(self) -> int:
        return id(self)


class OpenEvent(Event):
    """The opening handshake is complete."""

    __slots__ = ()
    type = "open"


class MessageEvent(Event):
    """A whole message: ``data`` is str for a text message, bytes for a binary one."""

    __slots__ = fields = ("data",)
    type = "message"

    def __init__(self, data: Data) -> None:
        self.data = data


class PingEvent(Event):
    """A ping has arrived (RFC 6455 §5.5.2). The driver makes the pong by itself."""

    __slots__ = fields = ("data",)
    type = "ping"

    def __init__(self, data: bytes) -> None:
        self.data = data


class PongEvent(Event):
    """A pong has arrived (RFC 6455 §5.5.3), after a ping of ours or without one."""

    __slots__ = fields = ("data",)
    type = "pong"

    def __init__(self, data: bytes) -> None:
        self.data = data


class DrainEvent(Event):
    """The write buffer has fallen below its low-water mark: a slow peer has read."""

    __slots__ = ()
    type = "drain"


class ErrorEvent(Event):
    """A failure, for information. There is at most one, and a close event always follows."""

    __slots__ = fields = ("message",)
    type = "error"

    def __init__(self, message: str) -> None:
        self.message = message


class CloseEvent(Event):
    """The connection has ended; ``code`` and ``reason`` are None on the drafts."""

    __slots__ = fields = ("code", "reason")
    type = "close"

    def __init__(self, code: int | None, reason: str | None) -> None:
        self.code = code
        self.reason = reason
