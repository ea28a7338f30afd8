"""hixie-75 and hixie-76.

The first byte chooses the draft, the second the cuts; the others arrive.
"""

from __future__ import annotations

from typing import Any

from ..packages import PACKAGES, Package
from ..splits import splits
from ._drivers import check_events

MAX_LENGTH = 1000


def check(data: bytes) -> None:
    flags, seed, arrives = data[0:1], data[1:2], data[2:]
    if not seed:
        return
    found = [
        outcome(package, bool(flags[0] & 1), pieces)
        for package in PACKAGES
        for pieces in splits(arrives, seed[0])
    ]
    assert all(one == found[0] for one in found), found


def outcome(package: Package, is_newer: bool, pieces: list[bytes]) -> tuple[list[str], bytes]:
    """The events, and what the driver then owes the peer."""
    drafts = package("driver.hixie76")
    if is_newer:
        driver = drafts.Hixie76(b"\0\0\0\1\0\0\0\2", max_length=MAX_LENGTH)
    else:
        driver = drafts.Hixie75(max_length=MAX_LENGTH)
    events: list[Any] = []
    for piece in pieces:
        events += driver.receive_data(piece)
        assert driver.expected <= 4 * MAX_LENGTH
    events += driver.receive_eof()
    check_events(events, MAX_LENGTH)
    assert driver.receive_data(b"\0late\xff") == []
    owed = driver.output() + driver.closing_frame()
    assert owed[16 * is_newer :] in (b"", b"\xff\0")
    return [repr(event) for event in events], owed
