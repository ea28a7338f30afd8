"""The driver: what the transport sees of every protocol version.

A driver begins where the opening handshake ends. There is one way in: ``receive_data``
returns messages and events (``receive_eof`` those of the end of TCP). The ways out return the
bytes to send. A driver never raises for what a peer sends, and after a failure it swallows
everything.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from faye_wsgi.driver.events import CloseEvent, Data, ErrorEvent, Event
from faye_wsgi.driver.frames import CloseCode, NumberEnum

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

    This class has what the simplest protocol does, which has no control frames and ends
    with TCP.
    """

    __slots__ = ("_ended", "protocol", "state")

    version = ""
    features = Features(
        closing_handshake=False, codes=False, pongs=False, binary=False, fragments=False
    )
    read_size = 65536  # bytes that receive_data should get at a time

    def __init__(self, protocol: str = "") -> None:
        self.protocol = protocol
        self.state = ReadyState.OPEN
        self._ended = False  # the close event has been reported

    # In

    def receive_data(self, data: bytes, room: int | None = None) -> list[Data | Event]:
        """Take bytes that arrived; return what they complete, in order.

        A message is a str or bytes. Everything else is an event.

        ``room`` is how many bytes of messages the caller has room for; None: for any number.
        A driver with extensions, which may make a message much longer, stops behind the one
        that takes more than that, and at once where ``room`` is below 0. It then ``holds_back``
        the rest, which comes before the data of the next call.
        """
        return []

    def receive_eof(self) -> list[Event]:
        """Take the end of TCP: 1006 if no close frame came before it (RFC 6455 §7.1.5)."""
        events: list[Event] = []
        if not self._ended:
            self._end(events, CloseCode.ABNORMAL_CLOSURE, "")
        return events

    @property
    def missing(self) -> int:
        """How many bytes are known to be on their way, 0 mostly."""
        return 0

    @property
    def expected(self) -> int:
        """The most bytes that the arriving message may take, as far as is known; 0 between two."""
        return 0

    @property
    def holds_back(self) -> bool:
        """Whether bytes wait in the driver for a call of ``receive_data`` with more room."""
        return False

    # Out

    def message(self, message: str | bytes) -> bytes:
        """A whole message: text for a str, else binary.

        TypeError where the version has no such messages, ExtensionError where an extension
        fails.
        """
        raise TypeError(f"{self.version} has no messages")

    def shared_message(self, message: str | bytes, shared: dict[Any, Any]) -> bytes:
        """``message`` for one that goes to many connections.

        ``shared`` has what the drivers of the other connections made of it.
        """
        return self.message(message)

    def large_message(self, message: str | bytes) -> tuple[bytes, bytes] | None:
        """A large message as a header and a payload; None where ``message`` does better."""
        return None

    def fragment(self, data: bytes, opcode: int, fin: bool) -> bytes:
        """A piece of a message that is sent in several frames; TypeError where there are none."""
        raise TypeError(f"{self.version} has no fragmented messages")

    def ping(self, data: bytes) -> bytes | None:
        """A ping, None where the version has none."""
        return None

    def close(self, code: int, reason: str) -> bytes:
        """Begin the closing handshake: the close frame, b'' if there has been one."""
        if self.state == ReadyState.OPEN:
            self.state = ReadyState.CLOSING
        return b""

    def output(self) -> bytes:
        """What the driver owes the peer now: a pong for each ping, in order; b'' mostly."""
        return b""

    def drop_pongs(self) -> None:
        """Keep the latest of the pongs that are owed (RFC 6455 §5.5.3 needs no other).

        For a peer that sends pings and does not read: its pongs would fill the memory.
        """

    def closing_frame(self) -> bytes:
        """The close frame owed to a peer that closed or failed; nothing can be sent after it."""
        self.state = ReadyState.CLOSED
        return b""

    def _end(self, events: list[Any], code: int | None, reason: str | None) -> None:
        self._ended = True
        events.append(CloseEvent(code, reason))

    def _fail(self, events: list[Any], code: int, message: str) -> None:
        events.append(ErrorEvent(message))
        self._end(events, code, message)
