"""RFC 6455 §9: the negotiation of extensions in the opening handshake, and its result.

The server calls :func:`negotiate`. The client makes a :class:`ClientNegotiation`, sends its
``header`` and calls its ``activate``. The result is a :class:`Pipeline`, or None if the two
sides agreed on no extension. So a connection without extensions has no cost from them.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping
from typing import Any, NamedTuple, Union

from faye_wsgi.errors import ExtensionError
from faye_wsgi.extensions.base import (
    ClientSession,
    Extension,
    Message,
    Offer,
    OfferedParameters,
    Session,
)
from faye_wsgi.http.headers import Parameters, is_token, parse_extensions

__all__ = [
    "ClientNegotiation",
    "Extensions",
    "Pipeline",
    "check_extensions",
    "negotiate",
    "serialize",
]

Extensions = Union[Extension, Iterable[Extension], None]

_MAX_REASON = 123  # RFC 6455 §5.5: the most bytes in the reason of a close frame
_INCOMING, _OUTGOING = 1002, 1011  # The close codes of an error in an extension.

log = logging.getLogger("faye_wsgi")


class Active(NamedTuple):
    """A session that is in use, and its extension."""

    extension: Extension
    session: Session


class Pipeline:
    """The sessions of one connection, in the order in which they process outgoing messages.

    ``rsv_mask`` has the RSV bits (0x40, 0x20, 0x10) that belong to a session. They may be set
    on the first frame of a text or binary message, and nowhere else. ``header`` is the value
    of ``Sec-WebSocket-Extensions`` in the response. The methods raise :class:`ExtensionError`
    only, with a text that fits into a close frame.
    """

    __slots__ = ("_incoming", "_max_length", "_outgoing", "header", "rsv_mask")

    def __init__(self, active: Iterable[Active], header: str, max_length: int) -> None:
        self._outgoing = list(active)
        self._incoming = self._outgoing[::-1]
        self._max_length = max_length
        self.header = header
        self.rsv_mask = 0
        for extension, session in self._outgoing:
            self.rsv_mask |= _rsv_bits(extension)
            session.max_length = max_length

    def process_incoming(self, message: Message) -> Message:
        """A received message, with the changes of the peer's extensions undone."""
        for extension, session in self._incoming:
            try:
                message = session.process_incoming_message(message)
            except Exception as error:
                raise _fault(extension, error, _INCOMING) from error
        return self._check_length(message)

    def process_in_steps(self, message: Message) -> Generator[None, None, Message]:
        """The same in steps, with those sessions that know of them: it yields between two."""
        for extension, session in self._incoming:
            process = getattr(session, "process_incoming_in_steps", None)
            try:
                if process is None:
                    message = session.process_incoming_message(message)
                else:
                    message = yield from process(message)
            except Exception as error:
                raise _fault(extension, error, _INCOMING) from error
        return self._check_length(message)

    def _check_length(self, message: Message) -> Message:
        if len(message.data) > self._max_length:
            raise ExtensionError(f"a message is longer than {self._max_length} bytes", 1009)
        return message

    def process_outgoing(self, message: Message) -> Message:
        """A message as it is to be sent. ``message.rsv`` goes into the first byte of its frame."""
        for extension, session in self._outgoing:
            try:
                message = session.process_outgoing_message(message)
            except Exception as error:
                raise _fault(extension, error, _OUTGOING) from error
        if message.rsv & ~self.rsv_mask:
            raise ExtensionError("an extension set an RSV bit that is not its own", _OUTGOING)
        return message

    def process_shared(self, message: Message, shared: dict[Any, Any]) -> Message:
        """The same for a message that goes to many connections, which all pass this ``shared``."""
        if len(self._outgoing) == 1:
            extension, session = self._outgoing[0]
            process = getattr(session, "process_shared_message", None)
            if process is not None:
                try:
                    return process(message, shared)  # type: ignore[no-any-return]
                except Exception as error:
                    raise _fault(extension, error, _OUTGOING) from error
        return self.process_outgoing(message)

    def close(self) -> None:
        """Close every session, once. If one raises, that is logged and the others are closed."""
        sessions, self._outgoing, self._incoming = self._outgoing, [], []
        for extension, session in sessions:
            try:
                session.close()
            except Exception:
                log.exception("extension %s failed to close", extension.name)


def check_extensions(extensions: Extensions) -> tuple[Extension, ...]:
    """The option ``extensions`` (one, several or None) as a tuple.

    Raises TypeError or ValueError if one is not an extension, or if two have the same name.
    """
    if extensions is None:
        return ()
    several = tuple(extensions) if isinstance(extensions, Iterable) else (extensions,)
    for extension in several:
        _check_extension(extension)
    if len({extension.name for extension in several}) < len(several):
        raise ValueError("an extension is registered twice")
    return several


def _check_extension(extension: Extension) -> None:
    name = getattr(extension, "name", None)
    if isinstance(extension, type) or not isinstance(name, str):
        raise TypeError(f"{extension!r} is no extension: pass an instance of one")
    if not is_token(name):
        raise ValueError(f"{name!r} is no name of an extension")
    if extension.type != "permessage":
        raise ValueError(f"extension {name} is of type {extension.type!r}, not permessage")
    if not all(isinstance(bit, bool) for bit in (extension.rsv1, extension.rsv2, extension.rsv3)):
        raise TypeError(f"extension {name} must say rsv1, rsv2 and rsv3 as bool")


def negotiate(extensions: Iterable[Extension], header: str, max_length: int) -> Pipeline | None:
    """The server's side: choose from the client's offers, in the order of ``extensions``.

    Raises ExtensionError if the header is malformed. An exception of an extension is passed
    on as it is, because the peer did not cause it.
    """
    if not header:
        return None
    offers = _group(_parse(header))
    active: list[Active] = []
    responses: list[str] = []
    reserved = 0
    for extension in extensions:
        bits = _rsv_bits(extension)
        if extension.name not in offers or bits & reserved:
            continue
        session = extension.create_server_session(offers[extension.name])
        if session is not None:
            responses.append(serialize(extension.name, session.generate_response()))
            active.append(Active(extension, session))
            reserved |= bits
    return Pipeline(active, ", ".join(responses), max_length) if active else None


class ClientNegotiation:
    """The client's side, for one handshake. ``header`` has the offers; '' means no offers."""

    def __init__(self, extensions: Iterable[Extension]) -> None:
        self._offered: dict[str, tuple[Extension, ClientSession]] = {}
        offers: list[str] = []
        for extension in extensions:
            session = extension.create_client_session()
            alternatives = _alternatives(session.generate_offer()) if session else []
            if session and alternatives:
                self._offered[extension.name] = extension, session
                offers += [serialize(extension.name, params) for params in alternatives]
        self.header = ", ".join(offers)

    def activate(self, header: str, max_length: int) -> Pipeline | None:
        """RFC 6455 §9.1: take the header of the response; '' if there was none.

        Its order is the order in which the extensions process outgoing messages. Raises
        ExtensionError, which fails the handshake, if the header is malformed, names an
        extension that was not offered, names one twice, gives two the same RSV bit, or has
        parameters that do not fit the offer.
        """
        active: list[Active] = []
        reserved = 0
        for name, params in _parse(header):
            if name not in self._offered:
                raise ExtensionError(_cut(f"the server chose {name}, which was not offered"))
            # It is removed, so that naming it a second time fails as above.
            extension, session = self._offered.pop(name)
            bits = _rsv_bits(extension)
            if bits & reserved:
                raise ExtensionError(_cut(f"{name} needs an RSV bit that another one has"))
            if session.activate(params) is not True:
                raise ExtensionError(_cut(f"the parameters of {name} do not fit its offer"))
            active.append(Active(extension, session))
            reserved |= bits
        return Pipeline(active, header, max_length) if active else None


def serialize(name: str, params: OfferedParameters) -> str:
    """One extension with its parameters, as in the header.

    RFC 6455 §9.1: a value is a token, even if it is quoted, so nothing is quoted here. Raises
    ValueError for a value that is not a token.
    """
    parts = [name]
    for key, value in params.items():
        text = "" if value is True else str(value)
        if not is_token(key) or (value is not True and not is_token(text)):
            raise ValueError(f"extension {name}: {key!r}={value!r} is no parameter")
        if value is not False:
            parts.append(f"{key}={text}" if text else key)
    return "; ".join(parts)


def _parse(header: str) -> list[tuple[str, Parameters]]:
    try:
        return parse_extensions(header)
    except ValueError as error:
        raise ExtensionError(str(error)) from None


def _group(offers: list[tuple[str, Parameters]]) -> dict[str, list[Parameters]]:
    grouped: dict[str, list[Parameters]] = {}
    for name, params in offers:
        grouped.setdefault(name, []).append(params)
    return grouped


def _alternatives(offer: Offer) -> list[OfferedParameters]:
    if offer is None:
        return []
    return [offer] if isinstance(offer, Mapping) else list(offer)


def _rsv_bits(extension: Extension) -> int:
    return extension.rsv1 << 6 | extension.rsv2 << 5 | extension.rsv3 << 4


def _fault(extension: Extension, error: Exception, code: int) -> ExtensionError:
    if isinstance(error, ExtensionError):
        code = error.code
    return ExtensionError(_cut(f"{extension.name}: {error}"), code)


def _cut(reason: str) -> str:
    return reason.encode("utf-8", "replace")[:_MAX_REASON].decode("utf-8", "ignore")
