"""What an abuser sends: sessions of frames, most of them valid, some broken in one place. No I/O.

Everything is drawn from a ``random.Random``, so that a seed gives the same sessions again.
"""

from __future__ import annotations

import random
import zlib
from typing import NamedTuple

from ..support import frames

__all__ = ["Session", "make_session", "pieces"]

TEXTS = ("", "hello", "h\u00e9llo w\u00f6rld", "\U0001f600" * 30, "x" * 125, "x" * 126, "y" * 3000)
SIZES = (0, 1, 10, 125, 126, 127, 1000, 65535, 65536)
SIZE_WEIGHTS = (9, 9, 9, 9, 9, 9, 5, 1, 1)


class Session(NamedTuple):
    """Bytes behind the opening handshake, and the number of frames in them."""

    data: bytes
    frames: int


def make_session(dice: random.Random, deflate: bool) -> Session:
    """Up to 400 valid frames, and often a broken one, noise, a close frame or half a frame."""
    made: list[bytes] = []
    for _ in range(dice.choice([1, 5, 50, 400])):
        made += message(dice, deflate)
    end = dice.choice([b"", close(dice), broken(dice), noise(dice), half(dice)])
    return Session(b"".join(made) + end, len(made) + 1)


def message(dice: random.Random, deflate: bool) -> list[bytes]:
    """The frames of one message, or a control frame."""
    if dice.random() < 0.2:
        payload = dice.randbytes(dice.choice([0, 4, 125]))
        return [frame(dice, dice.choice([frames.PING, frames.PONG]), payload)]
    opcode, payload = frames.BINARY, b""
    if dice.random() < 0.5:
        opcode, payload = frames.TEXT, dice.choice(TEXTS).encode()
    else:
        payload = dice.randbytes(1) * dice.choices(SIZES, SIZE_WEIGHTS)[0]
    rsv = 0
    if deflate and dice.random() < 0.5:
        packer = zlib.compressobj(wbits=-15)
        payload, rsv = (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4], 4
    if dice.random() < 0.7:
        return [frame(dice, opcode, payload, rsv=rsv)]
    cuts = sorted(dice.randint(0, len(payload)) for _ in range(dice.randint(1, 6)))
    made = []
    for start, end in zip([0, *cuts], [*cuts, len(payload)]):
        made.append(frame(dice, opcode, payload[start:end], fin=False, rsv=rsv))
        if dice.random() < 0.2:
            made.append(frame(dice, frames.PING, b"between"))
        opcode, rsv = frames.CONTINUATION, 0
    return [*made, frame(dice, frames.CONTINUATION, b"")]


def frame(
    dice: random.Random, opcode: int, payload: bytes, fin: bool = True, rsv: int = 0
) -> bytes:
    # A key of zeros is as good as any, and cheap for large payloads.
    key = bytes(4) if len(payload) > 200 else dice.randbytes(4)
    if key == bytes(4):
        head = frames.frame(opcode, b"", fin, rsv, key)[:1]
        return head + frames._length(len(payload), None, 0x80) + key + payload
    return frames.frame(opcode, payload, fin, rsv, key)


def close(dice: random.Random) -> bytes:
    return frames.close(dice.choice([None, 1000, 1001, 3000, 4999]), "")


def broken(dice: random.Random) -> bytes:
    """A frame with one thing wrong."""
    return dice.choice(
        [
            frames.text("not masked", mask=None),
            frames.frame(frames.TEXT, b"x", rsv=dice.choice([1, 2, 3, 6])),
            frames.frame(dice.choice([3, 4, 7, 11, 15]), b"x"),
            frames.frame(frames.PING, b"x" * 126),
            frames.frame(frames.PING, b"x", fin=False),
            frames.frame(frames.CONTINUATION, b"of nothing"),
            frames.text("a", fin=False) + frames.text("b"),
            frames.frame(frames.TEXT, dice.choice([b"\xff", b"\xed\xa0\x80", b"a\xc3"])),
            frames.frame(frames.TEXT, b"x", length_form=dice.choice([16, 64])),
            b"\x82\xff" + dice.choice([1 << 40, 1 << 26, 1 << 63]).to_bytes(8, "big") + bytes(4),
            frames.frame(frames.CLOSE, b"\x03"),
            frames.close(dice.choice([0, 999, 1005, 1006, 1015, 5000])),
            frames.frame(frames.CLOSE, b"\x03\xe8\xff"),
            frames.frame(frames.TEXT, b"\xff\xff\xff\xff", rsv=4),
        ]
    )


def noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randint(1, 500))


def half(dice: random.Random) -> bytes:
    whole = frame(dice, frames.BINARY, bytes(dice.choice([3, 200, 70_000])))
    return whole[: dice.randrange(1, len(whole))]


def pieces(dice: random.Random, data: bytes) -> list[bytes]:
    """``data`` cut at random: in a few pieces, or its first bytes one by one."""
    if dice.random() < 0.2:
        return [data[at : at + 1] for at in range(min(len(data), 100))] + [data[100:]]
    cuts = sorted(dice.randint(0, len(data)) for _ in range(dice.randint(0, 5)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)])]
