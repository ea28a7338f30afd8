"""The cursors of channels, which clients keep and send back.

The first byte is the number of partitions; the others are the text.
"""

from __future__ import annotations

from ..packages import PURE


def check(data: bytes) -> None:
    if not data:
        return
    cursor, partitions = PURE("brokers.base").Cursor, data[0] % 20 + 1
    try:
        found = cursor.parse(data[1:].decode("utf-8", "surrogateescape"), partitions)
    except ValueError as error:
        assert len(str(error)) < 300, "it quotes all of the text"
        return
    assert len(found) == partitions and any(one is not None for one in found)
    assert all(0 <= one.number < 10**16 for one in found if one is not None)
    assert cursor.parse(str(found), partitions) == found
    before = found.before(next(one.number for one in found if one is not None))
    assert len(before) == partitions
