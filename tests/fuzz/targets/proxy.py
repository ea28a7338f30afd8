"""The proxy step: what a proxy answers to CONNECT.

The first byte chooses the cuts; the others arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..packages import PURE
from ._answers import check_answers, left_of

PROXY = PURE("http.url").parse_url("http://user:word@proxy:3128", ["http"])
SERVER = PURE("http.url").parse_url("wss://host/")


def check(data: bytes) -> None:
    if data:
        check_answers(data[0], data[1:], read)


def read(pieces: Iterator[bytes]) -> Any:
    step = PURE("http.proxy").ProxyHandshake(PROXY, SERVER)
    for piece in pieces:
        if not step.receive_data(piece):
            continue
        if left_of(pieces):
            # In the same read they are refused, in a later one whatever is inside reads them.
            raise PURE("errors").HandshakeError("the proxy sent bytes after its answer", code=1006)
        return True
    raise step.receive_eof()
