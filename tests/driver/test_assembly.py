"""A message in pieces: any cut of its frames gives the same payload."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faye_wsgi.driver.assembly import Assembly
from faye_wsgi.driver.masking import mask_python

LARGE_PIECE = 1024
KEY = b"\x01\x02\x03\x04"
TEXT, BINARY, CONTINUATION = 1, 2, 0


def feed(assembly: Assembly, frames: list[list[bytes]], key: bytes) -> list[bool]:
    """Each frame in its pieces, masked as a client does; what `add` says of each piece."""
    good = []
    for number, pieces in enumerate(frames):
        payload = b"".join(pieces)
        sent = mask_python(payload, key) if key else payload
        fin = 0x80 if number == len(frames) - 1 else 0
        assembly.begin_frame(fin | (CONTINUATION if number else assembly.opcode), len(sent), key)
        start = 0
        for piece in pieces:
            good.append(assembly.add(sent[start : start + len(piece)]))
            start += len(piece)
    return good


pieces = st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=5)


@given(st.lists(pieces, min_size=1, max_size=4), st.sampled_from([b"", KEY]))
def test_the_payload_of_all_frames(frames: list[list[bytes]], key: bytes) -> None:
    assembly = Assembly(BINARY, True)
    assert all(feed(assembly, frames, key))
    whole = b"".join(piece for frame in frames for piece in frame)
    assert assembly.payload() == whole
    assert (assembly.stored, assembly.frames, assembly.remaining) == (len(whole), len(frames), 0)
    assert assembly.fin


@pytest.mark.parametrize("key", [b"", KEY])
def test_large_and_small_pieces(key: bytes) -> None:
    frame = [b"a", b"b" * LARGE_PIECE, b"c", b"d", b"e" * (2 * LARGE_PIECE)]
    assembly = Assembly(BINARY, True)
    feed(assembly, [frame], key)
    assert assembly.payload() == b"".join(frame)


@pytest.mark.parametrize("key", [b"", KEY])
def test_a_bad_byte_of_a_text_is_found_in_its_piece(key: bytes) -> None:
    assembly = Assembly(TEXT, True)
    assert feed(assembly, [[b"fine ", b"\xff", b"more"]], key)[:2] == [True, False]


def test_a_text_that_extensions_have_made_is_not_looked_at() -> None:
    assembly = Assembly(0x40 | TEXT, False)
    assert feed(assembly, [[b"\xff\xfe"]], KEY) == [True]
    assert assembly.first & 0x40 and assembly.payload() == b"\xff\xfe"


def test_a_text_that_ends_within_a_character() -> None:
    assembly = Assembly(TEXT, True)
    assert feed(assembly, [["é".encode()[:1]]], KEY) == [False]
