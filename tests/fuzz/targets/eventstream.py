"""Event streams: what a client decodes, and what a server encodes.

The first byte chooses the cuts. The others arrive; and they are an event to send, whose data, type
and id FF separates.
"""

from __future__ import annotations

from typing import Any

from ..packages import PACKAGES, Package
from ..splits import splits

MAX_LENGTH = 200


def check(data: bytes) -> None:
    if not data:
        return
    found = [
        outcome(package, pieces) for package in PACKAGES for pieces in splits(data[1:], data[0])
    ]
    assert all(one == found[0] for one in found), found
    for package in PACKAGES:
        check_encoder(package, data[1:])


def outcome(package: Package, pieces: list[bytes]) -> tuple[Any, ...]:
    decoder = package("driver.eventstream").EventStreamDecoder("before", MAX_LENGTH)
    events: list[Any] = []
    for piece in pieces:
        events += decoder.receive_data(piece)
        assert decoder._line.tell() <= MAX_LENGTH and decoder._data.tell() <= MAX_LENGTH
        assert decoder.retry is None or decoder.retry >= 0
    assert all(len(event.data) <= MAX_LENGTH for event in events)
    return [tuple(one) for one in events], decoder.failure, decoder.last_event_id, decoder.retry


def check_encoder(package: Package, data: bytes) -> None:
    """A client gets what was sent, and nothing else."""
    stream = package("driver.eventstream")
    text, event, id = [part.decode("latin-1") for part in (data + b"\xff\xff").split(b"\xff")[:3]]
    try:
        encoded = stream.encode_event(text, event=event, id=id)
    except ValueError:
        assert set("\r\n\0") & set(event + id)
        return
    (found,) = stream.EventStreamDecoder().receive_data(encoded)
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    assert tuple(found) == (lines, event or "message", id)
    assert stream.EventStreamDecoder().receive_data(stream.encode_comment(text)) == []
