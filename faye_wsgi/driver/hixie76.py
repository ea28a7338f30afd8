"""draft-hixie-thewebsocketprotocol-76: hixie-75 with a challenge and a closing handshake.

Section numbers are the draft's. The challenge is two keys in the head of the request, and
eight bytes after it. The server answers with 16 bytes after its own head. So a driver starts
in CONNECTING, and is open when the eight bytes have arrived.
"""

from __future__ import annotations

import re
from functools import partial
from hashlib import md5
from typing import Any, Callable

from faye_wsgi.driver import hixie75
from faye_wsgi.driver.base import Driver, ReadyState
from faye_wsgi.driver.events import Data, Event, OpenEvent
from faye_wsgi.driver.hixie75 import Hixie75
from faye_wsgi.driver.hybi import MAX_LENGTH
from faye_wsgi.driver.server_handshake import refusal
from faye_wsgi.http.messages import Request, Response

__all__ = ["Hixie76", "find_handshake", "handshake"]

BODY_LENGTH = 8
MAX_NUMBER = 2**32 - 1
_CLOSING_FRAME = b"\xff\x00"
_DIGIT = re.compile("[0-9]")


class Hixie76(Hixie75):
    """The driver of hixie-76, for servers.

    ``challenge`` has the numbers of the request's two keys, in 8 bytes. The answer to it goes
    out before anything else: the first output, message or close frame begins with it.
    """

    __slots__ = ("_answer", "_body", "_challenge", "_is_close_owed")

    version = "hixie-76"
    header_prefix = "Sec-WebSocket-"
    phrase = "WebSocket Protocol Handshake"
    features = Hixie75.features._replace(closing_handshake=True)

    def __init__(
        self, challenge: bytes, *, protocol: str = "", max_length: int = MAX_LENGTH
    ) -> None:
        super().__init__(protocol=protocol, max_length=max_length)
        self.state = ReadyState.CONNECTING
        self._challenge = challenge
        self._body = b""
        self._answer = b""
        self._is_close_owed = False

    @classmethod
    def from_request(cls, request: Request, **options: Any) -> Hixie76:
        keys = (_read_key(request, f"Sec-WebSocket-Key{number}") for number in (1, 2))
        return cls(b"".join(keys), **options)

    # In

    def receive_data(self, data: bytes, room: int | None = None) -> list[Data | Event]:
        missing = BODY_LENGTH - len(self._body)
        if not missing:
            return super().receive_data(data)
        if self._ended or self.state != ReadyState.CONNECTING:
            return []  # It ended before it was open.
        self._body += data[:missing]
        if len(self._body) < BODY_LENGTH:
            return []
        self._open()
        return [OpenEvent(), *super().receive_data(data[missing:])]

    def _open(self) -> None:
        # §5.2: MD5 proves that this is a WebSocket server. It keeps nothing secret.
        digest = md5(self._challenge + self._body, usedforsecurity=False)
        self._answer = digest.digest()
        self.state = ReadyState.OPEN

    def _receive_empty_frame(self, events: list[Data | Event]) -> None:
        # §5.3: FF 00 is the closing handshake.
        if self._type == 0xFF:
            self._is_close_owed = True
            self._end(events, None, None)

    def _fail(self, events: list[Data | Event], code: int, message: str) -> None:
        self._is_close_owed = True
        super()._fail(events, code, message)

    # Out

    def message(self, message: str | bytes) -> bytes:
        frame = super().message(message)
        return self.output() + frame

    def close(self, code: int, reason: str) -> bytes:
        if self.state == ReadyState.CONNECTING:
            self.state = ReadyState.CLOSED
        if self.state != ReadyState.OPEN:
            return b""
        self.state = ReadyState.CLOSING
        return self.output() + _CLOSING_FRAME

    def output(self) -> bytes:
        answer, self._answer = self._answer, b""
        return answer

    def closing_frame(self) -> bytes:
        frame = b""
        if self.state == ReadyState.OPEN and self._is_close_owed:
            frame = self.output() + _CLOSING_FRAME
        self.state = ReadyState.CLOSED
        return frame


Handshake = Callable[..., tuple[Driver, Response]]

handshake = partial(hixie75.handshake, kind=Hixie76)


def find_handshake(request: Request) -> Handshake | None:
    """The handshake of the draft that ``request`` uses; None if it uses neither of the two.

    A request of RFC 6455, or of a draft after this one, names a version or has a single key.
    """
    headers = request.headers
    if not request.has_token("upgrade", "websocket"):
        return None
    if "sec-websocket-version" in headers or "sec-websocket-key" in headers:
        return None
    return handshake if "sec-websocket-key1" in headers else hixie75.handshake


def _read_key(request: Request, name: str) -> bytes:
    # §5.2: the digits form a number, which is divided by the number of spaces.
    key = request.headers.get(name.lower(), "")
    digits = "".join(_DIGIT.findall(key))
    spaces = key.count(" ")
    # A number up to 2^32 - 1 has ten digits at most. Many more would be slow to convert.
    if not digits or len(digits) > 10 or int(digits) > MAX_NUMBER:
        raise refusal(400, f"bad or missing {name}")
    if not spaces or int(digits) % spaces:
        raise refusal(400, f"bad or missing {name}")
    return (int(digits) // spaces).to_bytes(4, "big")
