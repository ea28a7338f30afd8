"""WHATWG HTML §9.2, text/event-stream: the head of the response, and the events of its body.

The encoder's lines end in CR LF, and a blank line ends an event. A value can never add a field or
an event of its own: it is split into lines, or refused. The decoder is the client's side (§9.2.6).
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from io import StringIO
from typing import Any, Callable, NamedTuple

from faye_wsgi.driver.base import Driver
from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.driver.hybi import MAX_LENGTH
from faye_wsgi.http.headers import HeadersLike, check_headers
from faye_wsgi.http.messages import Response

__all__ = [
    "RESERVED_HEADERS",
    "EventStream",
    "EventStreamDecoder",
    "ServerEvent",
    "encode_comment",
    "encode_event",
    "encode_retry",
    "response",
]

# The body ends with the connection. The user cannot set headers that say otherwise.
RESERVED_HEADERS = ("content-length", "transfer-encoding", "upgrade")

_HEADERS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache, no-store, no-transform"),
    ("X-Accel-Buffering", "no"),
    ("Connection", "close"),
)
_FORBIDDEN = re.compile(r"[\r\n\0]")
_STOPS = (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART)


def response(headers: HeadersLike = None) -> Response:
    """The head of the response. The user's ``headers`` replace ours of the same name."""
    added = check_headers(headers, RESERVED_HEADERS)
    names = {name.lower() for name, _ in added}
    return Response(200, [pair for pair in _HEADERS if pair[0].lower() not in names] + added)


def encode_event(data: str, *, event: str | None = None, id: str | int | None = None) -> bytes:
    """One event. ``data`` may have many lines; ``event`` and ``id`` have one line each."""
    if not isinstance(data, str):
        raise TypeError(f"an event has str for its data, not {type(data).__name__}")
    if event is None and id is None and "\n" not in data and "\r" not in data:
        return f"data: {data}\r\n\r\n".encode()  # The usual case.
    lines = []
    if event is not None:
        lines.append(_field("event", event))
    if id is not None:
        is_number = isinstance(id, int) and not isinstance(id, bool)
        lines.append(_field("id", str(id) if is_number else id))
    lines += [f"data: {line}" for line in _lines(data)]
    return _encode(lines)


def encode_comment(text: str = "") -> bytes:
    """A comment, which clients ignore. An empty one keeps a connection alive."""
    if not isinstance(text, str):
        raise TypeError(f"a comment is str, not {type(text).__name__}")
    return _encode([f": {line}" if line else ":" for line in _lines(text)])


def encode_retry(seconds: float) -> bytes:
    """The time that a client waits before it connects again. It is sent in milliseconds."""
    milliseconds = seconds * 1000
    if not 0 <= milliseconds < float("inf"):
        raise ValueError("retry is a finite number of seconds, from 0 on")
    return _encode([f"retry: {round(milliseconds)}"])


def _field(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} has the wrong type: {type(value).__name__}")
    if _FORBIDDEN.search(value):
        raise ValueError(f"{name} may not contain CR, LF or NUL")
    return f"{name}: {value}"


def _lines(text: str) -> list[str]:
    # §9.2.6: CR LF, CR and LF end a line. str.splitlines knows more, but those are data here.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _encode(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode()


class ServerEvent(NamedTuple):
    """One event, as a client gets it; ``id`` is that of the last event which had one."""

    data: str
    event: str = "message"
    id: str = ""


_LINE_END = re.compile("\r\n|\r|\n")


class EventStreamDecoder:
    """The client's side: bytes in, events out (WHATWG HTML §9.2.6), in any split.

    ``last_event_id`` is what a client tells when it connects again, ``retry`` the seconds that it
    waits before that (None until the stream has said so). A line, or the data of an event, of more
    than ``max_length`` characters is a failure: ``failure`` says so, and what follows is dropped.
    (In the data, the end of each line counts.)
    """

    __slots__ = (
        "_cr_ended",
        "_data",
        "_decoder",
        "_event",
        "_id",
        "_line",
        "_max_length",
        "failure",
        "last_event_id",
        "retry",
    )

    def __init__(self, last_event_id: str = "", max_length: int = MAX_LENGTH) -> None:
        self.last_event_id = last_event_id
        self.retry: float | None = None
        self.failure = ""
        self._max_length = max_length
        self._id = last_event_id
        # A decoder that drops a byte order mark, and never fails.
        self._decoder = getincrementaldecoder("utf-8-sig")("replace")
        self._cr_ended = False  # a CR was the last character: a LF that follows belongs to it
        # Buffers, and no lists: a piece or a line of one character would cost a whole object.
        self._line = StringIO()
        self._data = StringIO()
        self._event = ""

    def receive_data(self, data: bytes) -> list[ServerEvent]:
        """Take bytes of the body: the events that they complete."""
        text = self._decoder.decode(data)
        if self._cr_ended and text:
            text = text[1:] if text[0] == "\n" else text
            self._cr_ended = False
        if not text or self.failure:
            return []
        self._cr_ended = text[-1] == "\r"
        *ended, rest = _LINE_END.split(text)
        events: list[ServerEvent] = []
        for piece in ended:
            if not piece and not self._line.tell():
                event = self._dispatch()
                if event is not None:
                    events.append(event)
                continue
            self._field(self._end_line(piece))
            if self.failure:
                return events
        self._extend(self._line, rest, "a line")
        return events

    def _extend(self, buffer: StringIO, text: str, what: str) -> None:
        if buffer.tell() + len(text) > self._max_length:
            self.failure = f"the stream has {what} of more than {self._max_length} characters"
            self._line, self._data = StringIO(), StringIO()
        else:
            buffer.write(text)

    def _end_line(self, piece: str) -> str:
        if not self._line.tell() and len(piece) <= self._max_length:  # the usual case
            return piece
        self._extend(self._line, piece, "a line")
        line, self._line = self._line.getvalue(), StringIO()
        return line

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if name == "data":
            self._extend(self._data, f"{value}\n", "an event")
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = float(value) / 1000  # int() refuses thousands of digits

    def _dispatch(self) -> ServerEvent | None:
        # An event without data is dropped, but its id counts.
        self.last_event_id = self._id
        data, event = self._data.getvalue(), self._event
        self._data, self._event = StringIO(), ""
        if not data:
            return None
        return ServerEvent(data[:-1], event or "message", self.last_event_id)


class EventStream(Driver):
    """The driver of a stream: encoded events go out, and nothing comes in.

    ``message`` takes the bytes that the functions above return. What a client sends during
    the response means nothing, and is dropped. Either side closes by ending TCP.

    ``retry`` returns the seconds after which this client should come back where the server stops.
    A browser has no random delay of its own: all streams that end together would come back
    together.
    """

    __slots__ = ("_retry",)

    features = Driver.features._replace(binary=True)

    def __init__(self, retry: Callable[[], float] | None = None) -> None:
        super().__init__()
        self._retry = retry

    def message(self, message: str | bytes) -> bytes:
        if isinstance(message, str):
            raise TypeError("an event stream takes encoded events")
        return bytes(message)

    def fragment(self, data: bytes, opcode: int, fin: bool) -> bytes:
        raise TypeError("an event stream has no fragmented messages")

    def ping(self, data: bytes) -> bytes:
        return encode_comment(data.decode("utf-8", "replace"))

    def close(self, code: int, reason: str) -> bytes:
        super().close(code, reason)
        if self._retry is None or code not in _STOPS:
            return b""
        return encode_retry(self._retry())

    def _end(self, events: list[Any], code: int | None, reason: str | None) -> None:
        super()._end(events, None, None)  # HTTP has no close codes.
