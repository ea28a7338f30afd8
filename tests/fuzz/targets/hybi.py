"""RFC 6455, both roles, without extensions.

The first byte chooses the role and the limit, the second the cuts; the others arrive.
"""

from __future__ import annotations

from typing import Any

from ...support import frames
from ..packages import PACKAGES, Package
from ..splits import splits
from ._drivers import check_events

MAX_LENGTHS = (1000, 100_000)
MAX_FRAGMENTS = 8
MAX_REST = 14 + 125  # bytes: the start of a header, or of a control frame


def check(data: bytes) -> None:
    flags, seed, arrives = data[0:1], data[1:2], data[2:]
    if not seed:
        return
    client, max_length = bool(flags[0] & 1), MAX_LENGTHS[flags[0] >> 1 & 1]
    found = [
        outcome(package, client, max_length, pieces)
        for package in PACKAGES
        for pieces in splits(arrives, seed[0])
    ]
    assert all(one == found[0] for one in found), found


def outcome(
    package: Package, client: bool, max_length: int, pieces: list[bytes]
) -> tuple[list[str], bytes]:
    """The events, and what the driver then owes the peer."""
    driver = package("driver.hybi").Hybi(
        client=client,
        max_length=max_length,
        max_fragments=MAX_FRAGMENTS,
        random=lambda size: frames.MASK[:size],
    )
    events: list[Any] = []
    for piece in pieces:
        events += driver.receive_data(piece)
        check_memory(driver, max_length)
    events += driver.receive_eof()
    check_events(events, max_length)
    assert driver.receive_data(frames.text("late")) == []
    owed = driver.output() + driver.closing_frame()
    check_owed(owed, client)
    return [repr(event) for event in events], owed


def check_memory(driver: Any, max_length: int) -> None:
    assert len(driver._rest) <= MAX_REST
    arriving = driver._arriving
    assert arriving is None or arriving.stored <= max_length
    assert driver.expected <= 4 * max_length
    assert 0 <= driver.missing <= max_length


def check_owed(owed: bytes, client: bool) -> None:
    """Pongs, and a close frame at the end; whole, and masked by a client alone."""
    found, rest = frames.parse(owed)
    assert not rest
    for frame in found:
        assert (frame.mask is not None) == client and frame.fin and not frame.rsv
        assert frame.opcode == frames.PONG or frame is found[-1]
