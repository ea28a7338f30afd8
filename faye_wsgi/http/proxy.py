"""The proxy step: CONNECT (RFC 9110 §9.3.6) opens a tunnel to the server."""

from __future__ import annotations

from collections.abc import Iterable

from faye_wsgi.errors import HandshakeError
from faye_wsgi.http.exchange import Exchange
from faye_wsgi.http.url import Url

__all__ = ["RESERVED_PROXY_HEADERS", "ProxyHandshake"]

RESERVED_PROXY_HEADERS = ("connection", "content-length", "host", "transfer-encoding", "upgrade")


class ProxyHandshake:
    """Asks ``proxy`` for a tunnel to ``server``, with the user's ``headers``."""

    def __init__(self, proxy: Url, server: Url, headers: Iterable[tuple[str, str]] = ()) -> None:
        added = list(headers)
        fields = [("Host", server.authority)]
        named = {name.lower() for name, _ in added}
        if proxy.authorization and "proxy-authorization" not in named:
            fields.append(("Proxy-Authorization", proxy.authorization))
        self._exchange = Exchange(
            "the proxy", "CONNECT", server.authority, fields + added, scheme=proxy.scheme
        )
        self.request = self._exchange.request

    @property
    def is_refused(self) -> bool:
        """Whether only the rest of a refusal's body is waited for."""
        return self._exchange.is_refused

    def receive_data(self, data: bytes) -> bool | None:
        """Take bytes of the answer: True once the tunnel is open, None before.

        HandshakeError: the proxy refuses, with ``status_code``, ``headers`` and the start
        of the body; or it gave no valid answer.
        """
        try:
            answer = self._exchange.receive_data(data)
        except HandshakeError as error:
            error.code = 1006  # and not 1002: the server has broken no protocol
            raise
        if answer is None:
            return None
        if answer.left:
            # In a WebSocket and in TLS the client speaks first: the server cannot have sent them.
            raise HandshakeError("the proxy sent bytes after its answer", code=1006)
        return True

    def receive_eof(self) -> HandshakeError:
        """The answer has ended, or took too long: the error for the user."""
        error = self._exchange.receive_eof()
        error.code = 1006
        return error
