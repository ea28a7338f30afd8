"""RFC 6455 §4.1, the client's opening handshake: a URL becomes a request, the answer a Driver.

``request`` is sent. The bytes of the answer go to ``receive_data`` until it returns
:class:`Opened` or raises HandshakeError.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Callable, NamedTuple

from faye_wsgi.driver.base import Driver
from faye_wsgi.driver.hybi import MAX_FRAGMENTS, MAX_LENGTH, Hybi
from faye_wsgi.driver.masking import random_bytes
from faye_wsgi.driver.server_handshake import RESERVED_HEADERS, accept_key
from faye_wsgi.errors import ExtensionError, HandshakeError, Headers
from faye_wsgi.extensions.base import Extension
from faye_wsgi.extensions.negotiation import ClientNegotiation, Pipeline
from faye_wsgi.http.exchange import Answer, Exchange
from faye_wsgi.http.headers import split_list
from faye_wsgi.http.url import Url

__all__ = ["RESERVED_HEADERS", "ClientHandshake", "Opened"]


class Opened(NamedTuple):
    """The result of a successful handshake. ``left`` are the bytes behind the answer's head."""

    driver: Driver
    left: bytes
    status_code: int
    headers: Headers


class ClientHandshake:
    """One opening handshake.

    ``headers`` are the user's own. ``protocols`` are offered in their order. ``random(n)``
    returns n unpredictable bytes.
    """

    def __init__(
        self,
        url: Url,
        *,
        protocols: Sequence[str] = (),
        headers: Iterable[tuple[str, str]] = (),
        extensions: Iterable[Extension] = (),
        max_length: int = MAX_LENGTH,
        max_fragments: int = MAX_FRAGMENTS,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self._protocols = protocols
        self._max_length = max_length
        self._max_fragments = max_fragments
        self._random = random
        self._negotiation = ClientNegotiation(extensions)
        key = base64.b64encode(random(16)).decode("ascii")
        self._accept = accept_key(key)
        fields = self._fields(url, key, list(headers))
        self._exchange = Exchange("the server", "GET", url.target, fields, scheme=url.scheme)
        self.request = self._exchange.request

    @property
    def is_refused(self) -> bool:
        """Whether the server has refused, and only its answer's body is still to come."""
        return self._exchange.is_refused

    def receive_data(self, data: bytes) -> Opened | None:
        """Take bytes of the answer: the open connection, or None while more are needed.

        Raises HandshakeError if the server refuses, or if its answer breaks the protocol.
        """
        answer = self._exchange.receive_data(data)
        if answer is None:
            return None
        self._check_switch(answer)
        driver = self._make_driver(self._read_protocol(answer), self._read_extensions(answer))
        return Opened(driver, answer.left, answer.status_code, answer.headers)

    def receive_eof(self) -> HandshakeError:
        """Take the end of TCP, which is too early: the error."""
        return self._exchange.receive_eof()

    def _fields(self, url: Url, key: str, added: list[tuple[str, str]]) -> list[tuple[str, str]]:
        named = {name.lower() for name, _ in added}
        fields = [] if "host" in named else [("Host", url.host_header)]
        fields += [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", key),
            ("Sec-WebSocket-Version", "13"),
        ]
        if self._protocols:
            fields.append(("Sec-WebSocket-Protocol", ", ".join(self._protocols)))
        if self._negotiation.header:
            fields.append(("Sec-WebSocket-Extensions", self._negotiation.header))
        if url.authorization and "authorization" not in named:
            fields.append(("Authorization", url.authorization))
        return fields + added

    def _check_switch(self, answer: Answer) -> None:
        if answer.http_version != "1.1":
            raise _bad(answer, f"it speaks HTTP/{answer.http_version}")
        for name, token in (("Upgrade", "websocket"), ("Connection", "upgrade")):
            value = answer.get(name.lower()) or ""
            if token not in (item.lower() for item in split_list(value)):
                raise _bad(answer, f"its {name} header does not say {token}")
        if answer.get("sec-websocket-accept") != self._accept:
            raise _bad(answer, "its Sec-WebSocket-Accept is missing or wrong")

    def _read_protocol(self, answer: Answer) -> str:
        protocol = answer.get("sec-websocket-protocol")
        if protocol is not None and protocol not in self._protocols:
            raise _bad(answer, f"it chose the subprotocol {protocol!r}, which was not offered")
        return protocol or ""

    def _read_extensions(self, answer: Answer) -> Pipeline | None:
        header = answer.get("sec-websocket-extensions") or ""
        try:
            return self._negotiation.activate(header, self._max_length)
        except ExtensionError as error:
            raise _bad(answer, str(error)) from None

    def _make_driver(self, protocol: str, pipeline: Pipeline | None) -> Driver:
        return Hybi(
            client=True,
            protocol=protocol,
            max_length=self._max_length,
            max_fragments=self._max_fragments,
            pipeline=pipeline,
            random=self._random,
        )


def _bad(answer: Answer, why: str) -> HandshakeError:
    return HandshakeError(
        f"the answer of the server is wrong: {why}",
        status_code=answer.status_code,
        headers=answer.headers,
    )
