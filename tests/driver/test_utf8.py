"""UTF-8 as it arrives: every split of good and bad texts, and the first bad byte.

What is right is computed here from the table of RFC 3629 §4, not from a decoder.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faye_wsgi.driver.utf8 import Utf8Validator

# RFC 3629 §4: the first byte, and the bytes that may follow.
TAIL = (0x80, 0xBF)
TABLE = [
    ((0x00, 0x7F), []),
    ((0xC2, 0xDF), [TAIL]),
    ((0xE0, 0xE0), [(0xA0, 0xBF), TAIL]),
    ((0xE1, 0xEC), [TAIL, TAIL]),
    ((0xED, 0xED), [(0x80, 0x9F), TAIL]),
    ((0xEE, 0xEF), [TAIL, TAIL]),
    ((0xF0, 0xF0), [(0x90, 0xBF), TAIL, TAIL]),
    ((0xF1, 0xF3), [TAIL, TAIL, TAIL]),
    ((0xF4, 0xF4), [(0x80, 0x8F), TAIL, TAIL]),
]

GOOD = [
    b"",
    b"Hello",
    b"\x00\x7f",
    "κόσμε".encode(),
    b"\xc2\x80\xdf\xbf",
    b"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf",
    b"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
    "\ufeffa\u2028👍🏽".encode(),
]
BAD = [
    b"\x80",
    b"a\xbfb",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xc3(",
    b"\xc3\xc3\xa9",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xe2\x82(",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\xbd\xed\xb1\x8d",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf0\x9f\x98(",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"ok\xff",
]
CUT = [b"\xc3", b"\xe2", b"\xe2\x82", b"\xed", b"\xed\x9f", b"\xf0", b"\xf0\x9f", b"a\xf4\x8f\xbf"]


def first_bad_byte(data: bytes) -> int:
    """The index of the first byte that no text has there; -1 if there is none."""
    expected: list[tuple[int, int]] = []
    for index, byte in enumerate(data):
        if expected:
            low, high = expected.pop(0)
            if not low <= byte <= high:
                return index
            continue
        row = next((rest for (low, high), rest in TABLE if low <= byte <= high), None)
        if row is None:
            return index
        expected = list(row)
    return -1


def splits(data: bytes) -> Iterator[list[bytes]]:
    """``data`` cut in every way within its first ten bytes, which hold most of the table."""
    if not data:
        yield []
        return
    for bits in range(1 << min(len(data) - 1, 9)):
        pieces, start = [], 0
        for index in range(1, len(data)):
            if bits >> index - 1 & 1:
                pieces.append(data[start:index])
                start = index
        yield [*pieces, data[start:]]


def accepts(pieces: list[bytes]) -> bool:
    validator = Utf8Validator()
    return all(validator.accepts(piece) for piece in pieces) and validator.accepts(b"", True)


@pytest.mark.parametrize("data", GOOD)
def test_good_texts_in_every_split(data: bytes) -> None:
    assert first_bad_byte(data) == -1 and data.decode() is not None
    assert all(accepts(pieces) for pieces in splits(data))


@pytest.mark.parametrize("data", [*BAD, *CUT])
def test_bad_texts_in_every_split(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        data.decode()
    assert not any(accepts(pieces) for pieces in splits(data))


@pytest.mark.parametrize("data", [*BAD, *(good + bad for good in GOOD for bad in BAD)])
def test_the_first_bad_byte_is_found_when_it_arrives(data: bytes) -> None:
    bad = first_bad_byte(data)
    one_by_one, at_once = Utf8Validator(), Utf8Validator()
    assert all(one_by_one.accepts(data[i : i + 1]) for i in range(bad))
    assert not one_by_one.accepts(data[bad : bad + 1])
    assert at_once.accepts(data[:bad])
    assert not at_once.accepts(data[bad:])
    assert not Utf8Validator().accepts(data[: bad + 1])


@pytest.mark.parametrize("data", CUT)
def test_a_cut_character_is_bad_only_at_the_end(data: bytes) -> None:
    validator = Utf8Validator()
    assert validator.accepts(data)
    assert not validator.accepts(b"", True)
    assert not Utf8Validator().accepts(data, True)


def test_every_start_of_two_bytes() -> None:
    for number in range(1 << 16):
        data = number.to_bytes(2, "big")
        validator = Utf8Validator()
        found = validator.accepts(data[:1]) and validator.accepts(data[1:])
        assert found == (first_bad_byte(data) == -1), data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type) -> None:
    assert Utf8Validator().accepts(kind("é".encode()), True)
    assert not Utf8Validator().accepts(kind(b"\xff"))


def test_validators_share_nothing() -> None:
    one, other = Utf8Validator(), Utf8Validator()
    assert one.accepts(b"\xc3") and other.accepts(b"a", True)
    assert one.accepts(b"\xa9", True)
