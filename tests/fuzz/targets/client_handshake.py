"""The client's opening handshake: what a server answers.

The first byte chooses the cuts; the others arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..packages import PURE
from ._answers import check_answers, left_of

URL = PURE("http.url").parse_url("ws://127.0.0.1/")


def check(data: bytes) -> None:
    if data:
        check_answers(data[0], data[1:], read)


def read(pieces: Iterator[bytes]) -> Any:
    deflate = PURE("extensions.permessage_deflate").permessage_deflate
    handshake = PURE("driver.client_handshake").ClientHandshake(
        URL, protocols=["a", "b1"], extensions=[deflate], random=bytes
    )
    for piece in pieces:
        opened = handshake.receive_data(piece)
        if opened is not None:
            assert opened.driver.protocol in ("", "a", "b1") and opened.status_code == 101
            return opened.headers, opened.driver.protocol, opened.left + left_of(pieces)
    raise handshake.receive_eof()
