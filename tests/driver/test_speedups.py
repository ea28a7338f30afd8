"""The C functions against their Python twins, and both against a reading by hand.

The scanner of messages has no twin: the driver's loop must agree with it.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faye_wsgi.driver import frames as driver_frames
from faye_wsgi.driver import hybi, masking
from faye_wsgi.driver.events import ErrorEvent
from faye_wsgi.driver.hybi import Hybi

from ..support import frames

TWINS = {
    "mask": masking.mask_python,
    "mask_pieces": masking.mask_pieces_python,
    "build_frame": driver_frames.build_frame_python,
    "build_message": driver_frames.build_message_python,
    "stored_size": driver_frames.stored_size_python,
}

try:
    speedups: Any = importlib.import_module("faye_wsgi.driver._speedups")
except ImportError:
    speedups = None

needs_c = pytest.mark.skipif(speedups is None, reason="the C extension was not built")

KEY = st.binary(min_size=4, max_size=4)
SIZES = st.sampled_from([0, 1, 7, 8, 9, 125, 126, 127, 300, 65535, 65536, 70000])
TEXTS = st.one_of(st.text(max_size=300), SIZES.map("x".__mul__), SIZES.map("ü".__mul__))
MESSAGES = st.one_of(TEXTS, st.binary(max_size=300), SIZES.map(b"\xff".__mul__))


def implementations(name: str) -> list[Any]:
    found = [pytest.param(TWINS[name], id="python")]
    if speedups is not None:
        found.append(pytest.param(getattr(speedups, name), id="c"))
    return found


def encode(message: str | bytes, key: bytes | None) -> bytes:
    opcode = frames.TEXT if isinstance(message, str) else frames.BINARY
    data = message.encode() if isinstance(message, str) else message
    return frames.frame(opcode, data, mask=key)


@pytest.mark.parametrize("build", implementations("build_message"))
@given(message=MESSAGES, key=st.none() | KEY)
def test_a_message_becomes_the_shortest_frame(
    build: Any, message: str | bytes, key: bytes | None
) -> None:
    assert build(message, key) == encode(message, key)
    assert build(message) == encode(message, None)


@pytest.mark.parametrize("build", implementations("build_frame"))
@given(st.integers(0, 255), st.binary(max_size=300) | SIZES.map(bytes), st.none() | KEY)
def test_a_frame_has_its_first_byte_and_the_shortest_header(
    build: Any, first: int, payload: bytes, key: bytes | None
) -> None:
    fin, rsv = bool(first & 0x80), first >> 4 & 7
    expected = frames.frame(first & 15, payload, fin=fin, rsv=rsv, mask=key)
    assert build(first, payload, key) == build(first, memoryview(payload), key) == expected


@pytest.mark.parametrize("build", implementations("build_frame"))
@pytest.mark.parametrize(
    "wrong", [(), (1,), (256, b""), (-1, b""), (1, "a"), (1, b"a", b"123"), (1, b"a", 5)]
)
def test_what_is_no_frame(build: Any, wrong: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError)):
        build(*wrong)


@pytest.mark.parametrize("build", implementations("build_message"))
def test_buffers_and_what_is_none(build: Any) -> None:
    assert build(bytearray(b"abc")) == build(memoryview(b"abc")) == b"\x82\x03abc"
    with pytest.raises(UnicodeEncodeError):
        build("\ud800")
    for wrong in ((1,), (), ("a", None, None)):
        with pytest.raises(TypeError):
            build(*wrong)
    for key in (b"", b"123", b"12345"):
        with pytest.raises(ValueError):
            build("abc", key)


@needs_c
@given(messages=st.lists(MESSAGES, max_size=5), key=st.none() | KEY, rest=st.binary(max_size=1))
def test_a_run_of_messages_is_read_back(
    messages: list[Any], key: bytes | None, rest: bytes
) -> None:
    run = b"".join(encode(message, key) for message in messages)
    assert speedups.parse_messages(key is not None, 2**20, run + rest) == (messages, rest)


@needs_c
@settings(max_examples=500)
@given(
    messages=st.lists(MESSAGES, min_size=1, max_size=4),
    key=st.none() | KEY,
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 20),
    limit=st.sampled_from([0, 5, 125, 126, 2**20]),
)
def test_the_scanner_and_the_loop_agree(
    messages: list[Any], key: bytes | None, changes: Any, cut: int, limit: int
) -> None:
    """What the scanner takes is what the driver's loop makes of the same bytes."""
    run = bytearray(b"".join(encode(message, key) for message in messages))
    for place, value in changes:
        run[place % len(run)] = value
    data = bytes(run[: len(run) - cut])
    found, rest = speedups.parse_messages(key is not None, limit, data)
    with mock.patch.object(hybi, "parse_messages", None):
        driver = Hybi(client=key is None, max_length=limit)
        assert driver.receive_data(data[: len(data) - len(rest)]) == found
        assert driver.missing == 0 and driver._rest == b""
        # It stops before what is no whole plain message, and not earlier.
        after = driver.receive_data(rest)
    assert not after or rest[0] not in (0x81, 0x82) or isinstance(after[0], ErrorEvent)


@needs_c
@given(st.lists(st.binary(max_size=40) | st.binary(max_size=40).map(bytearray), max_size=6), KEY)
def test_pieces_are_unmasked_together(pieces: list[Any], key: bytes) -> None:
    assert speedups.mask_pieces(pieces, key) == masking.mask_pieces_python(pieces, key)


@needs_c
@pytest.mark.parametrize(
    "name, arguments",
    [
        ("mask", (b"a",)),
        ("mask", (1, b"1234")),
        ("mask", (b"a", b"123")),
        ("mask_pieces", ([b"a"], b"123")),
        ("mask_pieces", ([1], b"1234")),
        ("mask_pieces", ((b"a",), b"1234")),
        ("parse_messages", (True, 1)),
        ("parse_messages", (True, -1, b"a")),
        ("parse_messages", (True, 1, "a")),
        ("parse_messages", (True, 1, bytearray(b"a"))),
        ("stored_size", (1,)),
    ],
)
def test_wrong_arguments_raise(name: str, arguments: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        getattr(speedups, name)(*arguments)


@pytest.mark.parametrize("size_of", implementations("stored_size"))
@given(message=MESSAGES)
def test_a_message_is_counted_as_it_is_stored(size_of: Any, message: str | bytes) -> None:
    if isinstance(message, bytes):
        assert size_of(message) == len(message)
        return
    last = max(map(ord, message), default=0)
    width = 1 if last < 0x100 else 2 if last < 0x10000 else 4
    assert size_of(str(message.encode(), "utf-8")) == width * len(message)


@pytest.mark.parametrize("size_of", implementations("stored_size"))
@pytest.mark.parametrize("text", ["\xe9", "\u20ac", "\U0001f600", "a" * 9 + "\U0001f600"])
def test_a_character_is_counted_the_same_whatever_is_kept_beside_it(
    size_of: Any, text: str
) -> None:
    """Python has but one object for a text of one Latin character; its UTF-8 may be kept in it."""
    fresh = str(text.encode(), "utf-8")
    counted = size_of(fresh)
    if len(text) == 1:
        ctypes.pythonapi.PyUnicode_AsUTF8(ctypes.py_object(fresh))
    assert size_of(str(text.encode(), "utf-8")) == counted
