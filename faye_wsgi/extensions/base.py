"""RFC 6455 §9, extensions: the three parts that an author writes.

An :class:`Extension` is a configuration. It is made once and shared by all connections. For
each connection it makes a session: a :class:`ServerSession` or a :class:`ClientSession`. The
session agrees on parameters during the opening handshake, and then processes every message.

Extensions work on whole messages ("permessage"). A session never gets a control frame, and it
gets a fragmented message in one piece. An extension may own RSV bits, to mark the messages
that it has changed. It declares them (``rsv1``, ``rsv2``, ``rsv3``), sets them on messages
that it sends, and reads them on messages that it receives. On a connection, a bit belongs to
one extension. A message from the peer with a bit that belongs to none fails the connection.

An example, which reverses the bytes of binary messages and marks these with RSV2::

    class Reverse(Extension):
        name = 'permessage-reverse'
        rsv2 = True

        def create_client_session(self):
            return ReverseSession()

        def create_server_session(self, offers):
            return ReverseSession()

    class ReverseSession:
        def generate_offer(self):
            return {}                       # offered without parameters

        def activate(self, params):
            return not params               # none were offered, so none may come back

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

# Parameters to send: True is a parameter without a value, False leaves the parameter out.
OfferedParameters = Mapping[str, Union[str, int, bool]]
# RFC 6455 §9.1: a sequence is a list of alternatives, the best one first. None is no offer.
Offer = Union[OfferedParameters, Sequence[OfferedParameters], None]


class Message:
    """A whole message. The driver passes it to the sessions, which may change all of it.

    RFC 6455 §5.2: ``opcode`` is 1 (text, with ``data`` in UTF-8) or 2 (binary). The RSV bits
    are those of the first frame.
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
        """The RSV bits as in a frame's first byte: 0x40, 0x20, 0x10."""
        return self.rsv1 << 6 | self.rsv2 << 5 | self.rsv3 << 4


class Session(Protocol):
    """The methods that the sessions of both roles have.

    A session needs no base class. ``max_length`` is the most bytes that an incoming message
    may have. It is set on the session before the first message. A session that makes messages
    longer must check it *while* it does so, and not afterwards. A session should allocate
    what it needs when the first message comes: the sessions of a failed handshake are never
    closed.

    Messages are processed one at a time, in both directions. A method that raises
    ``ExtensionError(text, code)`` fails the connection. The code is 1002 (the default) if the
    peer broke the extension's rules, 1007 if the data cannot be read, 1009 if it is too large.
    Any other exception is an error in the extension. It fails the connection, too: with 1002
    for an incoming message, with 1011 for an outgoing one.

    The sessions of many connections may all change a message in the same way. Then they can
    share the result: a message to many connections goes to the session's method
    ``process_shared_message(message, shared)``, if it has one and no other extension is active,
    instead of ``process_outgoing_message``. ``shared`` is a dict that all of them get. The
    extension stores results in it, under keys that only this extension uses. A stored message
    must not be changed again.

    A session that makes messages many times longer should not do it in one go: meanwhile no other
    connection is served. So a received message of 1 KiB or more goes to the session's method
    ``process_incoming_in_steps(message)``, if it has one. That is a generator, which returns the
    message, and which yields None about every 0.3 milliseconds (permessage-deflate: after each
    128 KiB). It may be closed before its end, as any generator: then the connection has ended.
    """

    max_length: int

    def process_incoming_message(self, message: Message) -> Message:
        """Undo the peer's changes. Returns the same message, or a new one."""

    def process_outgoing_message(self, message: Message) -> Message:
        """Change a message to send, and set the extension's RSV bits to tell the peer."""

    def close(self) -> None:
        """The connection has ended: release everything. It is called once, and never raises."""


class ServerSession(Session, Protocol):
    """An extension on one connection of a server."""

    def generate_response(self) -> OfferedParameters:
        """The parameters of the response; {} for none."""


class ClientSession(Session, Protocol):
    """An extension on one connection of a client."""

    def generate_offer(self) -> Offer:
        """The parameters to offer: {} for none, a list for alternatives, None for no offer."""

    def activate(self, params: Parameters) -> bool:
        """Take the parameters of the response. False fails the handshake: they do not fit.

        A parameter without a value is True. All other values are str.
        """


class Extension:
    """The base class of extensions: a constant configuration, shared by all connections."""

    name: str  # the token in Sec-WebSocket-Extensions
    type: str = "permessage"  # There is no other type.
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    def create_client_session(self) -> ClientSession | None:
        """A session for a new connection of a client; None to offer nothing."""
        raise NotImplementedError

    def create_server_session(self, offers: Sequence[Parameters]) -> ServerSession | None:
        """A session for a new connection of a server; None to decline.

        ``offers`` has the parameters of each offer of this extension, in the order that the
        client prefers. They come from the peer, and may be anything that the grammar of the
        header allows. A parameter without a value is True. All other values are str.
        """
        raise NotImplementedError
