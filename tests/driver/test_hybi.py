"""The data phase of RFC 6455, rule by rule: bytes in, events and bytes out.

Input is built by ``tests.support.frames``, which shares no code with the package.
"""

from __future__ import annotations

import sys
from array import array

import pytest

from faye_wsgi.driver.base import STEP, ReadyState
from faye_wsgi.driver.events import (
    CloseEvent,
    Data,
    ErrorEvent,
    Event,
    PingEvent,
    PongEvent,
)
from faye_wsgi.driver.frames import CloseCode, build_frame, check_close, is_valid_close_code
from faye_wsgi.driver.hybi import MAX_FRAGMENTS, MAX_LENGTH, Hybi
from faye_wsgi.extensions.base import Extension
from faye_wsgi.extensions.negotiation import negotiate
from faye_wsgi.extensions.permessage_deflate import permessage_deflate

from ..extensions.fakes import Reverse
from ..support import frames
from ..support.frames import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, frame, text

CONTROL = [CLOSE, PING, PONG]
DATA = [CONTINUATION, TEXT, BINARY]
VALID_CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
BAD_TEXTS = [
    b"\x80",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf5",
    b"ab\xff",
    b"\xc3",
]


def client(**options: object) -> Hybi:
    """A driver of the client's role whose masking keys are known."""
    return Hybi(client=True, random=lambda size: MASK[:size], **options)  # type: ignore[arg-type]


def receive(data: bytes, **options: object) -> list[Data | Event]:
    """What a new driver on a server says to ``data``."""
    return Hybi(**options).receive_data(data)  # type: ignore[arg-type]


def failure(events: list[Data | Event]) -> int:
    """The code of the failure that ``events`` ends with: an error, then a close, alike."""
    error, close = events[-2:]
    assert isinstance(error, ErrorEvent) and isinstance(close, CloseEvent)
    assert error.message and error.message == close.reason
    assert close.code is not None
    return close.code


def only_frame(data: bytes) -> frames.Frame:
    """The one frame that ``data`` is."""
    found, rest = frames.parse(data)
    assert len(found) == 1 and rest == b""
    return found[0]


# §5.2, §5.6: whole messages


@pytest.mark.parametrize(
    ("opcode", "payload", "event"),
    [
        (TEXT, b"Hello", "Hello"),
        (TEXT, b"", ""),
        (TEXT, "κόσμε 👍 \0 \ufeff".encode(), "κόσμε 👍 \0 \ufeff"),
        (BINARY, b"\x00\xff\x80", b"\x00\xff\x80"),
        (BINARY, b"", b""),
        (PING, b"Hello", PingEvent(b"Hello")),
        (PING, b"", PingEvent(b"")),
        (PONG, b"\xff", PongEvent(b"\xff")),
        (PONG, b"x" * 125, PongEvent(b"x" * 125)),
    ],
)
def test_each_opcode(opcode: int, payload: bytes, event: Event) -> None:
    assert receive(frame(opcode, payload)) == [event]
    assert client().receive_data(frame(opcode, payload, mask=None)) == [event]


def test_types_are_exact() -> None:
    for data in (frame(BINARY, b"abc"), frame(BINARY, b"ab", fin=False) + frame(0, b"c")):
        (event,) = receive(data)
        assert type(event) is bytes


def test_frames_of_the_rfc() -> None:
    # RFC 6455 §5.7
    masked = bytes.fromhex("81 85 37fa213d 7f9f4d5158")
    assert receive(masked) == ["Hello"]
    reader = client()
    assert reader.receive_data(bytes.fromhex("81 05 48656c6c6f")) == ["Hello"]
    assert reader.receive_data(bytes.fromhex("01 03 48656c")) == []
    assert reader.receive_data(bytes.fromhex("80 02 6c6f")) == ["Hello"]
    assert reader.receive_data(bytes.fromhex("89 05 48656c6c6f")) == [PingEvent(b"Hello")]
    assert client().message("Hello") == masked
    assert Hybi().message("Hello") == bytes.fromhex("81 05 48656c6c6f")
    assert Hybi().message(bytes(256))[:4] == bytes.fromhex("82 7e 0100")
    assert Hybi().message(bytes(65536))[:10] == bytes.fromhex("82 7f 0000000000010000")


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("fin", [True, False])
def test_unknown_opcodes_fail(opcode: int, fin: bool) -> None:
    assert failure(receive(frame(opcode, b"", fin=fin))) == 1002


@pytest.mark.parametrize("opcode", [*DATA, *CONTROL])
@pytest.mark.parametrize("rsv", range(1, 8))
def test_reserved_bits_fail(opcode: int, rsv: int) -> None:
    assert failure(receive(frame(opcode, b"", rsv=rsv))) == 1002


@pytest.mark.parametrize("rsv", [1, 2, 4])
def test_reserved_bits_fail_on_later_fragments(rsv: int) -> None:
    data = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=rsv)
    assert failure(receive(data)) == 1002


# §5.1, §5.3: masking


@pytest.mark.parametrize("opcode", [TEXT, BINARY, *CONTROL])
def test_a_server_refuses_unmasked_frames(opcode: int) -> None:
    assert failure(receive(frame(opcode, b"", mask=None))) == 1002


@pytest.mark.parametrize("opcode", [TEXT, BINARY, *CONTROL])
def test_a_client_refuses_masked_frames(opcode: int) -> None:
    assert failure(client().receive_data(frame(opcode, b""))) == 1002


def test_masking_is_checked_on_each_fragment() -> None:
    data = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", mask=None)
    assert failure(receive(data)) == 1002


@pytest.mark.parametrize("key", [bytes(4), b"\xff" * 4, b"\x00\x01\x00\x00", b"\x80\x00\x00\x7f"])
def test_any_key_will_do(key: bytes) -> None:
    data = frame(TEXT, "Hello", mask=key)
    assert receive(data) == ["Hello"]
    driver = Hybi()
    assert [e for i in range(len(data)) for e in driver.receive_data(data[i : i + 1])] == ["Hello"]


def test_the_key_turns_with_pieces_of_any_length() -> None:
    payload = bytes(range(251))
    data = frame(BINARY, payload)
    for step in range(1, 12):
        driver = Hybi()
        pieces = [data[i : i + step] for i in range(0, len(data), step)]
        assert [e for p in pieces for e in driver.receive_data(p)] == [payload]


def test_a_client_takes_a_new_key_for_every_frame() -> None:
    keys = iter(bytes([n] * 4) for n in range(1, 9))
    driver = Hybi(client=True, random=lambda size: next(keys))
    driver.receive_data(frame(PING, b"p", mask=None))
    sent = driver.message("a") + driver.message(b"b") + driver.fragment(b"c", TEXT, True)
    sent += (driver.ping(b"d") or b"") + driver.output() + driver.message("e")
    sent += driver.close(1000, "")
    found, rest = frames.parse(sent)
    assert rest == b""
    assert [f.mask for f in found] == [bytes([n] * 4) for n in range(1, 8)]
    assert [f.payload for f in found] == [b"a", b"b", b"c", b"d", b"p", b"e", b"\x03\xe8"]


# §5.2: the three length forms


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 128, 65535, 65536, 65537])
def test_lengths_in_and_out(size: int) -> None:
    payload = bytes(size)
    assert receive(frame(BINARY, payload)) == [payload]
    assert Hybi().message(payload) == frame(BINARY, payload, mask=None)
    assert client().message(payload) == frame(BINARY, payload)


@pytest.mark.parametrize(
    ("size", "form"), [(0, 16), (125, 16), (0, 64), (125, 64), (126, 64), (65535, 64)]
)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_longer_length_forms_than_needed_fail(size: int, form: int, opcode: int) -> None:
    data = frame(opcode, b"a" * size, length_form=form)
    assert failure(receive(data)) == 1002
    header = {16: 4, 64: 10}[form]
    assert failure(receive(data[:header])) == 1002  # before the key and the payload


@pytest.mark.parametrize("length", [2**63, 2**63 + 5, 2**64 - 1])
def test_the_top_bit_of_a_length_fails(length: int) -> None:
    data = b"\x82\xff" + length.to_bytes(8, "big")
    assert failure(receive(data)) == 1002


def test_the_greatest_length_is_merely_too_big() -> None:
    assert failure(receive(b"\x82\xff" + (2**63 - 1).to_bytes(8, "big"))) == 1009


# §5.4: fragmentation


def test_fragments_make_one_message() -> None:
    data = frame(TEXT, "Hel", fin=False) + frame(0, "lo ", fin=False) + frame(0, "you")
    assert receive(data) == ["Hello you"]


def test_fragments_may_be_empty() -> None:
    data = frame(BINARY, b"", fin=False) + frame(0, b"", fin=False) + frame(0, b"")
    assert receive(data + text("next")) == [b"", "next"]


def test_a_character_may_be_cut_by_fragments() -> None:
    pieces = [bytes([byte]) for byte in "👍é".encode()]
    data = frame(TEXT, pieces[0], fin=False)
    data += b"".join(frame(0, piece, fin=False) for piece in pieces[1:]) + frame(0, b"")
    assert receive(data) == ["👍é"]


def test_control_frames_come_between_fragments() -> None:
    data = frame(TEXT, "a", fin=False) + frame(PING, b"1") + frame(0, "b", fin=False)
    data += frame(PONG, b"2") + frame(PING, b"") + frame(0, "c")
    assert receive(data) == [
        PingEvent(b"1"),
        PongEvent(b"2"),
        PingEvent(b""),
        "abc",
    ]


def test_a_close_frame_in_the_middle_of_a_message_is_an_ordinary_close() -> None:
    data = frame(TEXT, "a", fin=False) + frames.close(1000, "bye") + frame(0, "b")
    assert receive(data) == [CloseEvent(1000, "bye")]


@pytest.mark.parametrize("fin", [True, False])
def test_a_continuation_of_nothing_fails(fin: bool) -> None:
    assert failure(receive(frame(CONTINUATION, b"a", fin=fin))) == 1002
    events = receive(text("one") + frame(CONTINUATION, b"a", fin=fin))
    assert events[0] == "one" and failure(events) == 1002


@pytest.mark.parametrize("first", [TEXT, BINARY])
@pytest.mark.parametrize("second", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_a_message_inside_another_fails(first: int, second: int, fin: bool) -> None:
    data = frame(first, b"a", fin=False) + frame(second, b"b", fin=fin)
    assert failure(receive(data)) == 1002


def test_nothing_of_one_message_stays_for_the_next() -> None:
    driver = Hybi()
    for _ in range(3):
        data = frame(TEXT, b"\xc3", fin=False) + frame(0, b"\xa9") + frame(BINARY, b"\xff")
        assert driver.receive_data(data) == ["é", b"\xff"]


# §5.5: control frames


@pytest.mark.parametrize("opcode", CONTROL)
def test_fragmented_control_frames_fail(opcode: int) -> None:
    assert failure(receive(frame(opcode, b"", fin=False))) == 1002


@pytest.mark.parametrize("opcode", CONTROL)
@pytest.mark.parametrize("size", [126, 65536])
def test_long_control_frames_fail_at_their_second_byte(opcode: int, size: int) -> None:
    data = frame(opcode, bytes(size))
    assert receive(data[:1]) == []
    assert failure(receive(data[:2])) == 1002


# §5.5.2, §5.5.3: pings and pongs


@pytest.mark.parametrize("payload", [b"", b"Hello", bytes(range(125))])
def test_a_ping_is_answered_once(payload: bytes) -> None:
    driver = Hybi()
    assert driver.output() == b""
    driver.receive_data(frame(PING, payload))
    assert driver.output() == frame(PONG, payload, mask=None)
    assert driver.output() == b""


@pytest.mark.parametrize("mask", [None, MASK], ids=["client", "server"])
def test_each_ping_has_its_own_pong(mask: bytes | None) -> None:
    driver = client() if mask is None else Hybi()
    answer_mask = MASK if mask is None else None
    data = b"".join(
        frame(PING, b"%d" % n, mask=mask) + text("between", mask=mask) for n in range(10)
    )
    assert len(driver.receive_data(data)) == 20
    assert driver.output() == b"".join(frame(PONG, b"%d" % n, mask=answer_mask) for n in range(10))
    assert driver.output() == b""


def test_of_pongs_that_are_dropped_the_latest_stays() -> None:
    driver = client()
    for start in (0, 1000):
        pings = (frame(PING, b"%d" % n, mask=None) for n in range(start, start + 1000))
        assert len(driver.receive_data(b"".join(pings))) == 1000
        driver.drop_pongs()
    assert driver.output() == frame(PONG, b"1999")
    driver.drop_pongs()
    assert driver.output() == b""


def test_a_pong_is_not_answered() -> None:
    driver = Hybi()
    driver.receive_data(frame(PONG, b"unasked"))
    assert driver.output() == b""


def test_our_ping() -> None:
    assert Hybi().ping(b"x") == frame(PING, b"x", mask=None)
    assert client().ping(b"") == frame(PING, b"")


def test_a_ping_before_a_fault_is_answered_before_the_close_frame() -> None:
    driver = Hybi()
    driver.receive_data(frame(PING, b"p") + frame(3))
    found, rest = frames.parse(driver.closing_frame())
    assert rest == b"" and [f.opcode for f in found] == [PONG, CLOSE]
    assert driver.output() == b""


def test_no_pong_after_our_close() -> None:
    driver = Hybi()
    driver.receive_data(frame(PING, b"before"))
    driver.close(1000, "")
    assert driver.output() == b""
    assert driver.receive_data(frame(PING, b"after")) == [PingEvent(b"after")]
    assert driver.output() == b""


# §8.1: UTF-8, found as early as the first bad byte


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_bad_utf8_fails(bad: bytes) -> None:
    assert failure(receive(frame(TEXT, bad))) == 1007
    assert failure(receive(frame(TEXT, b"ok", fin=False) + frame(0, bad))) == 1007
    assert failure(client().receive_data(frame(TEXT, bad, mask=None))) == 1007


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"abc", b"\x80"),
        (b"\xc3", b"A"),
        (b"\xe0", b"\x9f"),
        (b"\xed", b"\xa0"),
        (b"\xf0", b"\x8f"),
        (b"\xf0\x90\x80", b"\xc0"),
        (b"\xf4", b"\x90"),
        ("κόσμε".encode(), b"\xff"),
    ],
)
@pytest.mark.parametrize("fin", [True, False])
def test_the_first_bad_byte_inside_an_unfinished_frame(good: bytes, bad: bytes, fin: bool) -> None:
    data = frame(TEXT, good + bad + bytes(300), fin=fin)
    start = 8  # two bytes, the longer length, the key
    driver = Hybi()
    assert driver.receive_data(data[: start + len(good)]) == []
    events = driver.receive_data(data[start + len(good) : start + len(good) + len(bad)])
    assert failure(events) == 1007


def test_the_first_bad_byte_inside_an_unfinished_message() -> None:
    driver = Hybi()
    assert driver.receive_data(frame(TEXT, b"\xe2\x82", fin=False)) == []
    assert driver.receive_data(frame(PING)) == [PingEvent(b"")]
    assert failure(driver.receive_data(frame(0, b"\x00", fin=False))) == 1007


def test_a_character_cut_off_by_the_end_of_the_message() -> None:
    data = frame(TEXT, b"a", fin=False) + frame(0, b"\xe2\x82", fin=False)
    assert failure(receive(data + frame(0, b""))) == 1007
    assert receive(data + frame(0, b"\xac")) == ["a€"]


def test_binary_messages_are_not_text() -> None:
    data = frame(BINARY, b"\xff", fin=False) + frame(0, b"\xfe\xed\xa0\x80")
    assert receive(data) == [b"\xff\xfe\xed\xa0\x80"]


# §5.5.1, §7.4: close frames


@pytest.mark.parametrize("code", VALID_CODES)
def test_a_valid_code_is_kept_and_echoed(code: int) -> None:
    driver = Hybi()
    assert driver.receive_data(frames.close(code, "why")) == [CloseEvent(code, "why")]
    assert only_frame(driver.closing_frame()).payload == code.to_bytes(2, "big")
    assert is_valid_close_code(code)


@pytest.mark.parametrize("code", INVALID_CODES)
def test_an_invalid_code_fails(code: int) -> None:
    driver = Hybi()
    assert failure(driver.receive_data(frames.close(code))) == 1002
    assert only_frame(driver.closing_frame()).close_code == 1002
    assert not is_valid_close_code(code)


def test_an_empty_close_frame() -> None:
    driver = Hybi()
    assert driver.receive_data(frames.close(None)) == [CloseEvent(1005, "")]
    assert driver.closing_frame() == b"\x88\x00"


def test_a_close_frame_of_one_byte_fails() -> None:
    driver = Hybi()
    assert failure(driver.receive_data(frame(CLOSE, b"\x03"))) == 1002
    assert only_frame(driver.closing_frame()).close_code == 1002


@pytest.mark.parametrize("reason", ["", "bye", "x" * 123, "κόσμε" * 12])
def test_reasons(reason: str) -> None:
    assert receive(frames.close(1000, reason)) == [CloseEvent(1000, reason)]
    sent = only_frame(client().close(4000, reason))
    assert (sent.opcode, sent.close_code, sent.close_reason) == (CLOSE, 4000, reason)


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_a_reason_that_is_no_utf8_fails(bad: bytes) -> None:
    assert failure(receive(frame(CLOSE, b"\x03\xe8" + bad))) == 1007


@pytest.mark.parametrize("code", INVALID_CODES)
def test_codes_that_may_not_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        check_close(code, "")


@pytest.mark.parametrize("code", VALID_CODES)
def test_codes_that_may_be_sent(code: int) -> None:
    check_close(code, "x" * 123)
    check_close(code, "é" * 61)


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62])
def test_a_reason_that_is_too_long_to_send(reason: str) -> None:
    with pytest.raises(ValueError, match="123"):
        check_close(1000, reason)


@pytest.mark.parametrize(("code", "reason"), [("1000", ""), (True, ""), (1000.0, ""), (1000, b"")])
def test_a_close_of_wrong_types(code: object, reason: object) -> None:
    with pytest.raises(TypeError):
        check_close(code, reason)  # type: ignore[arg-type]


# The closing handshake


def test_our_close_is_answered() -> None:
    driver = Hybi()
    states = [driver.state]
    assert driver.close(1000, "bye") == frames.close(1000, "bye", mask=None)
    states.append(driver.state)
    assert driver.receive_data(frames.close(1000, "bye")) == [CloseEvent(1000, "bye")]
    assert driver.closing_frame() == b""  # ours has gone out already
    states.append(driver.state)
    assert states == [ReadyState.OPEN, ReadyState.CLOSING, ReadyState.CLOSED]


def test_messages_after_our_close_are_dropped() -> None:
    driver = Hybi()
    assert driver.receive_data(frame(TEXT, "half", fin=False)) == []
    driver.close(1000, "")
    data = frame(0, "half") + text("late") + frame(BINARY, b"late")
    assert driver.receive_data(data + frames.close(1000)) == [CloseEvent(1000, "")]


def test_faults_after_our_close_are_still_faults() -> None:
    driver = Hybi()
    driver.close(1000, "")
    assert failure(driver.receive_data(text("x", mask=None))) == 1002
    assert driver.closing_frame() == b""


def test_what_came_before_a_close_can_be_answered() -> None:
    driver = Hybi()
    events = driver.receive_data(text("last") + frames.close(1001))
    assert events == ["last", CloseEvent(1001, "")]
    states = [driver.state]
    assert driver.message("last") == frame(TEXT, "last", mask=None)
    assert driver.closing_frame() == frames.close(1001, mask=None)
    states.append(driver.state)
    assert states == [ReadyState.OPEN, ReadyState.CLOSED]


def test_our_own_close_may_answer_the_peers() -> None:
    driver = Hybi()
    driver.receive_data(frames.close(1001))
    assert only_frame(driver.close(3000, "mine")).close_code == 3000
    assert driver.closing_frame() == b""


def test_a_close_frame_is_owed_once() -> None:
    driver = client()
    driver.receive_data(frames.close(1000, mask=None))
    assert driver.closing_frame() == frames.close(1000)
    assert driver.closing_frame() == b""


@pytest.mark.parametrize(
    ("data", "code"),
    [(frame(3), 1002), (frame(TEXT, b"\xff"), 1007), (frame(BINARY, bytes(11)), 1009)],
)
def test_a_failure_is_told_to_the_peer(data: bytes, code: int) -> None:
    driver = Hybi(max_length=10)
    events = driver.receive_data(text("first") + data + text("never"))
    assert events[0] == "first" and len(events) == 3
    assert failure(events) == code
    sent = only_frame(driver.closing_frame())
    assert (sent.close_code, sent.close_reason) == (code, events[-1].reason)  # type: ignore[attr-defined]
    assert driver.state == ReadyState.CLOSED


@pytest.mark.parametrize("end", [frame(3), frames.close(1000), frame(TEXT, b"\xff")])
def test_after_the_end_everything_is_swallowed(end: bytes) -> None:
    driver = Hybi()
    driver.receive_data(end)
    for data in (text("x"), frames.close(1000), frame(PING), frame(3), b"\x82", bytes(5000)):
        assert driver.receive_data(data) == []
    assert driver.receive_eof() == []
    assert driver.output() == b""


# §7.1.5: the end of TCP


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"\x81",
        frame(TEXT, b"abc")[:-1],
        frame(TEXT, b"abc", fin=False),
        frame(CLOSE, b"\x03\xe8")[:-1],
        frame(BINARY, bytes(300))[:50],
    ],
)
def test_the_end_of_tcp_without_a_close_frame(begun: bytes) -> None:
    driver = Hybi()
    assert driver.receive_data(begun) == []
    assert driver.receive_eof() == [CloseEvent(1006, "")]
    assert driver.receive_eof() == []
    assert driver.receive_data(text("late")) == []
    assert driver.closing_frame() == b""
    assert driver.state == ReadyState.CLOSED


def test_the_end_of_tcp_after_our_close() -> None:
    driver = Hybi()
    driver.close(1000, "")
    assert driver.receive_eof() == [CloseEvent(1006, "")]
    assert driver.closing_frame() == b""


# Limits


def test_defaults() -> None:
    assert MAX_LENGTH == 2**26 - 1
    assert MAX_FRAGMENTS == 16384
    header = b"\x82\xff" + (MAX_LENGTH + 1).to_bytes(8, "big")
    assert failure(receive(header)) == 1009
    assert receive(b"\x82\xff" + MAX_LENGTH.to_bytes(8, "big") + MASK) == []


def test_max_length_is_checked_on_the_declared_length() -> None:
    assert receive(frame(BINARY, bytes(10)), max_length=10) == [bytes(10)]
    assert failure(receive(frame(BINARY, bytes(11))[:2], max_length=10)) == 1009
    assert failure(receive(frame(BINARY, bytes(200))[:4], max_length=10)) == 1009
    assert failure(receive(frame(BINARY, bytes(70000))[:10], max_length=10)) == 1009


def test_max_length_counts_bytes_not_characters() -> None:
    assert receive(text("é" * 5), max_length=10) == ["é" * 5]
    assert failure(receive(text("é" * 6), max_length=10)) == 1009


def test_max_length_is_of_all_fragments() -> None:
    start = frame(BINARY, bytes(4), fin=False) + frame(0, bytes(4), fin=False)
    assert receive(start + frame(0, bytes(2)), max_length=10) == [bytes(10)]
    assert failure(receive(start + frame(0, bytes(3))[:2], max_length=10)) == 1009


@pytest.mark.parametrize("opcode, width", [(BINARY, 1), (TEXT, 4)])
def test_what_is_expected_of_a_message(opcode: int, width: int) -> None:
    driver = Hybi()
    assert driver.expected == 0
    data = frame(opcode, b"x" * 1000, fin=False)
    driver.receive_data(data[:8])
    assert driver.expected == 1000 * width
    driver.receive_data(data[8:] + frame(PING, b"x" * 9) + frame(0, b"x" * 300)[:8])
    assert driver.expected == 1300 * width
    driver.receive_data(frame(0, b"x" * 300)[8:])
    assert driver.expected == 0


def test_max_length_begins_anew_with_each_message() -> None:
    data = (frame(BINARY, bytes(6), fin=False) + frame(0, bytes(4))) * 5
    assert len(receive(data, max_length=10)) == 5


def test_max_length_is_not_of_control_frames() -> None:
    assert receive(frame(PING, bytes(125)), max_length=10) == [PingEvent(bytes(125))]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_max_fragments(opcode: int) -> None:
    start = frame(opcode, b"", fin=False) + frame(0, b"", fin=False)
    event = "" if opcode == TEXT else b""
    assert receive((start + frame(0, b"")) * 3, max_fragments=3) == [event] * 3
    more = start + frame(0, b"", fin=False) + frame(0, b"")
    assert failure(receive(more, max_fragments=3)) == 1009


def test_max_fragments_is_not_of_control_frames() -> None:
    data = frame(TEXT, "a", fin=False) + frame(PING) * 10 + frame(0, "b")
    assert receive(data, max_fragments=2)[-1] == "ab"


def test_a_message_of_one_frame_is_no_fragment() -> None:
    assert receive(text("a") * 3, max_fragments=1) == ["a"] * 3


# Out


def test_fragments_out() -> None:
    driver = Hybi()
    assert driver.fragment(b"a", TEXT, False) == frame(TEXT, b"a", fin=False, mask=None)
    assert driver.fragment(b"", 0, False) == frame(0, b"", fin=False, mask=None)
    assert driver.fragment(bytes(200), 0, True) == frame(0, bytes(200), mask=None)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [3, 125, 126, 70000])
def test_binary_takes_any_buffer(kind: type, size: int) -> None:
    payload = (bytes(range(256)) * 300)[:size]
    for driver in (Hybi(), client()):
        sent = driver.message(kind(payload))
        assert type(sent) is bytes
        assert only_frame(sent).payload == payload


@pytest.mark.parametrize(
    "payload",
    [memoryview(array("H", [1, 2, 3])), memoryview(b"abcdef")[::2]],
    ids=["wide items", "strided"],
)
def test_a_buffer_counts_in_bytes(payload: memoryview) -> None:
    # The length in the header must be that of the bytes that follow.
    for driver in (Hybi(), client()):
        assert only_frame(driver.message(payload)).payload == payload.tobytes()


def test_text_out() -> None:
    assert only_frame(Hybi().message("κόσμε 👍")).text == "κόσμε 👍"
    with pytest.raises(UnicodeEncodeError):
        Hybi().message("\ud800")


@pytest.mark.parametrize("first", [0x00, 0x01, 0x80, 0x81, 0x82, 0x88, 0xC1, 0xF2])
def test_build_frame_with_any_first_byte(first: int) -> None:
    for size in (0, 125, 126):
        sent = build_frame(first, bytes(size))
        rsv, fin = first >> 4 & 7, bool(first & 0x80)
        assert sent == frame(first & 15, bytes(size), fin=fin, rsv=rsv, mask=None)


def test_close_codes_have_the_registered_numbers() -> None:
    assert [int(code) for code in CloseCode] == [
        *(1000, 1001, 1002, 1003, 1005, 1006, 1007),
        *(1008, 1009, 1010, 1011, 1012, 1013, 1014),
    ]


def test_roles_talk_to_each_other() -> None:
    server, peer = Hybi(protocol="chat"), client()
    assert (server.protocol, server.version, peer.version) == ("chat", "hybi-13", "hybi-13")
    assert server.receive_data(peer.message("hi")) == ["hi"]
    assert peer.receive_data(server.message(b"\0")) == [b"\0"]
    assert server.receive_data(peer.close(1000, "x")) == [CloseEvent(1000, "x")]
    assert peer.receive_data(server.closing_frame()) == [CloseEvent(1000, "")]


def test_codes_and_states_look_like_numbers() -> None:
    """On every Python: applications print and compare them."""
    for number, value in (("1006", CloseCode.ABNORMAL_CLOSURE), ("1", ReadyState.OPEN)):
        assert [str(value), f"{value}", f"{value:d}", f"{value:4d}".strip()] == [number] * 4


def test_extensions_leave_no_fragments() -> None:
    """They work on whole messages."""
    pipeline = negotiate([permessage_deflate], "permessage-deflate", 1000)
    plain, extended = Hybi().features, Hybi(pipeline=pipeline).features
    assert all(plain) and extended == plain._replace(fragments=False)


# Work


def test_a_call_stops_at_its_limit_and_the_next_one_goes_on() -> None:
    driver = Hybi()
    driver.max_work = 10
    messages = [f"{number}" for number in range(12)]
    data = b"".join(text("", fin=False) + frame(CONTINUATION, message) for message in messages)
    assert driver.receive_data(data) == messages[:5]
    assert driver.is_tired and driver.holds_back
    assert driver.receive_data(b"") == messages[5:10]
    assert driver.receive_data(text("more")) == [*messages[10:], "more"]
    assert not driver.is_tired and not driver.holds_back


def test_whole_messages_are_work() -> None:
    """With the scanner in C they come all at once."""
    driver = Hybi()
    driver.max_work = 10
    events = driver.receive_data(text("a") * 50)
    assert driver.is_tired
    while driver.holds_back:
        events += driver.receive_data(b"")
    assert events == ["a"] * 50


@pytest.mark.parametrize("size, messages", [(100, 8), (100_000, 1)])
def test_inflated_bytes_are_work(size: int, messages: int) -> None:
    pipelines = [negotiate([permessage_deflate], "permessage-deflate", 2**20) for _ in range(2)]
    sender, receiver = client(pipeline=pipelines[0]), Hybi(pipeline=pipelines[1])
    receiver.max_work = 10
    data = b"".join([sender.message(b"x" * size) for _ in range(8)])
    assert receiver.receive_data(data) == [b"x" * size] * messages
    assert receiver.is_tired is receiver.holds_back is (messages < 8)


# What has arrived in part


def test_what_is_unfinished_has_a_number_of_its_own() -> None:
    driver = Hybi()
    numbers = []
    for piece in (
        text("a" * 200)[:-1],
        text("a" * 200)[-1:] + text("b")[:1],
        text("b")[1:] + text("c", fin=False),
        frame(CONTINUATION, "c") + frame(PING)[:1],
        frame(PING)[1:] + frame(PING)[:1],
    ):
        driver.receive_data(piece)
        numbers.append(driver.unfinished)
    assert len(set(numbers)) == 5 and 0 not in numbers
    driver.receive_data(frame(PING)[1:])
    assert driver.unfinished == 0
    driver.receive_data(text("whole") + frame(PING) + text("") + frame(CLOSE)[:3])
    assert driver.unfinished not in (0, *numbers)
    driver.receive_data(frame(CLOSE)[3:] + text("behind the end")[:3])
    assert driver.unfinished == 0


def test_bytes_of_a_message_are_progress_and_pings_are_none() -> None:
    driver = Hybi()
    driver.receive_data(text("", fin=False))
    first = driver.unfinished
    driver.receive_data(frame(PING) * 1000 + frame(CONTINUATION, "", fin=False) * 1000)
    driver.receive_data(frame(CONTINUATION, "x" * (STEP - 1), fin=False))
    assert driver.unfinished == first != 0
    driver.receive_data(frame(CONTINUATION, "x", fin=False))
    assert driver.unfinished not in (0, first)


def test_what_we_hold_back_is_not_unfinished() -> None:
    driver = Hybi()
    driver.max_work = 2
    driver.receive_data((text("a", fin=False) + frame(CONTINUATION, "b")) * 3)
    assert driver.holds_back and driver.unfinished == 0


@pytest.mark.parametrize("held", [b"", text("half")[:-1]])
def test_the_transport_may_fail_it(held: bytes) -> None:
    driver = Hybi()
    driver.receive_data(held)
    assert driver.fail(1008, "late") == [ErrorEvent("late"), CloseEvent(1008, "late")]
    assert only_frame(driver.closing_frame()).close_code == 1008
    assert driver.fail(1008, "again") == [] == driver.receive_data(text("more"))


BOMB = bytes(2**22)


def packed(
    messages: list[bytes], *extensions: Extension, max_work: int = 1000
) -> tuple[Hybi, bytes]:
    """A driver that takes so much work at a time, and the frames of ``messages`` for it."""
    header = ", ".join(extension.name for extension in extensions)
    pipelines = [negotiate(extensions, header, len(BOMB)) for _ in range(2)]
    sender, receiver = client(pipeline=pipelines[0]), Hybi(pipeline=pipelines[1])
    receiver.max_work = max_work
    return receiver, b"".join(map(sender.message, messages))


@pytest.mark.parametrize("others", [(), (Reverse(),)], ids=["alone", "with one without steps"])
def test_a_bomb_is_inflated_in_steps(others: tuple[Extension, ...]) -> None:
    """Behind what came before it, and before what comes after it."""
    messages = [b"before", BOMB, b"after", BOMB]
    driver, data = packed(messages, permessage_deflate, *others)
    slices = [driver.receive_data(data)]
    while driver.holds_back:
        assert driver.is_tired and driver.unfinished == 0
        assert driver.receive_data(b"", -1) == [] and driver.holds_back, "there is no room"
        slices.append(driver.receive_data(b""))
    assert [message for events in slices for message in events] == messages
    assert len(slices) >= 8, "of a MiB each"


def test_without_a_limit_of_work_a_bomb_is_inflated_at_once() -> None:
    driver, data = packed([BOMB, b"after"], permessage_deflate, max_work=sys.maxsize)
    assert driver.receive_data(data) == [BOMB, b"after"]


def test_a_bomb_ends_with_its_connection() -> None:
    driver, data = packed([BOMB, b"after"], permessage_deflate)
    assert driver.receive_data(data) == [] and driver.holds_back
    assert driver.receive_eof() == [CloseEvent(1006, "")]
    assert not driver.holds_back and driver._unpacking is None
    assert driver.receive_data(b"") == []


def test_a_bomb_that_is_too_large_fails_in_one_of_its_steps() -> None:
    driver, data = packed([BOMB + b"x", b"after"], permessage_deflate)
    events = driver.receive_data(data)
    while driver.holds_back:
        assert events == []
        events = driver.receive_data(b"")
    assert failure(events) == 1009
