"""RFC 6455, the data phase: one loop over the bytes that have arrived.

Nearly always a whole frame is there, and the loop takes it at once. Otherwise the payload is
taken piece by piece. So a limit is checked on the declared length, before anything is stored,
and a bad byte of UTF-8 is found when it arrives. ``_rest`` holds the start of a header or of a
control frame, and no more. There are two exceptions. Where an extension made messages of more
bytes than there was room for, and where a call has been as much work as it may be, it holds all
bytes behind.

Compiled by Cython, with the types of ``hybi.pxd``. The danger is in the lengths: the peer
declares them, up to 2**64 - 1, and in C a sum with one of them can overflow. So a length is
compared with the bytes that are left first, and only then added to a position.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any, Callable

from faye_wsgi.driver.assembly import Assembly
from faye_wsgi.driver.base import STEP, Driver, Features, ReadyState
from faye_wsgi.driver.events import Data, Event, PingEvent, PongEvent
from faye_wsgi.driver.frames import (
    MAX_WIDTH,
    CloseCode,
    Opcode,
    build_frame,
    build_header,
    build_message,
    close_payload,
    is_valid_close_code,
    parse_messages,
    stored_size,
)
from faye_wsgi.driver.masking import Buffer, mask, random_bytes
from faye_wsgi.errors import ExtensionError
from faye_wsgi.extensions.base import Message
from faye_wsgi.extensions.negotiation import Pipeline

__all__ = ["MAX_FRAGMENTS", "MAX_LENGTH", "Hybi"]

MAX_LENGTH = 2**26 - 1
MAX_FRAGMENTS = 16384
LARGE_MESSAGE = 32768  # Bytes. A larger message is not copied behind its header.
LARGE_PACKED = 1024  # Bytes. A larger message is inflated in steps, for it may become a bomb.
NO_LIMIT = sys.maxsize
WORK_BYTES = 2048  # Bytes of a message: to unmask or decode them is as much work as a frame.
INFLATED_BYTES = 1024  # Bytes of a message: to inflate them is.
STEP_WORK = 128  # One step of an extension: so many frames.

# RFC 6455 §5.2: a frame's first byte. These are plain numbers, which C compares fast.
_FIN, _RSV, _CONTROL = 0x80, 0x70, 0x08
_CONTINUATION, _TEXT, _BINARY = 0, 1, 2
_CLOSE, _PING, _PONG = 8, 9, 10

_OPEN = ReadyState.OPEN
_FEATURES = Features(closing_handshake=True, codes=True, pongs=True, binary=True, fragments=True)
_WITH_EXTENSIONS = _FEATURES._replace(fragments=False)  # Those work on whole messages.


class Hybi(Driver):
    """The driver of RFC 6455, for both roles.

    ``max_length`` is the most bytes of payload in a message, over all of its frames.
    ``pipeline`` has the extensions that were agreed on. ``random(n)`` returns n unpredictable
    bytes, for a client's masking keys.
    """

    __slots__ = (
        "_arriving",
        "_client",
        "_closing",
        "_is_masked",
        "_max_fragments",
        "_max_length",
        "_pipeline",
        "_pongs",
        "_random",
        "_rest",
        "_room",
        "_rsv_mask",
        "_steps",
        "_unpacking",
        "_work",
    )

    version = "hybi-13"

    def __init__(
        self,
        *,
        client: bool = False,
        protocol: str = "",
        max_length: int = MAX_LENGTH,
        max_fragments: int = MAX_FRAGMENTS,
        pipeline: Pipeline | None = None,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        super().__init__(protocol)
        self._client = client
        self._is_masked = not client  # RFC 6455 §5.1: clients mask all frames.
        self._max_length = min(max_length, 2**63 - 1)  # RFC 6455 §5.2: a frame has no more.
        self._max_fragments = min(max_fragments, NO_LIMIT)
        self._pipeline = pipeline
        self._rsv_mask = 0 if pipeline is None else pipeline.rsv_mask
        self._random = random
        self._rest = b""  # Bytes that have arrived and are not parsed yet.
        self._room = NO_LIMIT  # Bytes of messages that receive_data may still return.
        self._work = 0  # What the call of receive_data has been so far.
        # The large message that is in the hands of the extensions: see Pipeline.process_in_steps.
        self._unpacking: Generator[None, None, Message] | None = None
        self._steps = 0  # For ``unfinished``: it grows with each frame or message that is complete.
        self._arriving: Assembly | None = None  # The message that has arrived in part.
        # The answers that the peer has not been sent yet:
        self._pongs: list[bytes] = []  # The payloads of its pings.
        self._closing: bytes | None = None  # The payload of the close frame.

    @property
    def features(self) -> Features:  # type: ignore[override]
        return _FEATURES if self._pipeline is None else _WITH_EXTENSIONS

    @property
    def read_size(self) -> int:  # type: ignore[override]
        # An extension may inflate the bytes of one read up to 1000 times. All bytes for which
        # there is no room then are held back, so there should be few of them.
        return 65536 if self._pipeline is None else 4096

    @property
    def holds_back(self) -> bool:
        has_more = bool(self._rest) or self._unpacking is not None
        return (self._room < 0 or self.is_tired) and has_more

    @property
    def missing(self) -> int:
        return 0 if self._arriving is None else self._arriving.remaining

    @property
    def expected(self) -> int:
        arriving = self._arriving
        if arriving is None:
            return 0
        size = arriving.stored + arriving.remaining
        return size * MAX_WIDTH if arriving.opcode == _TEXT else size

    # In

    def receive_data(self, data: bytes, room: int | None = None) -> list[Data | Event]:
        events: list[Data | Event] = []
        if self._rest:
            data = self._rest + data
            self._rest = b""
        self._work = 0
        if self._pipeline is not None and self.state is _OPEN:
            self._room = NO_LIMIT if room is None else min(room, NO_LIMIT)
        else:
            # Plain messages are no longer than the bytes that have arrived. Behind our own
            # close frame all messages are dropped. So there is always room.
            self._room = NO_LIMIT
            # 1. The usual case: whole messages and nothing else. The scanner in C takes them
            # all at once. It stops before anything else, good or bad, for the loop below.
            if (
                self.state is _OPEN
                and self._arriving is None
                and not self._ended
                and parse_messages is not None
            ):
                events, data = parse_messages(self._is_masked, self._max_length, data)
                self._work = len(events)
                if not data:
                    self.is_tired = self._work >= self.max_work
                    self.unfinished = 0
                    return events
                self._steps += self._work
        if self._unpacking is not None and self._room >= 0:
            self.is_unpacking = True
            self._unpack(events)
        pos = 0
        size = len(data)
        self.is_tired = False
        while self._room >= 0 and self._work < self.max_work and not self._ended:
            self._work += 1
            # 2. The next bytes of a payload that arrives in pieces.
            arriving = self._arriving
            if arriving is not None and arriving.remaining:
                if pos == size:
                    break
                payload = data[pos : pos + min(arriving.remaining, size - pos)]
                pos += len(payload)
                self._receive_piece(events, payload)
                continue
            # 3. RFC 6455 §5.2: the two bytes that every header has.
            if size - pos < 2:
                break
            first = data[pos]
            second = data[pos + 1]
            error = self._check_header(first, second)
            if error:
                self._fail(events, CloseCode.PROTOCOL_ERROR, error)
                break
            # 4. RFC 6455 §5.2: the length, which must have its shortest form.
            length = second & 0x7F
            body = pos + 2
            if length > 125:
                minimum = 126 if length == 126 else 65536
                body += 2 if length == 126 else 8
                if size < body:
                    break
                length = int.from_bytes(data[pos + 2 : body], "big")
                if length < minimum or length >> 63:
                    self._fail(events, CloseCode.PROTOCOL_ERROR, "a frame length is badly encoded")
                    break
            # 5. The limits, before anything is stored.
            if not first & _CONTROL:
                error = self._check_limits(first, length)
                if error:
                    self._fail(events, CloseCode.MESSAGE_TOO_BIG, error)
                    break
            # 6. RFC 6455 §5.3: the masking key.
            key = b""
            if second & 0x80:
                body += 4
                if size < body:
                    break
                key = data[body - 4 : body]
            # 7. The payload of a control frame, of a whole message, or of a part of a message.
            left = size - body
            is_whole = length <= left
            if is_whole and first & _FIN and arriving is None or first & _CONTROL:
                if not is_whole:
                    break  # A control frame is small. It waits in _rest.
                pos = body + length
                payload = data[body:pos]
                if key:
                    payload = mask(payload, key)
                if first & _CONTROL:
                    self._receive_control(events, first & 15, payload)
                else:
                    self._receive_message(events, first, payload)
            else:
                if arriving is None:
                    # With extensions, a text is checked when they have changed it.
                    arriving = self._arriving = Assembly(first, self._pipeline is None)
                arriving.begin_frame(first, length, key)
                payload = data[body : body + min(length, left)]
                pos = body + len(payload)
                self._receive_piece(events, payload)
        else:  # Not where it is more bytes that are missing: those come in their own time.
            self.is_tired = self._work >= self.max_work
        if not self._ended and pos < size:
            self._rest = data[pos:]
        arriving = self._arriving
        if arriving is not None:
            self.unfinished = 1 + self._steps + arriving.stored // STEP
        elif self._rest and not self.is_tired and self._room >= 0:
            self.unfinished = 1 + self._steps
        else:
            self.unfinished = 0
        return events

    def _check_header(self, first: int, second: int) -> str:
        # RFC 6455 §5.1, §5.2, §5.4, §5.5: what is wrong with the first two bytes, '' for
        # nothing. The order of the checks decides which of two errors is reported.
        opcode = first & 15
        is_new = self._arriving is None
        starts = opcode == _TEXT or opcode == _BINARY
        if starts and is_new and not first & _RSV:
            pass
        elif first & _RSV & ~(self._rsv_mask if starts and is_new else 0):
            # RFC 7692 §6: they belong on the first frame of a message, and to an extension.
            return "reserved bits are set that no extension uses"
        elif opcode > 10 or 2 < opcode < 8:
            return f"opcode {opcode} is unknown"
        elif opcode > 7:
            if not first & _FIN:
                return "a control frame is fragmented"
            if second & 0x7F > 125:
                return "a control frame is longer than 125 bytes"
        elif opcode == _CONTINUATION and is_new:
            return "a continuation frame has no message to continue"
        elif opcode != _CONTINUATION and not is_new:
            return "a new message begins before the last one ended"
        if second >> 7 != self._is_masked:
            return "a server masked its frame" if self._client else "a client frame is not masked"
        return ""

    def _check_limits(self, first: int, length: int) -> str:
        # The limit that a frame of this declared length would exceed, '' for none.
        arriving = self._arriving
        limit = self._max_length
        stored = 0 if arriving is None else arriving.stored
        if (first if arriving is None else arriving.first) & _RSV:
            limit += limit // 8 + 64  # Compressing makes noise longer.
        if stored + length > limit:
            return f"a message is longer than {self._max_length} bytes"
        if arriving is not None and arriving.frames >= self._max_fragments:
            return f"a message has more than {self._max_fragments} frames"
        return ""

    def _receive_piece(self, events: list[Data | Event], piece: bytes) -> None:
        arriving = self._arriving
        assert arriving is not None
        if not arriving.add(piece):
            self._fail_utf8(events)
        elif arriving.fin and not arriving.remaining:
            self._arriving = None
            self._receive_message(events, arriving.first, arriving.payload())

    def _receive_message(self, events: list[Data | Event], first: int, payload: bytes) -> None:
        self._steps += 1 + len(payload) // STEP
        if self._pipeline is None:
            self._complete(events, first & 15, payload)
            return
        message = Message.from_frame(first, payload)
        if len(payload) >= LARGE_PACKED:
            self._unpacking = self._pipeline.process_in_steps(message)
            if self.max_work < NO_LIMIT:
                # One step now: many connections may begin such a message before others continue.
                self._work = max(self._work, self.max_work - STEP_WORK)
            self._unpack(events)
            return
        try:
            message = self._pipeline.process_incoming(message)
        except ExtensionError as error:
            self._fail(events, error.code, str(error))
            return
        self._work += len(message.data) // INFLATED_BYTES
        self._complete(events, message.opcode, message.data)

    def _unpack(self, events: list[Data | Event]) -> None:
        """Go on with a large message, until it is done or the call has been enough work."""
        steps = self._unpacking
        assert steps is not None
        try:
            while self._work < self.max_work:
                next(steps)
                self._work += STEP_WORK
        except StopIteration as end:
            self._unpacking = None
            self.is_unpacking = False
            self._complete(events, end.value.opcode, end.value.data)
        except ExtensionError as error:
            self._fail(events, error.code, str(error))

    def _complete(self, events: list[Data | Event], opcode: int, payload: bytes) -> None:
        self._work += len(payload) // WORK_BYTES
        data: Data = payload
        if opcode != _BINARY:
            try:
                data = str(payload, "utf-8")
            except UnicodeDecodeError:
                self._fail_utf8(events)
                return
        if self.state is _OPEN:  # Behind our own close frame, messages are dropped.
            events.append(data)
            if self._pipeline is not None:
                self._room -= stored_size(data)

    def _receive_control(self, events: list[Data | Event], opcode: int, payload: bytes) -> None:
        if self._arriving is None:  # Else they are no progress of the message around them.
            self._steps += 1
        if opcode == _PING:
            if self.state is _OPEN:
                self._pongs.append(payload)  # RFC 6455 §5.5.2: a pong for each.
            events.append(PingEvent(payload))
        elif opcode == _PONG:
            events.append(PongEvent(payload))
        else:
            self._receive_close(events, payload)

    def _receive_close(self, events: list[Data | Event], payload: bytes) -> None:
        # RFC 6455 §5.5.1, §7.1.5, §7.1.6: the code and the reason.
        if not payload:
            self._closing = b""
            self._end(events, CloseCode.NO_STATUS_RECEIVED, "")
            return
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or not is_valid_close_code(code):
            self._fail(events, CloseCode.PROTOCOL_ERROR, "a close frame has no valid code")
            return
        try:
            reason = str(payload[2:], "utf-8")
        except UnicodeDecodeError:
            self._fail_utf8(events)
            return
        self._closing = payload[:2]  # RFC 6455 §5.5.1: our reply echoes the code.
        self._end(events, code, reason)

    def _fail(self, events: list[Any], code: int, message: str) -> None:
        self._closing = close_payload(code, message)
        super()._fail(events, code, message)

    def _fail_utf8(self, events: list[Any]) -> None:
        self._fail(events, CloseCode.INVALID_DATA, "a text is not valid UTF-8")

    def _end(self, events: list[Any], code: int | None, reason: str | None) -> None:
        super()._end(events, code, reason)
        self._rest = b""
        self._arriving = self._unpacking = None

    # Out

    def message(self, message: str | bytes) -> bytes:
        if self._pipeline is None:
            return build_message(message, self._random(4) if self._client else None)
        return self._build_processed(self._pipeline.process_outgoing(_unprocessed(message)))

    def shared_message(self, message: str | bytes, shared: dict[Any, Any]) -> bytes:
        if self._client:  # RFC 6455 §5.3: each frame has a key of its own.
            return self.message(message)
        if self._pipeline is not None:
            return self._build_processed(
                self._pipeline.process_shared(_unprocessed(message), shared)
            )
        frame: bytes | None = shared.get(None)
        if frame is None:
            frame = shared[None] = build_message(message)
        return frame

    def large_message(self, message: str | bytes) -> tuple[bytes, bytes] | None:
        if len(message) < LARGE_MESSAGE or self._client or self._pipeline is not None:
            return None
        if isinstance(message, str):
            payload = message.encode()
            return build_header(_FIN | _TEXT, len(payload)), payload
        return build_header(_FIN | _BINARY, len(message)), message

    def fragment(self, data: bytes, opcode: int, fin: bool) -> bytes:
        return self._build((_FIN if fin else 0) | opcode, data)

    def ping(self, data: bytes) -> bytes | None:
        return self._build(_FIN | _PING, data)

    def close(self, code: int, reason: str) -> bytes:
        if self.state != _OPEN:
            return b""
        self.state = ReadyState.CLOSING
        self._pongs = []
        return self._build(_FIN | _CLOSE, close_payload(code, reason))

    def output(self) -> bytes:
        if not self._pongs:
            return b""
        pongs, self._pongs = self._pongs, []
        return b"".join([self._build(_FIN | _PONG, payload) for payload in pongs])

    def drop_pongs(self) -> None:
        del self._pongs[:-1]

    def closing_frame(self) -> bytes:
        frame = b""
        if self.state == _OPEN and self._closing is not None:
            frame = self.output() + self._build(_FIN | _CLOSE, self._closing)
        self.state = ReadyState.CLOSED
        if self._pipeline is not None:
            self._pipeline.close()
        return frame

    def _build_processed(self, message: Message) -> bytes:
        return self._build(_FIN | message.rsv | message.opcode, message.data)

    def _build(self, first: int, payload: Buffer) -> bytes:
        return build_frame(first, payload, self._random(4) if self._client else None)


def _unprocessed(message: str | Buffer) -> Message:
    """A message in the form that extensions take."""
    if isinstance(message, str):
        return Message(Opcode.TEXT, message.encode())
    return Message(Opcode.BINARY, bytes(message))
