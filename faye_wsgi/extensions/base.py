"""What an extension is, RFC 6455 §9: the three parts that an author writes.

An :class:`Extension` is a configuration, made once and shared by all connections. For
each connection it makes a session: a :class:`ServerSession` or a :class:`ClientSession`,
which agrees on parameters during the opening handshake and then sees every message.

Extensions work on whole messages ("permessage"): a session never sees a control frame,
and a fragmented message reaches it in one piece. To mark the messages that it changed,
an extension may own RSV bits: it says which (``rsv1``, ``rsv2``, ``rsv3``), sets them on
the messages it sends, and looks at them on those it receives. A bit has one owner on a
connection; a message from the peer with a bit that nobody owns fails the connection.

A whole one, which turns the bytes of binary messages around and marks them with RSV2::

    class Reverse(Extension):
        name = 'permessage-reverse'
        rsv2 = True

        def create_client_session(self):
            return ReverseSession()

        def create_server_session(self, offers):
            return ReverseSession()

    class ReverseSession:
        def generate_offer(self):
            return {}                       # offered, without parameters

        def activate(self, params):
            return not params               # none was offered, so none may come back

        def generate_response(self):
            return {}

        def process_incoming_message(self, message):
            if message.rsv2:
                message.data = message.data[::-1]
            return message

        def process_outgoing_message(self, message):
            if message.opcode == 2:
                message.rsv2 = True
                message.data = message.data[::-1]
            return message

        def close(self):
            pass
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Union

from faye_wsgi.http.headers import Parameters

__all__ = [
    "ClientSession",
    "Extension",
    "Message",
    "Offer",
    "OfferedParameters",
    "Parameters",
    "ServerSession",
    "Session",
]

# Parameters to send: True stands for a parameter without a value, False leaves it out.
OfferedParameters = Mapping[str, Union[str, int, bool]]
# None offers nothing; a sequence is a list of alternatives, best first (RFC 6455 §9.1).
Offer = Union[OfferedParameters, Sequence[OfferedParameters], None]


class Message:
    """A whole message between the driver and the sessions, which may change all of it.

    ``opcode`` is 1 (text, ``data`` in UTF-8) or 2 (binary); the RSV bits are those of its
    first frame (RFC 6455 §5.2).
    """

    __slots__ = ("data", "opcode", "rsv1", "rsv2", "rsv3")

    def __init__(
        self,
        opcode: int,
        data: bytes,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
    ) -> None:
        self.opcode = opcode
        self.data = data
        self.rsv1 = rsv1
        self.rsv2 = rsv2
        self.rsv3 = rsv3

    @classmethod
    def from_frame(cls, first: int, data: bytes) -> Message:
        """The message whose first frame begins with the byte ``first``."""
        return cls(first & 15, data, bool(first & 0x40), bool(first & 0x20), bool(first & 0x10))

    @property
    def rsv(self) -> int:
        """The RSV bits where a frame's first byte has them: 0x40, 0x20, 0x10."""
        return self.rsv1 << 6 | self.rsv2 << 5 | self.rsv3 << 4


class Session(Protocol):
    """What both roles' sessions have in common: the extension on one connection.

    A session needs no base class. ``max_length`` is the most bytes that an incoming
    message may have; it is set on the session before the first message. A session that
    makes messages longer must look at it *while* it does so. What a session keeps for a
    connection it makes when the first message needs it: sessions of failed handshakes
    are just forgotten.

    Only one message is processed at a time, in either direction. To fail the connection
    a method raises ``ExtensionError(text, code)``: 1002 (the default) where the peer
    broke the extension's rules, 1007 for data that cannot be read, 1009 where it is too
    large. Any other exception is a fault of the extension's own and fails the connection
    too (1002 for an incoming message, 1011 for an outgoing one).

    A session that makes the same of a message as those of other connections may have a
    method ``process_shared_message(message, shared)``: for a message that goes to many, it
    is called instead of ``process_outgoing_message`` where no other extension is active.
    ``shared`` is a dict for what they have in common, under a key that only they use; a
    message from it must not be changed any more.
    """

    max_length: int

    def process_incoming_message(self, message: Message) -> Message:
        """Undo what the peer's session did: the message itself, changed, or a new one."""

    def process_outgoing_message(self, message: Message) -> Message:
        """Change what is sent, and set the extension's RSV bits where the peer must know."""

    def close(self) -> None:
        """The connection has ended: let go of everything. Called once, raises nothing."""


class ServerSession(Session, Protocol):
    """An extension on one connection of a server."""

    def generate_response(self) -> OfferedParameters:
        """The parameters that were agreed on, for the response; {} for none."""


class ClientSession(Session, Protocol):
    """An extension on one connection of a client."""

    def generate_offer(self) -> Offer:
        """The parameters to offer; {} for none, a list for alternatives, None not to offer."""

    def activate(self, params: Parameters) -> bool:
        """Take the parameters of the response; False, if they do not fit, fails the handshake.

        A parameter without a value is True, all others are str.
        """


class Extension:
    """The base of extensions: an immutable configuration, shared by all connections."""

    name: str  # the token in Sec-WebSocket-Extensions
    type: str = "permessage"  # there is no other
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    def create_client_session(self) -> ClientSession | None:
        """A session for a new connection of a client; None not to offer the extension."""
        raise NotImplementedError

    def create_server_session(self, offers: Sequence[Parameters]) -> ServerSession | None:
        """A session for a new connection of a server; None declines.

        ``offers`` has the parameters of each of the client's offers of this extension, in
        its order of preference; it comes from the peer and may hold anything that the
        header's grammar allows. A parameter without a value is True, all others are str.
        """
        raise NotImplementedError
