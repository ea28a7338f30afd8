"""draft-hixie-thewebsocketprotocol-75: text between 00 and FF, and no closing handshake.

Section numbers are the draft's. The parser has phases. Each phase is a method that takes the
bytes it can use from ``pos`` on, and returns the position behind them. An error is found at
the first byte that is wrong, so that any split of the input gives the same events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from faye_wsgi.driver.base import STEP, Driver, ReadyState
from faye_wsgi.driver.events import Data, Event
from faye_wsgi.driver.frames import MAX_WIDTH, CloseCode
from faye_wsgi.driver.hybi import MAX_LENGTH
from faye_wsgi.driver.server_handshake import Protocols, choose_protocol, refusal
from faye_wsgi.driver.utf8 import Utf8Validator
from faye_wsgi.http.headers import check_headers
from faye_wsgi.http.messages import Request, Response

__all__ = ["Hixie75", "handshake"]

TEXT_FRAME = 0x00
TERMINATOR = b"\xff"


class Hixie75(Driver):
    """The driver of hixie-75, for servers.

    ``max_length`` is the most bytes in the payload of a frame, of any type.
    """

    __slots__ = ("_length", "_max_length", "_payload", "_phase", "_steps", "_type", "_validator")

    version = "hixie-75"
    header_prefix = "WebSocket-"  # The names of some headers begin so.
    # §4.1: clients compare the first 85 bytes, with this space in 'Web Socket'.
    phrase = "Web Socket Protocol Handshake"

    def __init__(self, *, protocol: str = "", max_length: int = MAX_LENGTH) -> None:
        super().__init__(protocol)
        self._max_length = max_length
        self._phase: Phase = Hixie75._begin_frame
        self._steps = 0  # For ``unfinished``: it grows with each frame.
        # The frame that is arriving:
        self._type = TEXT_FRAME
        self._length = 0  # Of a skipped frame: bytes to come, or bytes skipped.
        self._payload = bytearray()
        self._validator: Utf8Validator | None = None

    @classmethod
    def from_request(cls, request: Request, **options: Any) -> Hixie75:
        """The driver that answers ``request``; HandshakeError if the request is bad."""
        return cls(**options)

    # In

    def receive_data(self, data: bytes, room: int | None = None) -> list[Data | Event]:
        events: list[Data | Event] = []
        pos = work = 0
        while pos < len(data) and not self._ended:
            pos = self._phase(self, events, data, pos)
            work += 1
        self.is_tired = work >= self.max_work
        is_between = self._ended or self._phase == Hixie75._begin_frame
        self.unfinished = 0 if is_between else self._steps + len(self._payload) // STEP
        return events

    @property
    def expected(self) -> int:
        return len(self._payload) * MAX_WIDTH

    # §5.3: the phases. With the high bit of its type set, a frame has a length; else it ends at FF.

    def _begin_frame(self, events: list[Data | Event], data: bytes, pos: int) -> int:
        self._type = data[pos]
        self._length = 0
        self._steps += 1
        if self._type & 0x80:
            self._phase = Hixie75._read_length
        elif self._type == TEXT_FRAME:
            self._validator = Utf8Validator()
            self._phase = Hixie75._read_text
        else:
            self._phase = Hixie75._skip_to_terminator
        return pos + 1

    def _read_length(self, events: list[Data | Event], data: bytes, pos: int) -> int:
        # §5.3: each byte has seven bits, the highest first. The eighth means that more follow.
        byte = data[pos]
        self._length = self._length << 7 | byte & 0x7F
        if self._length > self._max_length:
            self._fail_length(events)
        elif self._length and not byte & 0x80:
            self._phase = Hixie75._skip_length
        elif not byte & 0x80:
            self._phase = Hixie75._begin_frame
            self._receive_empty_frame(events)
        return pos + 1

    def _skip_length(self, events: list[Data | Event], data: bytes, pos: int) -> int:
        # §5.3: these frames have no meaning, and their data is dropped.
        skipped = min(self._length, len(data) - pos)
        self._length -= skipped
        if not self._length:
            self._phase = Hixie75._begin_frame
        return pos + skipped

    def _skip_to_terminator(self, events: list[Data | Event], data: bytes, pos: int) -> int:
        end = data.find(TERMINATOR, pos)
        stop = len(data) if end < 0 else end
        self._length += stop - pos
        if self._length > self._max_length:
            self._fail_length(events)
        elif end >= 0:
            self._phase = Hixie75._begin_frame
        return stop if end < 0 else stop + 1

    def _read_text(self, events: list[Data | Event], data: bytes, pos: int) -> int:
        end = data.find(TERMINATOR, pos)
        stop = len(data) if end < 0 else end
        room = self._max_length - len(self._payload)
        piece = data[pos : min(stop, pos + room)]
        is_too_long = stop - pos > room
        is_last = end >= 0 and not is_too_long
        assert self._validator is not None
        if not self._validator.accepts(piece, is_last):
            self._fail(events, CloseCode.INVALID_DATA, "a text is not valid UTF-8")
        elif is_too_long:
            self._fail_length(events)
        else:
            self._payload += piece
        if is_last and not self._ended:
            self._end_message(events)
        return stop if end < 0 else stop + 1

    def _end_message(self, events: list[Data | Event]) -> None:
        payload, self._payload = self._payload, bytearray()
        self._steps += len(payload) // STEP
        self._phase, self._validator = Hixie75._begin_frame, None
        if self.state == ReadyState.OPEN:  # After our close, messages are dropped.
            events.append(str(payload, "utf-8"))

    def _receive_empty_frame(self, events: list[Data | Event]) -> None:
        """Take a frame of length 0. It has a meaning in hixie-76 only."""

    def _fail_length(self, events: list[Data | Event]) -> None:
        message = f"a frame is longer than {self._max_length} bytes"
        self._fail(events, CloseCode.MESSAGE_TOO_BIG, message)

    def _end(self, events: list[Data | Event], code: int | None, reason: str | None) -> None:
        super()._end(events, None, None)  # The drafts have no close codes.
        self._payload, self._validator = bytearray(), None

    # Out

    def message(self, message: str | bytes) -> bytes:
        if not isinstance(message, str):
            raise TypeError(f"{self.version} has no binary messages")
        return b"\x00%b\xff" % message.encode()


Phase = Callable[[Hixie75, list[Any], bytes, int], int]


def handshake(
    request: Request,
    *,
    url: str,
    protocols: Protocols = None,
    headers: Sequence[tuple[str, str]] = (),
    max_length: int = MAX_LENGTH,
    kind: type[Hixie75] = Hixie75,
) -> tuple[Driver, Response]:
    """§5.2, the opening handshake: the driver, and the head of the response.

    ``url`` is the WebSocket's own, ``kind`` the driver's class. If the request is bad, this
    raises HandshakeError with the HTTP error to send instead.
    """
    _check_request(request)
    offered = request.headers.get(f"{kind.header_prefix}Protocol".lower(), "")
    protocol = choose_protocol(offered, protocols)
    driver = kind.from_request(request, protocol=protocol, max_length=max_length)
    answer = _answer_headers(kind.header_prefix, request, url, protocol)
    return driver, Response(101, [*answer, *headers], phrase=kind.phrase)


def _check_request(request: Request) -> None:
    """Raise HandshakeError if this is not a WebSocket request of the drafts."""
    upgrades = request.has_token("upgrade", "websocket")
    if request.method != "GET" or not upgrades or not request.has_token("connection", "upgrade"):
        raise refusal(400, "not a WebSocket request")
    if not request.http_version.startswith("HTTP/1.") or request.http_version == "HTTP/1.0":
        raise refusal(400, "a WebSocket request needs HTTP/1.1")
    if request.has_body:
        raise refusal(400, "a WebSocket request has no body")


def _answer_headers(
    prefix: str, request: Request, url: str, protocol: str
) -> list[tuple[str, str]]:
    origin = request.headers.get("origin")
    answer = [("Upgrade", "WebSocket"), ("Connection", "Upgrade")]  # §4.1: in this order
    if origin is not None:
        answer.append((f"{prefix}Origin", origin))
    answer.append((f"{prefix}Location", url))
    if protocol:
        answer.append((f"{prefix}Protocol", protocol))
    try:
        # The client chose the origin, host and path. They must not add a header of their own.
        return check_headers(answer)
    except ValueError:
        raise refusal(400, "the origin or the URL has characters that a header cannot") from None
