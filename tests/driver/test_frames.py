"""The numbers of RFC 6455, what a close frame may say, and the headers of frames.

The scanners of whole messages are tested with their C twins in test_speedups.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faye_wsgi.driver.frames import (
    CloseCode,
    Opcode,
    build_frame,
    build_header,
    check_close,
    close_payload,
    is_valid_close_code,
)

from ..support import frames

VALID = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def test_the_opcodes_of_the_rfc() -> None:
    numbers = {name: member.value for name, member in Opcode.__members__.items()}
    assert numbers == {
        "CONTINUATION": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


@pytest.mark.parametrize("member", [Opcode.PING, CloseCode.GOING_AWAY])
def test_numbers_with_names_are_shown_as_numbers(member: Any) -> None:
    """As they are on Python 3.11 and later: logs and messages do not differ by version."""
    number = str(member.value)
    assert (str(member), f"{member}") == (number, number)
    assert f"{member:5d}" == f"{member.value:5d}"
    assert member.name in repr(member)


# Closing


def test_codes_that_may_stand_in_a_close_frame() -> None:
    assert {code for code in range(-1, 70_000) if is_valid_close_code(code)} == VALID


def test_no_code_that_only_reports_may_be_sent() -> None:
    for code in (CloseCode.NO_STATUS_RECEIVED, CloseCode.ABNORMAL_CLOSURE, 1015, 1004):
        with pytest.raises(ValueError, match=f"{int(code)} cannot be sent"):
            check_close(code, "")


@pytest.mark.parametrize("code", ["1000", 1000.0, None, True, b"\x03\xe8"])
def test_a_code_is_an_int(code: Any) -> None:
    with pytest.raises(TypeError):
        check_close(code, "")


@pytest.mark.parametrize("reason", [None, b"bye", 7])
def test_a_reason_is_a_str(reason: Any) -> None:
    with pytest.raises(TypeError):
        check_close(1000, reason)


@pytest.mark.parametrize("longest", ["x" * 123, "é" * 61 + "x", "\U0001f600" * 30 + "xyz"])
def test_a_reason_has_123_bytes_at_most(longest: str) -> None:
    check_close(1000, longest)
    with pytest.raises(ValueError, match="123"):
        check_close(1000, longest + "x")


def test_a_reason_that_is_no_unicode() -> None:
    with pytest.raises(ValueError):
        check_close(1000, "\ud800")


@given(st.sampled_from(sorted(VALID)), st.text(max_size=30))
def test_what_passes_the_check_fits_a_close_frame(code: int, reason: str) -> None:
    check_close(code, reason)
    payload = close_payload(code, reason)
    assert len(payload) <= 125
    assert (int.from_bytes(payload[:2], "big"), payload[2:].decode()) == (code, reason)


def test_no_code_is_an_empty_payload() -> None:
    assert close_payload(None) == b""
    assert close_payload(1000) == b"\x03\xe8"


# Headers


@pytest.mark.parametrize(
    "length, header",
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (2**63 - 1, b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"),
    ],
)
def test_a_length_has_its_shortest_form(length: int, header: bytes) -> None:
    assert build_header(0x82, length) == header
    masked = build_header(0x82, length, 0x80)
    assert masked == bytes((header[0], header[1] | 0x80)) + header[2:]


@given(
    st.sampled_from([0x00, 0x01, 0x81, 0x82, 0x88, 0x8A, 0xC1, 0xF2]),
    st.binary(max_size=300),
    st.none() | st.binary(min_size=4, max_size=4),
)
def test_a_frame_is_read_as_it_was_built(first: int, payload: bytes, key: bytes | None) -> None:
    (found,), rest = frames.parse(build_frame(first, payload, key))
    assert (found.opcode, found.payload, found.mask, rest) == (first & 15, payload, key, b"")
