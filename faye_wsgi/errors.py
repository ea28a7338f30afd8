"""The exceptions of faye_wsgi.

Wrong arguments raise the built-in ``TypeError`` and ``ValueError``, and a call that took too long
raises the built-in ``TimeoutError``. All other exceptions derive from :class:`WebSocketError`.
"""

from __future__ import annotations

from copyreg import __newobj__  # type: ignore[attr-defined]
from typing import Any

__all__ = [
    "BrokerError",
    "ConnectionClosed",
    "ExtensionError",
    "HandshakeError",
    "HijackError",
    "ProtocolError",
    "PublishError",
    "WebSocketError",
]

Headers = tuple[tuple[str, str], ...]

MAX_REASON = 500  # characters: a peer's own words may be in it, and it ends in logs


class HeaderPairs(Headers):
    """The pairs of an HTTP head in their order, and their values by name, in any case."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        """``headers['Location']``: the last value of that name, or KeyError; else a pair."""
        if not isinstance(key, str):
            return super().__getitem__(key)
        values = self.getall(key)
        if not values:
            raise KeyError(key)
        return values[-1]

    def __contains__(self, key: object) -> bool:
        return bool(self.getall(key)) if isinstance(key, str) else super().__contains__(key)

    def get(self, name: str, default: Any = None) -> Any:
        """The last value of a name, ``default`` where there is none."""
        values = self.getall(name)
        return values[-1] if values else default

    def getall(self, name: str) -> list[str]:
        """All values of a name."""
        return [value for key, value in self if key.lower() == name.lower()]


class WebSocketError(Exception):
    """The base of all errors of this package.

    They can be copied and pickled, without their ``target``.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # The target is a live connection, which no other process can use. ``__init__`` is left
        # out, because its arguments are not those of ``args``.
        state = {name: value for name, value in vars(self).items() if name != "target"}
        return __newobj__, (type(self), *self.args), state


class ConnectionClosed(WebSocketError):
    """The connection is closing or closed: nothing more can be sent or received.

    ``code`` is the close code of RFC 6455 §7.4 (1005: the peer gave none, 1006: TCP
    ended without a close frame), None on the drafts, which have no codes; ``reason``
    is the peer's or our own close reason; ``target`` is the WebSocket, Client or EventSource.
    """

    target: Any = None
    __notes__: list[str]

    def __init__(self, code: int | None = None, reason: str | None = None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        text = "connection closed" if self.code is None else f"connection closed with {self.code}"
        return f"{text}: {self.reason}" if self.reason else text


class HandshakeError(ConnectionClosed):
    """The opening handshake failed, so the connection never opened.

    On a server ``status_code``, ``headers`` and ``body`` are the HTTP error for the
    client; on a client they are the answer of the server (or the proxy), with the
    start of its body, and ``status_code`` is None where no answer came. ``headers`` are pairs,
    and give the value of a name in any case: ``error.headers['Location']``.
    """

    def __init__(
        self,
        reason: str,
        *,
        code: int = 1002,
        status_code: int | None = None,
        headers: Headers = (),
        body: bytes = b"",
    ) -> None:
        super().__init__(code, reason[:MAX_REASON])
        self.status_code = status_code
        self.headers = HeaderPairs(headers)
        self.body = body

    def __str__(self) -> str:
        status = "" if self.status_code is None else f" ({self.status_code})"
        return f"handshake failed{status}: {self.reason}"


class ProtocolError(WebSocketError):
    """The peer has broken the protocol; ``code`` is the close code of our reply."""

    def __init__(self, message: str, code: int = 1002) -> None:
        super().__init__(message)
        self.code = code


class ExtensionError(ProtocolError):
    """An extension cannot be agreed on, or cannot read a message."""


class HijackError(WebSocketError):
    """This WSGI server's socket cannot be taken; the text names the server and the cure."""


class BrokerError(WebSocketError):
    """The broker of channels could not be asked, or did not answer in time."""


class PublishError(BrokerError):
    """A publication was refused, or it is not known whether the broker has taken it.

    It was never delivered to a part of the subscribers only. To publish it again with the same
    ``key`` is safe: what was taken the first time is not taken twice.
    """


def is_end_of(target: Any, error: BaseException | None) -> bool:
    """Whether ``error`` is the ConnectionClosed of ``target``: of this connection, and no other."""
    return isinstance(error, ConnectionClosed) and error.target is target
