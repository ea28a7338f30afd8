"""What the client reads of an answer, in any split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from ..packages import PURE
from ..splits import splits

__all__ = ["check_answers", "left_of"]

MAX_BODY = 4096  # bytes
MAX_REASON = 1000  # characters


def check_answers(seed: int, answer: bytes, read: Callable[[Iterable[bytes]], Any]) -> None:
    """``read`` gives the same for all cuts. It returns what was opened, or raises."""
    found = []
    for pieces in splits(answer, seed):
        try:
            found.append(read(iter(pieces)))
        except PURE("errors").HandshakeError as error:
            assert len(error.body) <= MAX_BODY
            assert len(error.reason) < MAX_REASON
            # What is wrong in the HTTP is told in h11's words, which depend on the cuts.
            reason = error.reason.partition("no valid answer")[0]
            found.append((reason, error.code, error.status_code, error.headers, error.body))
    assert all(one == found[0] for one in found), found


def left_of(pieces: Iterable[bytes]) -> bytes:
    return b"".join(pieces)
