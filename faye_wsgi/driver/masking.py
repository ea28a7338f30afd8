"""Masking of payloads, RFC 6455 §5.3: each byte is XORed with one of the four key bytes.

``mask`` is the C function where the extension was built, else its Python twin.
"""

from __future__ import annotations

import os
from typing import Union

__all__ = ['mask', 'mask_python']

Buffer = Union[bytes, bytearray, memoryview]


def mask_python(data: Buffer, key: bytes) -> bytes:
    """Mask or unmask ``data`` (any length) with a ``key`` of 4 bytes, starting at key[0]."""
    # One big-integer XOR: linear in the length, and all of it runs in C.
    size = len(data)
    keys = key * (size // 4) + key[: size % 4]
    return (int.from_bytes(data, 'little') ^ int.from_bytes(keys, 'little')).to_bytes(
        size, 'little'
    )


mask = mask_python
if not os.environ.get('FAYE_WSGI_PURE'):
    try:
        from faye_wsgi.driver._speedups import mask  # type: ignore[import-not-found,no-redef]
    except ImportError:
        pass
