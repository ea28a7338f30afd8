"""Frames, messages and their numbers, RFC 6455 §5.2, §5.5, §7.4, §11.7 and §11.8."""

from __future__ import annotations

import struct
from enum import IntEnum

from faye_wsgi.driver.masking import Buffer, mask

__all__ = [
    'CloseCode',
    'Opcode',
    'build_frame',
    'check_close',
    'close_payload',
    'is_valid_close_code',
]

MAX_CONTROL_PAYLOAD = 125  # RFC 6455 §5.5


class Opcode(IntEnum):
    """RFC 6455 §5.2."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
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
        raise TypeError('close takes an int and a str')
    if not is_valid_close_code(code):
        raise ValueError(f'close code {code} cannot be sent: use 1000-1003, 1007-1014 or 3000-4999')
    if len(reason.encode()) > MAX_CONTROL_PAYLOAD - 2:
        raise ValueError('a close reason has at most 123 bytes of UTF-8')


def close_payload(code: int | None, reason: str = '') -> bytes:
    """The payload of a close frame; None (no code was given) is an empty one."""
    if code is None:
        return b''
    return struct.pack('!H', code) + reason.encode()


# The headers of all short frames that a server sends: one look-up builds them.
_SHORT = {
    first: tuple(bytes((first, length)) for length in range(126))
    for first in (0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0x00, 0x01, 0x02)
}


def build_frame(first: int, payload: Buffer, key: bytes | None = None) -> bytes:
    """One frame: ``first`` is FIN, RSV1-3 and the opcode; a ``key`` masks it (client to server)."""
    length = len(payload)
    if key is not None:
        return _header(first, length, 0x80) + key + mask(payload, key)
    if length < 126 and first in _SHORT:
        return _SHORT[first][length] + payload
    return _header(first, length, 0) + payload


def _header(first: int, length: int, mask_bit: int) -> bytes:
    # RFC 6455 §5.2: the shortest of the three forms.
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 65536:
        return struct.pack('!BBH', first, mask_bit | 126, length)
    return struct.pack('!BBQ', first, mask_bit | 127, length)
