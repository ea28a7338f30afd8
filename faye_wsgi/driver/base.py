"""The driver: the interface of every protocol version to the transport.

A driver begins where the opening handshake ends. There is one way in, ``receive_data``, which
returns messages and events; ``receive_eof`` is for the end of TCP. The ways out return the
bytes to send. A driver never raises for what a peer sends. After a failure it drops all that
arrives.

Compiled by Cython, with the types of ``base.pxd``. Python classes may derive from the compiled
one and override its methods.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from faye_wsgi.driver.events import CloseEvent, Data, ErrorEvent, Event
from faye_wsgi.driver.frames import CloseCode, NumberEnum

__all__ = ["STEP", "Driver", "Features", "ReadyState"]

STEP = 65536  # Bytes of a message that arrives: so many are progress.


class ReadyState(NumberEnum):
    """The state of a connection. The numbers are those of the W3C's WebSocket API."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class Features(NamedTuple):
    """What a protocol has. The transport looks here before it uses one of these."""

    closing_handshake: bool  # There are close frames; else TCP ends right after close().
    codes: bool  # The end has a close code.
    pongs: bool  # The peer answers a ping.
    binary: bool  # A message may be bytes.
    fragments: bool  # A message may be sent in several frames.


class Driver:
    """One connection's protocol, from the end of the opening handshake on.

    When the peer has sent a close frame, or has broken the protocol, the driver reports a
    CloseEvent. Messages can still be sent then, as answers to those that came before, until
    ``closing_frame`` is called.

    The methods of this class are those of the simplest protocol: it has no control frames, and
    the end of TCP is its end.
    """

    __slots__ = (
        "_ended",
        "is_tired",
        "is_unpacking",
        "max_work",
        "protocol",
        "state",
        "unfinished",
    )

    version = ""
    features = Features(
        closing_handshake=False, codes=False, pongs=False, binary=False, fragments=False
    )
    read_size = 65536  # The most bytes to pass to receive_data in one call.

    def __init__(self, protocol: str = "") -> None:
        self.protocol = protocol
        self.state = ReadyState.OPEN
        self._ended = False  # The close event has been reported.
        # The transport sets how much work a call of receive_data may be. The unit is a frame that
        # is read by itself, about two microseconds.
        self.max_work = sys.maxsize
        self.is_tired = False  # The last call has come to that: others should have their turn.
        self.is_unpacking = False  # A large message is half done, in a call without new bytes.
        # 0 if nothing has arrived in part. Else a number for the frame or message that has: another
        # one for each of them, and for each STEP bytes of a message.
        self.unfinished = 0

    # In

    def receive_data(self, data: bytes, room: int | None = None) -> list[Data | Event]:
        """Take bytes that have arrived; return the messages and events that they complete.

        They are in order. A message is a str or bytes, all else is an Event.

        ``room`` is the number of bytes of messages that the caller can store; None means no
        limit. It matters with extensions, which may inflate a message. Then the driver stops
        behind the first message that exceeds ``room``, or at once if ``room`` is below 0. It
        ``holds_back`` the other bytes, and the next call continues with them. It may do the same
        when the call has been as much work as ``max_work``.
        """
        return []

    def receive_eof(self) -> list[Event]:
        """RFC 6455 §7.1.5: take the end of TCP. The code is 1006 if no close frame came before."""
        events: list[Event] = []
        if not self._ended:
            self._end(events, CloseCode.ABNORMAL_CLOSURE, "")
        return events

    def fail(self, code: int, message: str) -> list[Event]:
        """RFC 6455 §7.1.7: fail the connection for what the transport has found."""
        events: list[Event] = []
        if not self._ended:
            self._fail(events, code, message)
        return events

    @property
    def missing(self) -> int:
        """Bytes of the arriving frame that are still to come; 0 if that is not known."""
        return 0

    @property
    def expected(self) -> int:
        """The most bytes of memory that the known part of the arriving message may take, or 0."""
        return 0

    @property
    def holds_back(self) -> bool:
        """Whether bytes wait here for a call of ``receive_data`` with more room."""
        return False

    # Out

    def message(self, message: str | bytes) -> bytes:
        """A whole message: text for a str, else binary.

        Raises TypeError if the protocol has no such messages, ExtensionError if an extension
        fails.
        """
        raise TypeError(f"{self.version} has no messages")

    def shared_message(self, message: str | bytes, shared: dict[Any, Any]) -> bytes:
        """The same, for a message that goes to many connections.

        All of their drivers get the same dict, ``shared``. A driver puts there what others can
        use, so that a frame is built, or a message compressed, only once.
        """
        return self.message(message)

    def large_message(self, message: str | bytes) -> tuple[bytes, bytes] | None:
        """A large message as a header and a payload; None where ``message`` should be used.

        The transport can send the payload without copying it behind the header.
        """
        return None

    def fragment(self, data: bytes, opcode: int, fin: bool) -> bytes:
        """One frame of a message that is sent in several.

        Raises TypeError if the protocol has no fragments.
        """
        raise TypeError(f"{self.version} has no fragmented messages")

    def ping(self, data: bytes) -> bytes | None:
        """A ping; None if the protocol has no pings."""
        return None

    def close(self, code: int, reason: str) -> bytes:
        """Begin the closing handshake: our close frame, or b'' if there is none to send."""
        if self.state == ReadyState.OPEN:
            self.state = ReadyState.CLOSING
        return b""

    def output(self) -> bytes:
        """What the driver itself has to send now: a pong for each ping, in order; or b''."""
        return b""

    def drop_pongs(self) -> None:
        """RFC 6455 §5.5.3: of the pongs that are owed, keep the latest one only.

        The transport calls this while the peer does not read. Otherwise a peer that sends
        pings and never reads would fill our memory with pongs.
        """

    def closing_frame(self) -> bytes:
        """Our answer to the peer's close frame or failure, or b''. It ends the driver.

        Nothing can be sent after it. A second call returns b''.
        """
        self.state = ReadyState.CLOSED
        return b""

    def _end(self, events: list[Any], code: int | None, reason: str | None) -> None:
        self._ended = True
        events.append(CloseEvent(code, reason))

    def _fail(self, events: list[Any], code: int, message: str) -> None:
        events.append(ErrorEvent(message))
        self._end(events, code, message)
