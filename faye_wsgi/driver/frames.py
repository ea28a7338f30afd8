"""Frames, messages and their numbers, RFC 6455 §5.2, §5.5, §7.4, §11.7 and §11.8."""

from __future__ import annotations

import struct
import sys
from enum import IntEnum
from typing import Any, Callable

from faye_wsgi.driver.events import Data
from faye_wsgi.driver.masking import Buffer, mask

__all__ = [
    "MAX_WIDTH",
    "CloseCode",
    "NumberEnum",
    "Opcode",
    "build_frame",
    "build_header",
    "build_message",
    "check_close",
    "close_payload",
    "is_valid_close_code",
    "parse_messages",
    "stored_size",
]

MAX_CONTROL_PAYLOAD = 125  # RFC 6455 §5.5
MAX_WIDTH = 4  # bytes that a byte of UTF-8 may take in a text: one emoji widens all of it


class NumberEnum(IntEnum):
    """Numbers with names that look like numbers on every Python, as they do from 3.11 on."""

    def __str__(self) -> str:
        return int.__repr__(self)

    def __format__(self, spec: str) -> str:
        return int.__format__(self, spec)


class Opcode(NumberEnum):
    """RFC 6455 §5.2."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(NumberEnum):
    """RFC 6455 §7.4.1 and the codes that IANA has registered since."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


def is_valid_close_code(code: int) -> bool:
    """Whether ``code`` may stand in a close frame: 1000-1003, 1007-1014, 3000-4999."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_close(code: int, reason: str) -> None:
    """Raise what a wrong ``close(code, reason)`` deserves: TypeError or ValueError."""
    if not isinstance(code, int) or isinstance(code, bool) or not isinstance(reason, str):
        raise TypeError("close takes an int and a str")
    if not is_valid_close_code(code):
        raise ValueError(f"close code {code} cannot be sent: use 1000-1003, 1007-1014 or 3000-4999")
    if len(reason.encode()) > MAX_CONTROL_PAYLOAD - 2:
        raise ValueError("a close reason has at most 123 bytes of UTF-8")


def close_payload(code: int | None, reason: str = "") -> bytes:
    """The payload of a close frame; None (no code was given) is an empty one."""
    if code is None:
        return b""
    return struct.pack("!H", code) + reason.encode()


def build_frame_python(first: int, payload: Buffer, key: bytes | None = None) -> bytes:
    """One frame: ``first`` is FIN, RSV1-3 and the opcode; a ``key`` masks it (client to server)."""
    if key is None:
        return build_header(first, len(payload)) + payload
    if len(key) != 4:
        raise ValueError("a masking key has 4 bytes")
    return build_header(first, len(payload), 0x80) + key + mask(payload, key)


def build_header(first: int, length: int, mask_bit: int = 0) -> bytes:
    """A frame's header up to its length, in the shortest form (RFC 6455 §5.2)."""
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 65536:
        return struct.pack("!BBH", first, mask_bit | 126, length)
    return struct.pack("!BBQ", first, mask_bit | 127, length)


def build_message_python(message: str | Buffer, key: bytes | None = None) -> bytes:
    """The one frame of a message: of text for a str, else of bytes; a ``key`` masks it."""
    if isinstance(message, str):
        return build_frame_python(0x81, message.encode(), key)
    data = bytes(message) if isinstance(message, memoryview) else message
    return build_frame_python(0x82, data, key)


# A text with more than one character outside ASCII is made for its message alone: nothing
# has yet put its UTF-8 beside it, which ``getsizeof`` would count, too.
_TEXT_HEADER = sys.getsizeof(b"\xff\xff".decode("latin-1")) - 3


def stored_size_python(data: Data) -> int:
    """The bytes that a message takes in memory: a text has 1, 2 or 4 for each character."""
    size = len(data)
    if type(data) is not str or data.isascii():
        return size
    if size == 1:
        return 1 if data < "\u0100" else 2 if data < "\U00010000" else 4
    return size * ((sys.getsizeof(data) - _TEXT_HEADER) // (size + 1))


# ``parse_messages(masked, max_length, data)`` gives the whole messages that ``data`` begins
# with, and the rest. It takes only what is plainly right. It has no twin in Python: without
# it the driver's own loop reads these messages, too.
parse_messages: Callable[[bool, int, bytes], tuple[list[Any], bytes]] | None = None
build_frame = build_frame_python
build_message = build_message_python
stored_size = stored_size_python
try:
    from faye_wsgi.driver._speedups import (  # type: ignore[import-not-found,no-redef]
        build_frame,
        build_message,
        parse_messages,
        stored_size,
    )
except ImportError:  # it was not built
    pass
