"""RFC 6455 §4.2, the server's opening handshake: a parsed request becomes a Driver."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Callable, Optional, Union

from faye_wsgi.driver.base import Driver
from faye_wsgi.driver.hybi import MAX_FRAGMENTS, MAX_LENGTH, Hybi
from faye_wsgi.errors import ExtensionError, HandshakeError
from faye_wsgi.extensions.base import Extension
from faye_wsgi.extensions.negotiation import Pipeline, negotiate
from faye_wsgi.http.headers import is_token, split_list
from faye_wsgi.http.messages import Request, Response

__all__ = [
    "PLAIN",
    "RESERVED_HEADERS",
    "STRIPPED",
    "Protocols",
    "accept_key",
    "check_protocols",
    "choose_protocol",
    "handshake",
    "is_stripped",
    "refusal",
]

Protocols = Union[str, Iterable[str], Callable[[list[str]], Optional[str]], None]

# The headers of the handshake itself, which the user cannot set.
RESERVED_HEADERS = (
    "connection",
    "content-length",
    "sec-websocket-",
    "transfer-encoding",
    "upgrade",
    "websocket-",
)
PLAIN = "this is a WebSocket: connect with ws:// or wss://"
STRIPPED = (
    "this WebSocket request has lost its header Upgrade or Connection in a proxy. nginx needs "
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


def accept_key(key: str) -> str:
    """RFC 6455 §4.2.2: the ``Sec-WebSocket-Accept`` that answers a ``Sec-WebSocket-Key``."""
    return base64.b64encode(sha1((key + _GUID).encode("latin-1")).digest()).decode("ascii")


def check_protocols(protocols: Protocols) -> list[str] | Callable[..., str | None]:
    """The option ``protocols`` as a list or callable; ValueError if a name is not a token."""
    if callable(protocols):
        return protocols
    names = split_list(protocols) if isinstance(protocols, str) else list(protocols or ())
    for name in names:
        if not isinstance(name, str) or not is_token(name):
            raise ValueError(f"{name!r} is no subprotocol name")
    return names


def handshake(
    request: Request,
    *,
    protocols: Protocols = None,
    headers: Sequence[tuple[str, str]] = (),
    max_length: int = MAX_LENGTH,
    max_fragments: int = MAX_FRAGMENTS,
    extensions: Sequence[Extension] = (),
) -> tuple[Driver, Response]:
    """Answer an opening handshake: the driver of the connection, and the response to send.

    If the request is bad, this raises HandshakeError with the HTTP error to send instead.
    """
    _check_request(request)
    key = _read_key(request)
    protocol = choose_protocol(request.headers.get("sec-websocket-protocol", ""), protocols)
    pipeline = _negotiate(request, extensions, max_length)
    answer = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(key)),
    ]
    if protocol:
        answer.append(("Sec-WebSocket-Protocol", protocol))
    if pipeline is not None:
        answer.append(("Sec-WebSocket-Extensions", pipeline.header))
    driver = Hybi(
        protocol=protocol,
        max_length=max_length,
        max_fragments=max_fragments,
        pipeline=pipeline,
    )
    return driver, Response(101, [*answer, *headers])


def refusal(
    status_code: int, reason: str, headers: Sequence[tuple[str, str]] = ()
) -> HandshakeError:
    """The HTTP error that answers a bad handshake, in plain text."""
    return HandshakeError(
        reason,
        status_code=status_code,
        headers=(("Content-Type", "text/plain; charset=utf-8"), *headers),
        body=f"{reason}\n".encode(),
    )


def _check_request(request: Request) -> None:
    upgrades = request.has_token("upgrade", "websocket")
    if request.method == "GET" and "upgrade" not in request.headers:
        # RFC 9110 §15.5.22: a plain request is told what to upgrade to.
        switch = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
        raise refusal(426, STRIPPED if is_stripped(request) else PLAIN, switch)
    if request.method != "GET" or not upgrades or not request.has_token("connection", "upgrade"):
        raise refusal(400, STRIPPED if is_stripped(request) else "not a WebSocket request")
    if not request.http_version.startswith("HTTP/1.") or request.http_version == "HTTP/1.0":
        raise refusal(400, "a WebSocket request needs HTTP/1.1")
    if request.has_body:
        raise refusal(400, "a WebSocket request has no body")
    if request.headers.get("sec-websocket-version", "").strip(" \t") != "13":
        # RFC 6455 §4.2.2, §4.4: name the versions that we support.
        raise refusal(426, "unsupported WebSocket version", (("Sec-WebSocket-Version", "13"),))


def is_stripped(request: Request) -> bool:
    """Whether a client asked for a WebSocket, and a proxy has dropped what asks for it."""
    if request.method != "GET" or "sec-websocket-key" not in request.headers:
        return False
    if "upgrade" not in request.headers:
        return True
    is_joined = request.has_token("connection", "upgrade")
    return request.has_token("upgrade", "websocket") and not is_joined


def _read_key(request: Request) -> str:
    key = request.headers.get("sec-websocket-key", "").strip(" \t")
    if not _KEY.fullmatch(key):
        raise refusal(400, "bad or missing Sec-WebSocket-Key")
    return key


def choose_protocol(offer: str, protocols: Protocols) -> str:
    """RFC 6455 §4.2.2: the first of the client's subprotocols that we support, '' for none."""
    if protocols is None:
        return ""
    offered = [name for name in split_list(offer) if is_token(name)]
    supported = check_protocols(protocols)
    if not callable(supported):
        return next((name for name in offered if name in supported), "")
    chosen = supported(offered)
    if chosen is not None and chosen not in offered:
        raise ValueError(f"protocols chose {chosen!r}, which the client did not offer")
    return chosen or ""


def _negotiate(
    request: Request, extensions: Sequence[Extension], max_length: int
) -> Pipeline | None:
    try:
        return negotiate(
            extensions, request.headers.get("sec-websocket-extensions", ""), max_length
        )
    except ExtensionError as error:
        raise refusal(400, f"bad Sec-WebSocket-Extensions: {error}") from None
