"""RFC 6455 §5.3, masking: each byte of a payload is XORed with one of the four key bytes.

The keys must be unpredictable. They come from a pool, because a system call takes longer
than building a frame.

``mask`` and ``mask_pieces`` are C functions where they were built, else their Python twins.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Union

__all__ = ["mask", "mask_pieces", "mask_pieces_python", "mask_python", "random_bytes"]

Buffer = Union[bytes, bytearray, memoryview]


def mask_python(data: Buffer, key: bytes) -> bytes:
    """Mask or unmask ``data`` (any length) with a ``key`` of 4 bytes, starting at key[0]."""
    # Two big integers and one XOR: linear in the length, and the loops are the interpreter's.
    size = len(data)
    keys = key * (size // 4) + key[: size % 4]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(
        size, "little"
    )


def mask_pieces_python(pieces: Sequence[Buffer], key: bytes) -> bytes:
    """Join the pieces of one payload, and mask or unmask the whole."""
    return mask_python(b"".join(pieces), key)


KEY_SIZE = 4
POOL_SIZE = 4096  # bytes

_keys: list[bytes] = []


def random_bytes(size: int) -> bytes:
    """``size`` unpredictable bytes, from the operating system. Any thread may call this."""
    if size != KEY_SIZE:
        return os.urandom(size)
    while True:
        try:
            return _keys.pop()
        except IndexError:  # The pool is empty; another thread may just have emptied it.
            fresh = os.urandom(POOL_SIZE)
            _keys.extend(fresh[at : at + KEY_SIZE] for at in range(0, POOL_SIZE, KEY_SIZE))


if hasattr(os, "register_at_fork"):
    # The child of a fork has a copy of the pool. It must not use the keys of its parent.
    os.register_at_fork(after_in_child=_keys.clear)

mask = mask_python
mask_pieces = mask_pieces_python
try:
    from faye_wsgi.driver._speedups import (  # type: ignore[import-not-found,no-redef]
        mask,
        mask_pieces,
    )
except ImportError:  # The C extension was not built.
    pass
