"""permessage-deflate, in the driver of both roles.

The first byte chooses the role, the limit and the parameters that were agreed on, the second the
cuts and the room of each read; the others arrive.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from ..packages import PACKAGES, Package
from ..splits import splits
from ._drivers import check_events

MAX_LENGTHS = (500, 300_000)
AGREED = (
    "permessage-deflate",
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; server_max_window_bits=8; client_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=15; client_no_context_takeover",
)


def check(data: bytes) -> None:
    flags, seed, arrives = data[0:1], data[1:2], data[2:]
    if not seed:
        return
    found = [
        outcome(package, flags[0], pieces, seed[0])
        for package in PACKAGES
        for pieces in splits(arrives, seed[0])
    ]
    assert all(one == found[0] for one in found), found


def outcome(package: Package, flags: int, pieces: list[bytes], seed: int) -> list[str]:
    client, max_length = bool(flags & 1), MAX_LENGTHS[flags >> 1 & 1]
    driver = package("driver.hybi").Hybi(
        client=client,
        max_length=max_length,
        max_fragments=8,
        pipeline=agree(package, client, AGREED[flags >> 2 & 3], max_length),
    )
    driver.max_work = (sys.maxsize, 1000, 300)[len(pieces) % 3]  # at once, or in slices
    dice = random.Random(seed)
    events: list[Any] = []
    for piece in pieces:
        events += take(driver, piece, dice.randint(-100, 2000))
    while driver.holds_back:
        events += take(driver, b"", dice.randint(0, 2000))  # an empty queue takes any message
    events += driver.receive_eof()
    check_events(events, max_length)
    return [repr(event) for event in events]


def agree(package: Package, client: bool, agreed: str, max_length: int) -> Any:
    extension = package("extensions.permessage_deflate").permessage_deflate
    negotiation = package("extensions.negotiation")
    if client:
        return negotiation.ClientNegotiation([extension]).activate(agreed, max_length)
    return negotiation.negotiate([extension], agreed, max_length)


def take(driver: Any, data: bytes, room: int) -> list[Any]:
    """The events of one read: no message begins where there is no room."""
    events: list[Any] = driver.receive_data(data, room)
    sizes = [len(event) for event in events if isinstance(event, (str, bytes))]
    assert sum(sizes[:-1]) <= max(room, 0), "one message alone may exceed the room"
    assert room >= 0 or not events
    return events
