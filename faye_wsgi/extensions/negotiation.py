"""Agreeing on extensions in the opening handshake (RFC 6455 §9), and what comes of it.

The server calls :func:`negotiate`; the client makes a :class:`ClientNegotiation`, sends
its ``header`` and calls its ``activate``. Both give a :class:`Pipeline`, or None where
nothing was agreed on, so that a connection without extensions pays nothing for them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
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

_MAX_REASON = 123  # bytes in the reason of a close frame, RFC 6455 §5.5
_INCOMING, _OUTGOING = 1002, 1011  # the close codes of unexpected faults

log = logging.getLogger("faye_wsgi")


class Active(NamedTuple):
    """A session that was agreed on, and the extension that it is of."""

    extension: Extension
    session: Session


class Pipeline:
    """The sessions of one connection, in the order in which outgoing messages pass them.

    ``rsv_mask`` has the RSV bits (0x40, 0x20, 0x10) that a session owns: they may be set
    on the first frame of a text or binary message, and nowhere else. ``header`` is the
    value of ``Sec-WebSocket-Extensions`` in the response. Its methods raise nothing but
    :class:`ExtensionError`, whose text fits into a close frame.
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
        """What the peer's application sent, from a whole message as its frames had it."""
        for extension, session in self._incoming:
            try:
                message = session.process_incoming_message(message)
            except Exception as error:
                raise _fault(extension, error, _INCOMING) from error
        if len(message.data) > self._max_length:
            raise ExtensionError(f"a message is longer than {self._max_length} bytes", 1009)
        return message

    def process_outgoing(self, message: Message) -> Message:
        """What to put into frames: ``message.rsv`` goes into the first one's first byte."""
        for extension, session in self._outgoing:
            try:
                message = session.process_outgoing_message(message)
            except Exception as error:
                raise _fault(extension, error, _OUTGOING) from error
        if message.rsv & ~self.rsv_mask:
            raise ExtensionError("an extension set an RSV bit that is not its own", _OUTGOING)
        return message

    def process_shared(self, message: Message, shared: dict[Any, Any]) -> Message:
        """``process_outgoing`` of a message that goes to many, of which ``shared`` knows."""
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
        """Close every session, once; a session that fails at it is logged, no more."""
        sessions, self._outgoing, self._incoming = self._outgoing, [], []
        for extension, session in sessions:
            try:
                session.close()
            except Exception:
                log.exception("extension %s failed to close", extension.name)


def check_extensions(extensions: Extensions) -> tuple[Extension, ...]:
    """The option ``extensions`` (one, several or None) as a tuple.

    TypeError or ValueError for what is no extension, and for two of one name.
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
    """The server's part: choose from the client's offers, in the order of ``extensions``.

    ExtensionError: the header is malformed. What an extension itself raises here comes
    through as it is, for it is no fault of the peer's.
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
    """The client's part, for one handshake: ``header`` has the offers, '' if there are none."""

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
        """Take the header of the response ('' for none), in whose order messages are sent.

        ExtensionError fails the handshake: the header is malformed, names an extension
        that was not offered, names one twice, makes two use one RSV bit, or has
        parameters that do not fit the offer (RFC 6455 §9.1).
        """
        active: list[Active] = []
        reserved = 0
        for name, params in _parse(header):
            if name not in self._offered:
                raise ExtensionError(_cut(f"the server chose {name}, which was not offered"))
            # Taken out, so that the second of two fails as above.
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
    """One extension with its parameters, as it stands in the header.

    Values are tokens (RFC 6455 §9.1: even when unquoted), so nothing is ever quoted;
    ValueError for what could not be sent.
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
