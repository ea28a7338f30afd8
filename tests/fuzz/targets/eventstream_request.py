"""The client's request for an event stream: what a server answers, head and body.

The first byte chooses the cuts; the others arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..packages import PURE
from ._answers import check_answers

URL = PURE("http.url").parse_url("http://127.0.0.1/", ["http"])
MAX_LENGTH = 200


def check(data: bytes) -> None:
    if data:
        check_answers(data[0], data[1:], read)


def read(pieces: Iterator[bytes]) -> Any:
    decoder = PURE("driver.eventstream").EventStreamDecoder("7", MAX_LENGTH)
    request = PURE("driver.eventstream_request").EventStreamRequest(URL, [], decoder)
    for piece in pieces:
        if request.receive_data(piece) is not None:
            break
    else:
        raise request.receive_eof()
    assert request.status_code == 200
    events = request.receive_events()
    for piece in pieces:
        if request.end is None and piece:
            events += request.receive_events(piece)
    if request.end is None:
        events += request.receive_events(b"")
    assert request.end is not None
    return events, request.end == "", request.headers, decoder.failure
