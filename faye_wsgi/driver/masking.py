"""Masking of payloads, RFC 6455 §5.3: each byte is XORed with one of the four key bytes.

The keys are unpredictable; they come from a pool, for a system call takes longer than a frame.

``mask`` and ``mask_pieces`` are C functions where the extension was built, else their
Python twins.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Union

__all__ = ["mask", "mask_pieces", "mask_pieces_python", "mask_python", "random_bytes"]

Buffer = Union[bytes, bytearray, memoryview]


def mask_python(data: Buffer, key: bytes) -> bytes:
    """Mask or unmask ``data`` (any length) with a ``key`` of 4 bytes, starting at key[0]."""
    # One big-integer XOR: linear in the length, and all of it runs in C.
    size = len(data)
    keys = key * (size // 4) + key[: size % 4]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(
        size, "little"
    )


def mask_pieces_python(pieces: Sequence[Buffer], key: bytes) -> bytes:
    """``mask`` of several pieces of one payload, put together."""
    return mask_python(b"".join(pieces), key)


KEY_SIZE = 4
POOL_SIZE = 4096  # bytes

_keys: list[bytes] = []


def random_bytes(size: int) -> bytes:
    """``size`` bytes of the operating system's randomness; in any thread."""
    if size != KEY_SIZE:
        return os.urandom(size)
    while True:
        try:
            return _keys.pop()
        except IndexError:  # once in a while, or another thread was faster
            fresh = os.urandom(POOL_SIZE)
            _keys.extend(fresh[at : at + KEY_SIZE] for at in range(0, POOL_SIZE, KEY_SIZE))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keys.clear)  # the parent's are not the child's

mask = mask_python
mask_pieces = mask_pieces_python
try:
    from faye_wsgi.driver._speedups import (  # type: ignore[import-not-found,no-redef]
        mask,
        mask_pieces,
    )
except ImportError:  # it was not built
    pass
