"""RFC 6455, the data phase: one flat parse loop over what arrived.

The loop takes a whole frame where all of it is there, which is nearly always, and a
payload piece by piece where it is not, so that limits hold on declared lengths and a
bad byte of UTF-8 is found when it arrives. ``_rest`` never holds more than the start
of a header or of a control frame, unless an extension has made messages of more bytes than
there was room for: then it holds all that came behind the last of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Callable

from faye_wsgi.driver.base import Driver, Features, ReadyState
from faye_wsgi.driver.events import Data, Event, MessageEvent, PingEvent, PongEvent
from faye_wsgi.driver.frames import (
    MAX_WIDTH,
    CloseCode,
    Opcode,
    build_frame,
    build_header,
    build_message,
    close_payload,
    is_valid_close_code,
    parse_frames,
    parse_messages,
    stored_size,
)
from faye_wsgi.driver.masking import Buffer, mask, mask_pieces, random_bytes
from faye_wsgi.driver.utf8 import Utf8Validator
from faye_wsgi.errors import ExtensionError
from faye_wsgi.extensions.base import Message
from faye_wsgi.extensions.negotiation import Pipeline

__all__ = ["MAX_FRAGMENTS", "MAX_LENGTH", "Hybi"]

MAX_LENGTH = 2**26 - 1
MAX_FRAGMENTS = 16384
LARGE_PIECE = 1024
LARGE_MESSAGE = 32768  # bytes of a message that is not worth copying behind its header

_FIN = 0x80
_TEXT = _FIN | Opcode.TEXT
_BINARY = _FIN | Opcode.BINARY


_FEATURES = Features(closing_handshake=True, codes=True, pongs=True, binary=True, fragments=True)
_WITH_EXTENSIONS = _FEATURES._replace(fragments=False)  # they work on whole messages

Received = tuple[Sequence[Data], bytes]


@lru_cache(maxsize=64)
def _short_way(masked: bool, max_length: int) -> Callable[[bytes], Received]:
    # One for all connections with the same settings
    return partial(parse_messages, masked, max_length)


def _receive_nothing(data: bytes) -> Received:
    return (), data


class Hybi(Driver):
    """The RFC 6455 driver of either role.

    ``max_length`` is in bytes of payload over all fragments of a message;
    ``pipeline`` has the extensions that were agreed on; ``random(n)`` gives the n
    unpredictable bytes of a client's masking keys.
    """

    __slots__ = (
        "_client",
        "_closing",
        "_fin",
        "_fragments",
        "_frame",
        "_key",
        "_mask_bit",
        "_max_fragments",
        "_max_length",
        "_opcode",
        "_payload",
        "_pipeline",
        "_pongs",
        "_random",
        "_remaining",
        "_rest",
        "_room",
        "_rsv",
        "_stored",
        "_validator",
        "receive_messages",
    )

    version = "hybi-13"
    receive_messages: Callable[[bytes], Received]  # type: ignore[assignment]

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
        self._pipeline = pipeline
        self._client = client
        self._mask_bit = 0 if client else 0x80  # of what arrives: RFC 6455 §5.1
        self._max_length = min(max_length, 2**63 - 1)  # RFC 6455 §5.2: no frame is longer
        self._max_fragments = max_fragments
        self._random = random
        self._rest = b""  # the start of a header or control frame, or what is held back
        self._room = 0  # bytes of messages that extensions may still make; below 0: too many
        # The message that is arriving, while it is not whole:
        self._opcode = 0  # 0: there is none
        self._rsv = 0
        self._payload: list[bytes | bytearray] | None = None
        self._stored = 0
        self._validator: Utf8Validator | None = None
        self._fragments = 0
        # The frame that is arriving, while its payload is not whole:
        self._remaining = 0
        self._frame: list[bytes | bytearray] = []
        self._key = b""
        self._fin = False
        # What is owed to the peer:
        self._pongs: list[bytes] = []  # the payloads of pings that are not answered yet
        self._closing: bytes | None = None  # the payload of a close frame
        self._choose_way()

    # In

    def receive_data(self, data: bytes, room: int | None = None) -> list[Event]:
        events: list[Event] = []
        # Plain messages are no longer than what came, and after our close frame all are dropped.
        if room is None or self._pipeline is None or self.state != ReadyState.OPEN:
            room = sys.maxsize
        self._room = room
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if self._pipeline is not None and not self._opcode:
            data = self._receive_frames(events, data)
            if not data:  # nearly always
                return events
        pos = 0
        size = len(data)
        while self._room >= 0 and not self._ended:
            # 1. the payload of a frame that came in pieces
            if self._remaining:
                if pos == size:
                    break
                end = min(size, pos + self._remaining)
                self._receive_payload(events, data[pos:end])
                pos = end
                continue
            # 2. the two bytes that every header has
            if size - pos < 2:
                break
            first = data[pos]
            second = data[pos + 1]
            error = self._check_header(first, second)
            if error:
                self._fail(events, CloseCode.PROTOCOL_ERROR, error)
                break
            # 3. the length, in its shortest form
            length = second & 0x7F
            body = pos + 2
            if length == 126:
                body += 2
                if size < body:
                    break
                length = data[pos + 2] << 8 | data[pos + 3]
                minimum = 126
            elif length == 127:
                body += 8
                if size < body:
                    break
                length = int.from_bytes(data[pos + 2 : body], "big")
                minimum = 65536
            else:
                minimum = 0
            if length < minimum or length >> 63:
                self._fail(events, CloseCode.PROTOCOL_ERROR, "a frame length is badly encoded")
                break
            # 4. the limits, before anything is stored
            if first & 8 == 0 and not self._within_limits(events, first, length):
                break
            # 5. the masking key and the payload
            key = b""
            if second & 0x80:
                body += 4
                if size < body:
                    break
                key = data[body - 4 : body]
            end = body + length
            if first & 8:
                if size < end:
                    break
                payload = data[body:end]
                self._receive_control(events, first & 15, mask(payload, key) if key else payload)
            elif end <= size and first & _FIN and not self._opcode:
                payload = data[body:end]
                self._receive_message(events, first, mask(payload, key) if key else payload)
            else:
                end = min(end, size)
                self._begin_frame(first, length, key)
                self._receive_payload(events, data[body:end])
            pos = end
        if not self._ended and pos < size:
            self._rest = data[pos:]
        self._choose_way()
        return events

    def _choose_way(self) -> None:
        # The short way is open between messages; those of extensions go through the pipeline,
        # and after our close frame they are dropped.
        is_short = not (self._rest or self._opcode or self._ended)
        self.receive_messages = _receive_nothing
        if is_short and self._pipeline is None and self.state == ReadyState.OPEN:
            self.receive_messages = _short_way(not self._client, self._max_length)

    @property
    def features(self) -> Features:  # type: ignore[override]
        return _FEATURES if self._pipeline is None else _WITH_EXTENSIONS

    @property
    def read_size(self) -> int:  # type: ignore[override]
        # What one read holds may be inflated, up to 1000 times, and what there is no room for
        # is held back.
        return super().read_size if self._pipeline is None else 4096

    @property
    def holds_back(self) -> bool:
        return self._room < 0 and bool(self._rest)

    @property
    def missing(self) -> int:
        return self._remaining

    @property
    def expected(self) -> int:
        if not self._opcode:
            return 0
        size = self._stored + self._remaining
        return size * MAX_WIDTH if self._opcode == Opcode.TEXT else size

    def _check_header(self, first: int, second: int) -> str:
        # RFC 6455 §5.1, §5.2, §5.4, §5.5; the checks stand in the order of the bytes, so
        # that every split of the input finds the same fault.
        opcode = first & 15
        if (first == _TEXT or first == _BINARY) and not self._opcode:
            pass
        elif first & 0x70 & ~self._allowed_rsv(opcode):
            return "reserved bits are set that no extension uses"
        elif opcode > 10 or 2 < opcode < 8:
            return f"opcode {opcode} is unknown"
        elif opcode > 7:
            if not first & _FIN:
                return "a control frame is fragmented"
            if second & 0x7F > 125:
                return "a control frame is longer than 125 bytes"
        elif opcode == Opcode.CONTINUATION and not self._opcode:
            return "a continuation frame has no message to continue"
        elif opcode != Opcode.CONTINUATION and self._opcode:
            return "a new message begins before the last one ended"
        if second & 0x80 != self._mask_bit:
            return "a server masked its frame" if self._client else "a client frame is not masked"
        return ""

    def _allowed_rsv(self, opcode: int) -> int:
        # RFC 7692 §6: on the first frame of a message, and where a session owns the bit.
        if self._pipeline is None or self._opcode or opcode not in (Opcode.TEXT, Opcode.BINARY):
            return 0
        return self._pipeline.rsv_mask

    def _within_limits(self, events: list[Event], first: int, length: int) -> bool:
        limit = self._max_length
        if self._rsv if self._opcode else first & 0x70:
            limit += limit // 8 + 64  # what does not compress has become longer
        if self._stored + length > limit:
            message = f"a message is longer than {self._max_length} bytes"
        elif self._opcode and self._fragments >= self._max_fragments:
            message = f"a message has more than {self._max_fragments} frames"
        else:
            return True
        self._fail(events, CloseCode.MESSAGE_TOO_BIG, message)
        return False

    def _receive_frames(self, events: list[Event], data: bytes) -> bytes:
        # The short way of a pipeline: the whole messages that data begins with.
        if self._ended or self._room < 0:
            return data
        assert self._pipeline is not None
        masked, rsv_mask = not self._client, self._pipeline.rsv_mask
        frames, rest = parse_frames(masked, self._max_length, rsv_mask, data)
        for number, (first, payload) in enumerate(frames):
            if self._room < 0:
                done = (len(payload) for _, payload in frames[:number])
                return data[sum(map(self._frame_size, done)) :]
            self._receive_message(events, first, payload)
            if self._ended:
                return b""
        return rest

    def _frame_size(self, length: int) -> int:
        return len(build_header(0, length)) + (0 if self._client else 4) + length

    def _receive_message(self, events: list[Event], first: int, payload: bytes) -> None:
        opcode = first & 15
        if self._pipeline is not None:
            try:
                message = Message.from_frame(first, payload)
                message = self._pipeline.process_incoming(message)
            except ExtensionError as error:
                self._fail(events, error.code, str(error))
                return
            opcode, payload = message.opcode, message.data
        if opcode == Opcode.BINARY:
            self._emit(events, payload)
            return
        try:
            text = str(payload, "utf-8")
        except UnicodeDecodeError:
            self._fail_utf8(events)
        else:
            self._emit(events, text)

    def _emit(self, events: list[Event], data: str | bytes) -> None:
        if self.state == ReadyState.OPEN:  # after our close frame, messages are dropped
            events.append(MessageEvent(data))
            if self._pipeline is not None:
                self._room -= stored_size(data)

    def _begin_frame(self, first: int, length: int, key: bytes) -> None:
        if not self._opcode:
            self._opcode, self._rsv = first & 15, first & 0x70
            self._payload = []
            self._fragments = 0
            if self._opcode == Opcode.TEXT and self._pipeline is None:
                self._validator = Utf8Validator()
        self._fragments += 1
        self._fin = bool(first & _FIN)
        self._remaining = length
        self._key = key

    def _receive_payload(self, events: list[Event], piece: bytes) -> None:
        assert self._payload is not None
        self._remaining -= len(piece)
        last = self._fin and not self._remaining
        if self._validator is not None:  # text is looked at as it arrives
            piece = self._unmask(piece)
            if not self._validator.accepts(piece, last):
                self._fail_utf8(events)
                return
        self._store(piece)
        if not self._remaining:
            self._end_frame()
        if last:
            self._end_message(events)

    def _unmask(self, piece: bytes) -> bytes:
        if not self._key:
            return piece
        turn = len(piece) & 3
        piece, key = mask(piece, self._key), self._key
        self._key = key[turn:] + key[:turn]
        return piece

    def _store(self, piece: bytes) -> None:
        # Large pieces are kept as they came, to be copied once; small ones go together,
        # for a list of bytes takes far more room than the bytes.
        frame = self._frame
        self._stored += len(piece)
        if len(piece) >= LARGE_PIECE:
            frame.append(piece)
        elif not piece:
            pass
        elif frame and isinstance(frame[-1], bytearray):
            frame[-1] += piece
        else:
            frame.append(bytearray(piece))

    def _end_frame(self) -> None:
        assert self._payload is not None
        frame, self._frame = self._frame, []
        if self._key and self._validator is None:
            self._payload.append(mask_pieces(frame, self._key))
        else:
            self._payload += frame

    def _end_message(self, events: list[Event]) -> None:
        payload, opcode = self._payload, self._opcode
        assert payload is not None
        self._opcode, self._payload, self._stored, self._validator = 0, None, 0, None
        self._receive_message(events, opcode | self._rsv, b"".join(payload))

    def _receive_control(self, events: list[Event], opcode: int, payload: bytes) -> None:
        if opcode == Opcode.PING:
            if self.state == ReadyState.OPEN:
                self._pongs.append(payload)  # RFC 6455 §5.5.2: each ping has its own pong
            events.append(PingEvent(payload))
        elif opcode == Opcode.PONG:
            events.append(PongEvent(payload))
        else:
            self._receive_close(events, payload)

    def _receive_close(self, events: list[Event], payload: bytes) -> None:
        # RFC 6455 §5.5.1, §7.1.5
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
        self._closing = payload[:2]  # RFC 6455 §5.5.1: the reply echoes the code
        self._end(events, code, reason)

    def _fail(self, events: list[Event], code: int, message: str) -> None:
        self._closing = close_payload(code, message)
        super()._fail(events, code, message)

    def _fail_utf8(self, events: list[Event]) -> None:
        self._fail(events, CloseCode.INVALID_DATA, "a text is not valid UTF-8")

    def _end(self, events: list[Event], code: int | None, reason: str | None) -> None:
        super()._end(events, code, reason)
        self._rest = b""
        self._remaining, self._payload, self._stored, self._validator = 0, None, 0, None
        self._frame = []

    # Out

    @property
    def shares_frames(self) -> bool:
        """A client's frames have a masking key each, and extensions make something else of them."""
        return not self._client and self._pipeline is None

    @property
    def build(self) -> Callable[[str | bytes], bytes]:
        if self._pipeline is not None:
            return self.message
        return self._mask_message if self._client else build_message

    def _mask_message(self, message: str | bytes) -> bytes:
        return build_message(message, self._random(4))

    def shared_message(self, message: str | bytes, shared: dict[Any, Any]) -> bytes:
        if self._client:
            return self.message(message)
        if self._pipeline is not None:
            opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
            data = message.encode() if isinstance(message, str) else message
            outgoing = self._pipeline.process_shared(Message(opcode, data), shared)
            return build_frame(_FIN | outgoing.rsv | outgoing.opcode, outgoing.data)
        frame: bytes | None = shared.get(None)
        if frame is None:
            frame = shared[None] = build_message(message)
        return frame

    def large_message(self, message: str | bytes) -> tuple[bytes, bytes] | None:
        if len(message) < LARGE_MESSAGE or self._client or self._pipeline is not None:
            return None
        if isinstance(message, str):
            payload = message.encode()
            return build_header(_TEXT, len(payload)), payload
        return build_header(_BINARY, len(message)), message

    def text(self, message: str) -> bytes:
        if self._pipeline is not None:
            return self._process(Opcode.TEXT, message.encode())
        return self._build(_TEXT, message.encode())

    def binary(self, message: Buffer) -> bytes:
        if isinstance(message, memoryview):
            message = message.tobytes()  # whose length is in bytes
        if self._pipeline is not None:
            return self._process(Opcode.BINARY, bytes(message))
        return self._build(_BINARY, message)

    def _process(self, opcode: Opcode, data: bytes) -> bytes:
        assert self._pipeline is not None
        message = self._pipeline.process_outgoing(Message(opcode, data))
        return self._build(_FIN | message.rsv | message.opcode, message.data)

    def fragment(self, data: bytes, opcode: int, fin: bool) -> bytes:
        return self._build((_FIN if fin else 0) | opcode, data)

    def ping(self, data: bytes) -> bytes | None:
        return self._build(_FIN | Opcode.PING, data)

    def close(self, code: int, reason: str) -> bytes:
        if self.state != ReadyState.OPEN:
            return b""
        self.state = ReadyState.CLOSING
        self._choose_way()
        self._pongs = []
        return self._build(_FIN | Opcode.CLOSE, close_payload(code, reason))

    def output(self) -> bytes:
        if not self._pongs:
            return b""
        pongs, self._pongs = self._pongs, []
        return b"".join([self._build(_FIN | Opcode.PONG, payload) for payload in pongs])

    def drop_pongs(self) -> None:
        del self._pongs[:-1]

    def closing_frame(self) -> bytes:
        frame = b""
        if self.state == ReadyState.OPEN and self._closing is not None:
            frame = self.output() + self._build(_FIN | Opcode.CLOSE, self._closing)
        self.state = ReadyState.CLOSED
        self._choose_way()
        if self._pipeline is not None:
            self._pipeline.close()
        return frame

    def _build(self, first: int, payload: Buffer) -> bytes:
        return build_frame(first, payload, self._random(4) if self._client else None)
