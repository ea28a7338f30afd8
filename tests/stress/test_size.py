"""16 MiB in one message, both ways, in one frame and in fragments."""

from __future__ import annotations

import os

import pytest

from ..support import frames
from ..support.servers import Server
from .harness import Client, huge_frame, run_all, stats

SIZE = 1 << 24
PATHS = ["/echo", "/events"]


def binary() -> bytes:
    return os.urandom(1 << 16) * (SIZE >> 16)


def fragments(opcode: int, payload: bytes, size: int) -> list[bytes]:
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)]
    last = len(pieces) - 1
    return [
        huge_frame(opcode if n == 0 else frames.CONTINUATION, piece, n == last)
        for n, piece in enumerate(pieces)
    ]


def exchange(client: Client, data: list[bytes]) -> frames.Frame:
    for piece in data:
        client.send(piece)
    return client.read()


@pytest.mark.parametrize("path", PATHS)
def test_one_frame(clean: Server, path: str) -> None:
    payload = binary()
    with Client(clean) as client:
        client.open(path)
        assert exchange(client, [huge_frame(frames.BINARY, payload)])[:2] == (2, payload)
        client.finish()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [1 << 10, 1_000_003])
def test_fragments(clean: Server, path: str, size: int) -> None:
    """1 KiB makes 16384 of them, which is just what is allowed."""
    payload = binary()
    with Client(clean) as client:
        client.open(path)
        got = exchange(client, fragments(frames.BINARY, payload, size))
        assert got[:2] == (frames.BINARY, payload)
        client.finish()


def test_text_whose_characters_are_cut_by_the_fragments(clean: Server) -> None:
    payload = ("grüße 世界 🎉 " * (SIZE // 24 + 1)).encode()[:SIZE]
    payload = payload.decode("utf-8", "ignore").encode()
    with Client(clean) as client:
        client.open("/echo")
        got = exchange(client, fragments(frames.TEXT, payload, 65_537))
        assert got[:2] == (frames.TEXT, payload)
        client.finish()


def test_the_memory_comes_back(clean: Server) -> None:
    payload = huge_frame(frames.BINARY, binary())

    def once() -> None:
        with Client(clean) as client:
            client.open("/echo")
            assert len(exchange(client, [payload]).payload) == SIZE
            client.finish()

    once()
    before = stats(clean)["rss"]
    run_all([once] * 6, at_once=2)
    assert stats(clean)["rss"] - before < 3 * SIZE


def test_one_byte_more_than_allowed(clean: Server) -> None:
    """Refused by its declared length, before it is sent."""
    with Client(clean) as client:
        client.open("/echo")
        client.send(b"\x82\xff" + (1 << 26).to_bytes(8, "big") + b"\0\0\0\0")
        assert client.read_close() == 1009
        client.read_eof()
