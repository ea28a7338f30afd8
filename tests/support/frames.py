"""WebSocket frames built and read by hand, for the tests.

It is independent of the package on purpose: it may build what the package would never send
(a wrong length form, RSV bits, an unmasked client frame), and it shares no mistake with it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, Union

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x37\xfa\x21\x3d"

Headers = Union[Mapping[str, str], Iterable[tuple[str, str]]]


class Receiver(Protocol):
    """Anything with a socket's `recv`."""

    def recv(self, size: int, /) -> bytes: ...


class Frame(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    mask: bytes | None = None

    @property
    def text(self) -> str:
        return self.payload.decode()

    @property
    def close_code(self) -> int | None:
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None

    @property
    def close_reason(self) -> str:
        return self.payload[2:].decode()


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))


def frame(
    opcode: int,
    payload: bytes | str = b"",
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_form: int | None = None,
) -> bytes:
    """One frame. `rsv` is three bits (RSV1 is 4); `length_form` 7, 16 or 64 forces that form."""
    data = payload.encode() if isinstance(payload, str) else bytes(payload)
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    head += _length(len(data), length_form, 0x80 if mask is not None else 0)
    if mask is None:
        return head + data
    return head + mask + apply_mask(data, mask)


def _length(size: int, form: int | None, mask_bit: int) -> bytes:
    if form is None:
        form = 7 if size < 126 else 16 if size < 65536 else 64
    if form == 7:
        return bytes([mask_bit | size])
    if form == 16:
        return bytes([mask_bit | 126]) + struct.pack("!H", size)
    return bytes([mask_bit | 127]) + struct.pack("!Q", size)


def text(message: str, **options: object) -> bytes:
    return frame(TEXT, message, **options)  # type: ignore[arg-type]


def close_payload(code: int | None = None, reason: str | bytes = b"") -> bytes:
    if code is None:
        return b""
    return struct.pack("!H", code) + (reason.encode() if isinstance(reason, str) else reason)


def close(code: int | None = 1000, reason: str = "", **options: object) -> bytes:
    return frame(CLOSE, close_payload(code, reason), **options)  # type: ignore[arg-type]


def parse(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames in `data`, unmasked, and the bytes that are left."""
    frames, source = [], _Bytes(data)
    while True:
        start = source.offset
        try:
            frames.append(read_frame(source))
        except EOFError:
            return frames, data[start:]


class _Bytes:
    """Bytes that are read as a socket is."""

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def recv(self, size: int, /) -> bytes:
        chunk = self.data[self.offset : self.offset + size]
        self.offset += len(chunk)
        return chunk


def read_exactly(source: Receiver, size: int) -> bytes:
    """`size` bytes and not one more, so that nothing needs to be kept between two calls."""
    chunks, missing = [], size
    while missing:
        chunk = source.recv(min(missing, 1 << 18))
        if not chunk:
            raise EOFError(f"the stream ended {missing} bytes early (of {size})")
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


def read_frame(source: Receiver) -> Frame:
    """The next frame, unmasked. EOFError where the stream ends first."""
    first, second = read_exactly(source, 2)
    size = second & 0x7F
    if size == 126:
        size = struct.unpack("!H", read_exactly(source, 2))[0]
    elif size == 127:
        size = struct.unpack("!Q", read_exactly(source, 8))[0]
    mask = read_exactly(source, 4) if second & 0x80 else None
    payload = read_exactly(source, size)
    if mask is not None:
        payload = apply_mask(payload, mask)
    return Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7, mask)


def new_key() -> str:
    return base64.b64encode(os.urandom(16)).decode()


def accept(key: str) -> str:
    """RFC 6455 4.2.2: the value of Sec-WebSocket-Accept for a key."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def pairs(headers: Headers | None) -> list[tuple[str, str]]:
    if headers is None:
        return []
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)


def handshake(
    path: str = "/",
    host: str = "127.0.0.1",
    headers: Headers | None = None,
    key: str = KEY,
    without: Iterable[str] = (),
    method: str = "GET",
    version: str = "HTTP/1.1",
) -> bytes:
    """A client's opening request. `headers` replace ours of the same name, or are added;
    `without` names headers to leave out."""
    extra = pairs(headers)
    hidden = {name.lower() for name, _ in extra} | {name.lower() for name in without}
    ours = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
    ]
    fields = [pair for pair in ours if pair[0].lower() not in hidden] + extra
    lines = [f"{method} {path} {version}"] + [f"{name}: {value}" for name, value in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
