"""RFC 6455 §5.2, §5.5, §7.4, §11.7, §11.8: frames, messages, opcodes and close codes."""

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
# The most bytes of memory that a byte of UTF-8 may take. A Python text stores all of its
# characters with the width of the widest one: one emoji makes each of them 4 bytes wide.
MAX_WIDTH = 4


class NumberEnum(IntEnum):
    """Numbers with names. ``str`` and ``format`` give the number, as from Python 3.11 on."""

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
    """RFC 6455 §7.4.1, and the codes that IANA has registered since."""

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
    """RFC 6455 §7.4: whether ``code`` may be sent: 1000-1003, 1007-1014, 3000-4999."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_close(code: int, reason: str) -> None:
    """Check the arguments of ``close(code, reason)``; TypeError or ValueError if they are bad."""
    if not isinstance(code, int) or isinstance(code, bool) or not isinstance(reason, str):
        raise TypeError("close takes an int and a str")
    if not is_valid_close_code(code):
        raise ValueError(f"close code {code} cannot be sent: use 1000-1003, 1007-1014 or 3000-4999")
    if len(reason.encode()) > MAX_CONTROL_PAYLOAD - 2:
        raise ValueError("a close reason has at most 123 bytes of UTF-8")


def close_payload(code: int | None, reason: str = "") -> bytes:
    """RFC 6455 §5.5.1: the payload of a close frame. It is empty if ``code`` is None."""
    if code is None:
        return b""
    return struct.pack("!H", code) + reason.encode()


def build_frame_python(first: int, payload: Buffer, key: bytes | None = None) -> bytes:
    """One frame. ``first`` has FIN, RSV1-3 and the opcode; a client's ``key`` masks the payload."""
    if key is None:
        return build_header(first, len(payload)) + payload
    if len(key) != 4:
        raise ValueError("a masking key has 4 bytes")
    return build_header(first, len(payload), 0x80) + key + mask(payload, key)


def build_header(first: int, length: int, mask_bit: int = 0) -> bytes:
    """RFC 6455 §5.2: a frame's header up to its length, which must have its shortest form."""
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 65536:
        return struct.pack("!BBH", first, mask_bit | 126, length)
    return struct.pack("!BBQ", first, mask_bit | 127, length)


def build_message_python(message: str | Buffer, key: bytes | None = None) -> bytes:
    """A message as one frame: text for a str, else binary. A client's ``key`` masks it."""
    if isinstance(message, str):
        return build_frame_python(0x81, message.encode(), key)
    data = bytes(message) if isinstance(message, memoryview) else message
    return build_frame_python(0x82, data, key)


# The size of a text's header, for ``stored_size_python``. ``getsizeof`` would also count a copy
# of the text in UTF-8, which the interpreter may keep with it. A received text has no such copy
# yet, but the interpreter shares texts of one Latin character: those are counted without it.
_TEXT_HEADER = sys.getsizeof(b"\xff\xff".decode("latin-1")) - 3


def stored_size_python(data: Data) -> int:
    """The bytes of memory that a message takes: a text has 1, 2 or 4 for each character."""
    size = len(data)
    if type(data) is not str or data.isascii():
        return size
    if size == 1:
        return 1 if data < "\u0100" else 2 if data < "\U00010000" else 4
    return size * ((sys.getsizeof(data) - _TEXT_HEADER) // (size + 1))


# ``parse_messages(masked, max_length, data)`` returns the whole messages at the start of
# ``data``, and the rest. It stops before anything else, good or bad. It has no Python twin:
# where it was not built, ``Hybi.receive_data`` reads these messages as it reads all others.
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
except ImportError:  # The C extension was not built.
    pass
