"""The driver: what the transport sees of every protocol version.

A driver begins where the opening handshake ends. ``receive_data`` and ``receive_eof``
return events; ``text``, ``binary``, ``ping`` and ``close`` return the bytes to send;
``output`` and ``closing_frame`` return what the protocol itself owes the peer. It never
raises for what a peer sends, and after a failure it swallows everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from faye_wsgi.driver.events import CloseEvent, Data, ErrorEvent, Event
from faye_wsgi.driver.frames import CloseCode, NumberEnum
from faye_wsgi.driver.masking import Buffer

__all__ = ["Driver", "Features", "ReadyState"]


class ReadyState(NumberEnum):
    """The state of a connection, with the numbers of the W3C's WebSocket API."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class Features(NamedTuple):
    """What a protocol has; the transport asks here before it uses any of it."""

    closing_handshake: bool  # else close() is followed by the end of TCP
    codes: bool  # the end has a close code
    pongs: bool  # a ping is answered
    binary: bool  # a message may be bytes
    fragments: bool  # a message may go out in several frames


class Driver:
    """One connection's protocol, from the end of the opening handshake on.

    When the peer has closed, or has failed, the driver reports its CloseEvent and still
    lets messages out, so that those that came before can be answered, until
    ``closing_frame`` is taken.
    """

    __slots__ = ("_ended", "protocol", "state")

    version: str
    features: Features
    read_size = 65536  # bytes that receive_data should get at a time

    def __init__(self, protocol: str = "") -> None:
        self.protocol = protocol
        self.state = ReadyState.OPEN
        self._ended = False  # the close event has been reported

    def receive_data(self, data: bytes, room: int | None = None) -> list[Event]:
        """Take bytes that arrived; return the events that they complete, in order.

        ``room`` is how many bytes of messages the caller has room for; None: for any number.
        A driver with extensions, which may make a message much longer, stops behind the one
        that takes more than that, and at once where ``room`` is below 0. It then ``holds_back``
        the rest, which comes before the data of the next call.
        """
        raise NotImplementedError

    def receive_messages(self, data: bytes) -> tuple[Sequence[Data], bytes]:
        """The short way for what is nearly all of the traffic: whole messages, and no more.

        Returns the messages that ``data`` begins with, and the rest of it, which (unless it
        is empty) goes to ``receive_data``. Together they are ``receive_data``'s events.
        """
        return (), data

    def receive_eof(self) -> list[Event]:
        """Take the end of the peer's bytes; 1006 unless it said goodbye (RFC 6455 §7.1.5)."""
        events: list[Event] = []
        if not self._ended:
            self._end(events, CloseCode.ABNORMAL_CLOSURE, "")
        return events

    @property
    def holds_back(self) -> bool:
        """Whether bytes wait in the driver for a call of ``receive_data`` with more room."""
        return False

    @property
    def build(self) -> Callable[[str | bytes], bytes]:
        """A function that does what ``message`` does, maybe faster."""
        return self.message

    def message(self, message: str | bytes) -> bytes:
        """A text message for a str, a binary one for bytes."""
        return self.text(message) if isinstance(message, str) else self.binary(message)

    @property
    def shares_frames(self) -> bool:
        """Whether the frame of a message is the same on all connections that say so."""
        return False

    def shared_message(self, message: str | bytes, shared: dict[Any, Any]) -> bytes:
        """``message`` for one that goes to many: ``shared`` has what drivers made for others.

        Under None it has the frame of those whose ``shares_frames`` is true.
        """
        return self.message(message)

    def large_message(self, message: str | bytes) -> tuple[bytes, bytes] | None:
        """A large message as a header and a payload; None where ``message`` does better."""
        return None

    @property
    def missing(self) -> int:
        """How many bytes are known to be on their way, 0 mostly."""
        return 0

    @property
    def expected(self) -> int:
        """The most bytes that the arriving message may take, as far as is known; 0 between two."""
        return 0

    def text(self, message: str) -> bytes:
        """A text message; ExtensionError where an extension fails at it."""
        raise NotImplementedError

    def binary(self, message: Buffer) -> bytes:
        """A binary message; TypeError where the version has none."""
        raise NotImplementedError

    def fragment(self, data: bytes, opcode: int, fin: bool) -> bytes:
        """A piece of a message that is sent in several frames; TypeError where there are none."""
        raise NotImplementedError

    def ping(self, data: bytes) -> bytes | None:
        """A ping, None where the version has none."""
        raise NotImplementedError

    def close(self, code: int, reason: str) -> bytes:
        """Begin the closing handshake: the close frame, b'' if there has been one."""
        raise NotImplementedError

    def output(self) -> bytes:
        """What the driver owes the peer now: a pong for each ping, in order; b'' mostly."""
        return b""

    def drop_pongs(self) -> None:
        """Keep the latest of the pongs that are owed (RFC 6455 §5.5.3 needs no other).

        For a peer that sends pings and does not read: its pongs would fill the memory.
        """

    def closing_frame(self) -> bytes:
        """The close frame owed to a peer that closed or failed; nothing can be sent after it."""
        raise NotImplementedError

    def _end(self, events: list[Event], code: int | None, reason: str | None) -> None:
        self._ended = True
        events.append(CloseEvent(code, reason))

    def _fail(self, events: list[Event], code: int, message: str) -> None:
        events.append(ErrorEvent(message))
        self._end(events, code, message)
