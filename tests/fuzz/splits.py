"""Ways to cut an input: any of them must give the same events."""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["splits"]


def splits(data: bytes, seed: int) -> Iterator[list[bytes]]:
    """``data`` in one piece, byte by byte, and cut at places that the seed draws."""
    yield [data] if data else []  # no read has no bytes
    yield [data[at : at + 1] for at in range(len(data))]
    dice = random.Random(seed)
    places = sorted(dice.randint(0, len(data)) for _ in range(dice.randint(1, 8)))
    cuts = zip([0, *places], [*places, len(data)])
    yield [data[start:end] for start, end in cuts if start < end]
