"""Compressed messages meant to do harm: at a real server, whose memory is watched.

Each must end with its close code, cost no more memory than `max_length` and a constant, and
leave nothing.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from ..support import frames
from ..support.servers import Server
from .harness import TIMEOUT, Client, huge_frame, run_all

MIB = 1 << 20
CONSTANT = 4 * MIB  # what a worker may take for anything else
OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
RSV1, RSV2, RSV3 = 4, 2, 1


def pack(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def packed_frame(opcode: int, payload: bytes, fin: bool = True, rsv: int = RSV1) -> bytes:
    frame = huge_frame(opcode, payload, fin)
    return bytes([frame[0] | rsv << 4]) + frame[1:]


BOMB = pack(bytes(64 * MIB))  # 64 KiB
HELLO = packed_frame(frames.TEXT, pack(b"hello"))
ECHO = "/echo?deflate=1"


def connect(server: Server, path: str = ECHO) -> Client:
    """An open connection with both contexts in use."""
    client = Client(server).open(path, headers=OFFER)
    client.send(HELLO)
    answer = client.read()
    assert answer.rsv == RSV1
    assert zlib.decompressobj(-15).decompress(answer.payload) == b"hello"
    return client


def memory(pid: int, name: str) -> int:
    """VmRSS is what a process has now, VmHWM the most that it had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) << 10


@contextlib.contextmanager
def grows_at_most(server: Server, size: int) -> Iterator[None]:
    (pid,) = server.worker_pids()
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the most that it had is forgotten
    except OSError:
        pytest.skip("the most memory of a process cannot be measured here")
    before = memory(pid, "VmRSS")
    yield
    grown = memory(pid, "VmHWM") - before
    assert grown <= size, f"{grown / MIB:.1f} MiB, not {size / MIB:.1f}"


# ---------------------------------------------------------------- too much


@pytest.mark.parametrize("limit", [MIB, 16 * MIB, 64 * MIB - 1])
def test_a_bomb(clean: Server, limit: int) -> None:
    assert len(BOMB) < 66_000
    path = f"{ECHO}&max_length={limit}"
    # As the message grows, the C library may have to copy it: less than twice.
    with connect(clean, path) as client, grows_at_most(clean, limit * 3 // 2 + CONSTANT):
        client.send(packed_frame(frames.BINARY, BOMB))
        assert client.read_close() == 1009
        client.read_eof()


def test_a_bomb_in_fragments(clean: Server) -> None:
    """It is inflated when it is whole."""
    path = f"{ECHO}&max_length={MIB}"
    with connect(clean, path) as client, grows_at_most(clean, MIB + CONSTANT):
        client.send(packed_frame(frames.BINARY, BOMB[:1000], fin=False))
        for start in range(1000, len(BOMB), 1000):
            last = start + 1000 >= len(BOMB)
            piece = BOMB[start : start + 1000]
            client.send(frames.frame(frames.PING))
            client.send(packed_frame(frames.CONTINUATION, piece, last, rsv=0))
        assert client.read_close() == 1009
        client.read_eof()


def test_many_bombs_one_after_the_other(clean: Server) -> None:
    """What one has taken serves the next."""

    def bomb() -> None:
        with connect(clean, f"{ECHO}&max_length={MIB}") as client:
            client.send(packed_frame(frames.BINARY, BOMB))
            assert client.read_close() == 1009
            client.read_eof()

    with grows_at_most(clean, MIB + CONSTANT):
        for _ in range(30):
            bomb()


def test_many_bombs_at_once(clean: Server) -> None:
    """The hub inflates one at a time."""

    def bomb() -> None:
        with connect(clean, f"{ECHO}&max_length={8 * MIB}") as client:
            client.send(packed_frame(frames.BINARY, BOMB))
            assert client.read_close() == 1009
            client.read_eof()

    # One bomb, which may be copied as it grows; for each connection 300 KiB and its first step.
    with grows_at_most(clean, 2 * 8 * MIB + 3 * CONSTANT + 30 * MIB // 8):
        run_all([bomb] * 30, at_once=30)


def test_many_messages_that_are_just_allowed(clean: Server) -> None:
    """Together they are far more than the queue may hold: reading must stop in between."""
    one = packed_frame(frames.BINARY, pack(bytes(MIB)))
    count = 60_000 // len(one)
    path = f"/slow?delay=0.01&deflate=1&max_length={MIB}"
    with connect(clean, path) as client, grows_at_most(clean, 4 * MIB + CONSTANT):
        client.send(one * count)
        for _ in range(count):
            assert client.read().rsv == RSV1
        client.finish()


# ---------------------------------------------------------------- for a view that does not read

WIDE = "\U0001f600".encode()  # as the last character of a text it widens all of it to 4 bytes
LIMIT = 4 * MIB


def wide_text(size: int) -> bytes:
    """A compressed text of `size` bytes, which takes nearly 4 times as much when it is stored."""
    return packed_frame(frames.TEXT, pack(b"a" * (size - len(WIDE)) + WIDE))


UNREAD = {
    # The frames, how many, and what a worker may take: a queue of 1 MiB and one message more,
    # which takes 4 times its bytes when it is stored, and twice more while it is made.
    "two bombs": (wide_text(LIMIT), 2, MIB + 6 * LIMIT),
    "many bombs": (wide_text(LIMIT), 16, MIB + 6 * LIMIT),
    "many small ones": (wide_text(100_000), 500, 2 * MIB),
    "after a small one": (wide_text(1000) + wide_text(LIMIT), 8, MIB + 6 * LIMIT),
}
assert len(UNREAD["many small ones"][0]) < 150


@pytest.mark.parametrize("name", UNREAD)
def test_a_view_that_does_not_read(clean: Server, name: str) -> None:
    """It holds a queue and one message, whatever was sent; then all of it is read."""
    data, count, size = UNREAD[name]
    data = data * count
    path = f"/unread?key={os.urandom(8).hex()}&deflate=1&max_length={LIMIT}"
    with Client(clean).open("/echo") as honest, Client(clean).open(path, headers=OFFER) as client:
        honest.echo()
        with grows_at_most(clean, size + CONSTANT):
            sender = gevent.spawn(client.send, data)
            # The hub reads once from each connection before it can answer this again.
            for _ in range(2 * len(data) // 4096 + 20):
                honest.echo()
        # Then one message after the other, beside the one that the view has in its hands.
        with grows_at_most(clean, size + 4 * LIMIT + CONSTANT):
            assert clean.get("/release" + path[path.index("?") :])[0] == 200
            sender.get(timeout=TIMEOUT)
            client.text("count")
            sent = count * (2 if name == "after a small one" else 1)
            answer = zlib.decompressobj(-15).decompress(client.read().payload)
            assert answer == str(sent).encode()
        client.finish()
        honest.finish()


# ---------------------------------------------------------------- wrong


@pytest.mark.parametrize(
    "payload",
    [b"\xff" * 20, os.urandom(1 << 16) + b"\7", pack(b"x" * 5000)[:-3], b"\6", b"\0\0"],
    ids=["no-block", "noise", "cut-off", "block-type-3", "half-a-header"],
)
@pytest.mark.parametrize("opcode", [frames.TEXT, frames.BINARY])
def test_bad_data(clean: Server, opcode: int, payload: bytes) -> None:
    with connect(clean) as client:
        client.send(packed_frame(opcode, payload))
        assert client.read_close() == 1007
        client.read_eof()


def test_text_that_is_not_utf8(clean: Server) -> None:
    with connect(clean) as client:
        client.send(packed_frame(frames.TEXT, pack(b"gr\xfc\xdfe")))
        assert client.read_close() == 1007
        client.read_eof()


@pytest.mark.parametrize(
    "data",
    [
        packed_frame(frames.TEXT, pack(b"x"), rsv=RSV1 | RSV2),
        packed_frame(frames.BINARY, b"x", rsv=RSV3),
        packed_frame(frames.PING, b"x"),
        packed_frame(frames.CLOSE, b""),
        packed_frame(frames.TEXT, b"x", fin=False) + packed_frame(frames.CONTINUATION, b"x"),
        packed_frame(frames.TEXT, b"x", False, 0) + packed_frame(frames.CONTINUATION, b"x"),
    ],
    ids=["rsv2", "rsv3", "ping", "close", "continuation", "continuation-of-plain"],
)
def test_misused_bits(clean: Server, data: bytes) -> None:
    with connect(clean) as client:
        client.send(data)
        assert client.read_close() == 1002
        client.read_eof()


def test_compressed_though_nothing_was_agreed_on(clean: Server) -> None:
    with Client(clean).open("/echo?deflate=1") as client:
        client.send(HELLO)
        assert client.read_close() == 1002
        client.read_eof()


# ---------------------------------------------------------------- gone


def test_peers_that_vanish(clean: Server) -> None:
    """In the middle of a compressed message, and of a large answer."""

    def vanish(number: int) -> None:
        with connect(clean) as client:
            if number % 2:
                client.send(packed_frame(frames.BINARY, BOMB[:5000], fin=False))
            else:
                client.send(packed_frame(frames.BINARY, pack(os.urandom(MIB))))
            client.reset()

    run_all([lambda number=number: vanish(number) for number in range(100)], at_once=50)
