"""hixie-75 and hixie-76: their handshakes, and their frames in any split.

Frames are built by hand; the reader that the driver is compared with is written from
the drafts' text, a byte at a time, and shares no code with the package.
"""

from __future__ import annotations

import hashlib
import os
from typing import Callable, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faye_wsgi.driver import hixie75, hixie76
from faye_wsgi.driver.base import STEP, ReadyState
from faye_wsgi.driver.events import CloseEvent, Data, ErrorEvent, Event, OpenEvent
from faye_wsgi.driver.hixie75 import Hixie75
from faye_wsgi.driver.hixie76 import Hixie76, find_handshake
from faye_wsgi.errors import HandshakeError
from faye_wsgi.http.messages import Request, Response

examples = settings(
    max_examples=150,
    database=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)

MAX_LENGTH = 50
CLOSED = CloseEvent(None, None)
CLOSE_FRAME = b"\xff\x00"
URL = "ws://example.com/demo"
# The examples of draft 76, §1.2 and §1.3: two keys, the body, the answer. The first body
# stands there with a ninth character ('Tm[lK T2u'); the listing of its bytes has eight.
EXAMPLES = [
    (
        "18x 6]8vM;54 *(5:  {   U1]8  z [  8",
        "1_ tx7X d  <  nw  334J702) 7]o}` 0",
        b"Tm[K T2u",
        b"fQJ,fN/4F4!~K~MH",
    ),
    ("4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", b"^n:ds[4U", b"8jKS'y:G*Co,Wxa-"),
]
KEY1, KEY2, BODY, ANSWER = EXAMPLES[1]
HEADERS = {
    "host": "example.com",
    "upgrade": "WebSocket",
    "connection": "Upgrade",
    "origin": "http://example.com",
}
KEYS = {"sec-websocket-key1": KEY1, "sec-websocket-key2": KEY2}

Draft = Union[Hixie75, Hixie76]
Handshake = Callable[..., tuple[Draft, Response]]


def request(headers: dict[str, str] | None = None, without: str = "") -> Request:
    """A good request of either draft, but for what is said."""
    merged = {**HEADERS, **KEYS, **(headers or {})}
    merged.pop(without, None)
    return Request("GET", merged)


def driver75(max_length: int = MAX_LENGTH) -> Hixie75:
    return Hixie75(max_length=max_length)


def driver76(max_length: int = MAX_LENGTH) -> Hixie76:
    """One that is open, and has sent its answer."""
    driver = Hixie76(bytes(8), max_length=max_length)
    assert driver.receive_data(bytes(8)) == [OpenEvent()]
    assert len(driver.output()) == 16
    return driver


both = pytest.mark.parametrize("make", [driver75, driver76])
handshakes = pytest.mark.parametrize("shake", [hixie75.handshake, hixie76.handshake])


def text(message: str | bytes) -> bytes:
    return b"\x00" + (message.encode() if isinstance(message, str) else message) + b"\xff"


def length_prefixed(kind: int, payload: bytes, zeros: int = 0) -> bytes:
    """A frame that tells its length, with as many leading zero digits as asked for."""
    length = len(payload)
    digits = [length & 0x7F]
    while length > 0x7F:
        length >>= 7
        digits.append(0x80 | length & 0x7F)
    return bytes([kind]) + b"\x80" * zeros + bytes(reversed(digits)) + payload


def is_failure(events: list[Data | Event]) -> bool:
    return len(events) == 2 and isinstance(events[0], ErrorEvent) and events[1] == CLOSED


# The opening handshake


def test_the_answer_of_draft_75() -> None:
    driver, response = hixie75.handshake(request(), url=URL)
    # §4.1: the first 85 bytes are compared by clients, byte by byte.
    assert response.encode() == (
        b"HTTP/1.1 101 Web Socket Protocol Handshake\r\n"
        b"Upgrade: WebSocket\r\n"
        b"Connection: Upgrade\r\n"
        b"WebSocket-Origin: http://example.com\r\n"
        b"WebSocket-Location: ws://example.com/demo\r\n"
        b"\r\n"
    )
    assert (driver.state, driver.protocol, driver.version) == (ReadyState.OPEN, "", "hixie-75")


def test_the_answer_of_draft_76() -> None:
    driver, response = hixie76.handshake(request(), url=URL)
    assert response.encode() == (
        b"HTTP/1.1 101 WebSocket Protocol Handshake\r\n"
        b"Upgrade: WebSocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Origin: http://example.com\r\n"
        b"Sec-WebSocket-Location: ws://example.com/demo\r\n"
        b"\r\n"
    )
    assert (driver.state, driver.version) == (ReadyState.CONNECTING, "hixie-76")


@pytest.mark.parametrize(("key1", "key2", "body", "answer"), EXAMPLES)
def test_the_examples_of_the_draft(key1: str, key2: str, body: bytes, answer: bytes) -> None:
    keys = {"sec-websocket-key1": key1, "sec-websocket-key2": key2}
    driver, _ = hixie76.handshake(request(keys), url=URL)
    assert driver.output() == b""
    assert driver.receive_data(body) == [OpenEvent()]
    assert driver.state == ReadyState.OPEN
    assert driver.output() == answer
    assert driver.output() == b""


@handshakes
def test_options_of_a_handshake(shake: Handshake) -> None:
    offer = {"sec-websocket-protocol": "a, b", "websocket-protocol": "a, b"}
    added = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    driver, response = shake(request(offer), url=URL, protocols="b, c", headers=added)
    prefix = "Sec-" if driver.version == "hixie-76" else ""
    assert driver.protocol == "b"
    assert response.headers[-3:] == [(f"{prefix}WebSocket-Protocol", "b"), *added]
    driver, _ = shake(request(offer), url=URL, protocols=lambda offered: offered[-1])
    assert driver.protocol == "b"
    driver, response = shake(request(offer), url=URL, protocols=["c"])
    assert driver.protocol == "" and len(response.headers) == 4
    with pytest.raises(ValueError):
        shake(request(offer), url=URL, protocols=lambda offered: "c")


@handshakes
def test_a_handshake_without_an_origin(shake: Handshake) -> None:
    _, response = shake(request(without="origin"), url=URL)
    assert [name for name, _ in response.headers if name.endswith("Origin")] == []


@handshakes
@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\nX: y", "a\r", "\0", "☃"])
def test_a_header_cannot_be_broken_out_of(shake: Handshake, bad: str) -> None:
    for origin, url in ((bad, URL), ("http://a", URL + bad)):
        with pytest.raises(HandshakeError) as caught:
            shake(request({"origin": origin}), url=url)
        assert caught.value.status_code == 400


@handshakes
@pytest.mark.parametrize(
    "bad",
    [
        Request("POST", {**HEADERS, **KEYS}),
        Request("GET", {**HEADERS, **KEYS}, "HTTP/1.0"),
        Request("GET", {**HEADERS, **KEYS}, "HTTP/2.0"),
        Request("GET", {**HEADERS, **KEYS}, has_body=True),
        request(without="upgrade"),
        request(without="connection"),
        request({"upgrade": "h2c"}),
    ],
)
def test_requests_that_are_refused(shake: Handshake, bad: Request) -> None:
    with pytest.raises(HandshakeError) as caught:
        shake(bad, url=URL)
    assert caught.value.status_code == 400 and caught.value.body


@pytest.mark.parametrize("name", ["sec-websocket-key1", "sec-websocket-key2"])
@pytest.mark.parametrize(
    "key",
    [
        "",
        "no digits at all",
        "12345",  # no spaces
        "1 2 3 4",  # 1234 is no multiple of 3
        "4 294967296",  # over 2^32 - 1
        "1 " + "0" * 10,
        "9" * 5000 + " ",
        "² ³",  # digits of another kind
    ],
)
def test_bad_keys(name: str, key: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        hixie76.handshake(request({name: key}), url=URL)
    assert caught.value.status_code == 400
    with pytest.raises(HandshakeError):
        hixie76.handshake(request(without=name), url=URL)


@pytest.mark.parametrize(
    ("key", "number"),
    [("4 294967295", 4294967295), ("0 ", 0), ("a1b2 c ", 6), ("4 @1  46546xW%0l 1 5", 829309203)],
)
def test_good_keys(key: str, number: int) -> None:
    keys = {"sec-websocket-key1": key, "sec-websocket-key2": "7 "}
    driver, _ = hixie76.handshake(request(keys), url=URL)
    driver.receive_data(b"12345678")
    challenge = number.to_bytes(4, "big") + (7).to_bytes(4, "big")
    assert driver.output() == hashlib.md5(challenge + b"12345678").digest()


def test_which_draft_a_request_speaks() -> None:
    assert find_handshake(request()) is hixie76.handshake
    assert find_handshake(request(without="sec-websocket-key2")) is hixie76.handshake
    assert find_handshake(request(without="sec-websocket-key1")) is hixie75.handshake
    assert find_handshake(request({"sec-websocket-version": "13"})) is None
    assert find_handshake(request({"sec-websocket-key": "x"})) is None
    assert find_handshake(Request("GET", {"host": "example.com"})) is None


# hixie-76: the eight bytes after the head


@pytest.mark.parametrize("size", range(1, 12))
def test_the_body_may_come_in_pieces(size: int) -> None:
    data = BODY + text("a") + text("b")
    driver, _ = hixie76.handshake(request(), url=URL)
    events: list[Data | Event] = []
    for at in range(0, len(data), size):
        assert (driver.state == ReadyState.CONNECTING) == (at < 8)
        events += driver.receive_data(data[at : at + size])
    assert events == [OpenEvent(), "a", "b"]
    assert driver.output() == ANSWER


@pytest.mark.parametrize("name", ["text", "close", "closing_frame"])
def test_the_answer_goes_first(name: str) -> None:
    driver, _ = hixie76.handshake(request(), url=URL)
    driver.receive_data(BODY + CLOSE_FRAME)
    if name == "text":
        assert driver.message("x") == ANSWER + text("x")
    elif name == "close":
        assert driver.close(1000, "") == ANSWER + CLOSE_FRAME
    else:
        assert driver.closing_frame() == ANSWER + CLOSE_FRAME
    assert driver.output() == b""


def test_the_peer_ends_before_its_body() -> None:
    driver, _ = hixie76.handshake(request(), url=URL)
    assert driver.receive_data(BODY[:7]) == []
    assert driver.receive_eof() == [CLOSED]
    assert driver.receive_data(BODY[7:]) == [] and driver.receive_eof() == []
    assert driver.output() == driver.closing_frame() == b""


def test_a_close_before_the_body_opens_nothing() -> None:
    driver, _ = hixie76.handshake(request(), url=URL)
    assert driver.close(1000, "") == b""
    assert driver.state == ReadyState.CLOSED
    assert driver.receive_data(BODY + text("x")) == [] and driver.output() == b""
    assert driver.receive_eof() == [CLOSED]


# Frames in


@both
def test_texts(make: Callable[[], Draft]) -> None:
    messages = ["", "Hello", "κόσμε 👍 \0 \ufeff", "x" * MAX_LENGTH]
    data = b"".join(map(text, messages))
    assert make().receive_data(data) == messages
    driver = make()
    found = [event for byte in data for event in driver.receive_data(bytes([byte]))]
    assert found == messages


@both
@pytest.mark.parametrize(
    "skipped",
    [
        length_prefixed(0x80, b""),
        length_prefixed(0x80, text("no")),
        length_prefixed(0xFF, b"\x00" * MAX_LENGTH),
        length_prefixed(0x80, b"abc", zeros=20),
        length_prefixed(0x81, b""),
        b"\x01abc\x00\xff",
        b"\x7f\x80\xfe\xff",
        b"\x01" + b"x" * MAX_LENGTH + b"\xff",
    ],
)
def test_other_frames_are_skipped(make: Callable[[], Draft], skipped: bytes) -> None:
    assert make().receive_data(skipped + text("x") + skipped) == ["x"]


@both
def test_long_lengths(make: Callable[[int], Draft]) -> None:
    payload = b"\x00" * 20000
    driver = make(20000)
    assert driver.receive_data(length_prefixed(0x80, payload) + text("x")) == ["x"]
    assert is_failure(make(19999).receive_data(length_prefixed(0x80, payload)))


@both
@pytest.mark.parametrize(
    "data",
    [
        b"\x00" + b"x" * (MAX_LENGTH + 1),
        b"\x01" + b"x" * (MAX_LENGTH + 1),
        text("x" * (MAX_LENGTH + 1)),
        text("é" * (MAX_LENGTH // 2) + "x"),
        b"\x80" + bytes([MAX_LENGTH + 1]),
        b"\x80\x81\x00",
        b"\xff" * 9,
    ],
)
def test_frames_that_are_too_long(make: Callable[[], Draft], data: bytes) -> None:
    driver = make()
    assert is_failure(driver.receive_data(data))
    assert driver.receive_data(text("x")) == [] and driver.receive_eof() == []


@both
@pytest.mark.parametrize(
    "bad", [b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf5", b"ab\xc3"]
)
def test_texts_that_are_no_utf8(make: Callable[[], Draft], bad: bytes) -> None:
    driver = make()
    assert is_failure(driver.receive_data(text(bad) + text("x")))
    # As early as the byte that cannot be, or the end of the frame that came too soon.
    driver = make()
    events = [event for byte in text(bad) for event in driver.receive_data(bytes([byte]))]
    assert is_failure(events)
    assert driver.receive_data(text("x")) == []


# Frames out


@both
def test_what_is_sent(make: Callable[[], Draft]) -> None:
    driver = make()
    assert driver.message("Hello") == b"\x00Hello\xff"
    assert driver.message("") == b"\x00\xff"
    assert driver.message("é👍") == b"\x00" + "é👍".encode() + b"\xff"
    assert driver.ping(b"x") is None
    assert driver.output() == b""
    for call in (lambda: driver.message(b"x"), lambda: driver.fragment(b"x", 1, True)):
        with pytest.raises(TypeError, match=driver.version):
            call()


# The end


def test_draft_75_ends_with_tcp() -> None:
    driver = driver75()
    assert not driver.features.closing_handshake
    assert driver.close(1000, "bye") == b""
    assert driver.state == ReadyState.CLOSING
    assert driver.receive_data(text("dropped") + CLOSE_FRAME) == []
    assert driver.receive_eof() == [CLOSED] and driver.receive_eof() == []
    assert driver.closing_frame() == b"" and driver.state == ReadyState.CLOSED
    assert driver.close(1000, "") == b"" and driver.state == ReadyState.CLOSED


def test_draft_76_closes_first() -> None:
    driver = driver76()
    assert driver.features.closing_handshake
    assert driver.close(1000, "bye") == CLOSE_FRAME
    assert driver.close(1000, "bye") == b""
    assert driver.state == ReadyState.CLOSING
    assert driver.receive_data(text("dropped") + CLOSE_FRAME) == [CLOSED]
    assert driver.closing_frame() == b"" and driver.state == ReadyState.CLOSED


@pytest.mark.parametrize("close", [CLOSE_FRAME, b"\xff\x80\x00"])
def test_draft_76_answers_a_close(close: bytes) -> None:
    driver = driver76()
    assert driver.receive_data(text("a") + close + text("b")) == ["a", CLOSED]
    assert driver.message("late") == text("late")  # what came before is still answered
    assert driver.closing_frame() == CLOSE_FRAME
    assert driver.closing_frame() == b""
    assert driver.receive_eof() == []


@both
def test_the_peer_ends_tcp(make: Callable[[], Draft]) -> None:
    driver = make()
    assert driver.receive_data(b"\x00half") == []
    assert driver.receive_eof() == [CLOSED]
    assert driver.closing_frame() == b""


def test_a_failure_closes() -> None:
    driver = driver76()
    assert is_failure(driver.receive_data(text(b"\x80")))
    assert driver.closing_frame() == CLOSE_FRAME
    other = driver75()
    assert is_failure(other.receive_data(text(b"\x80")))
    assert other.closing_frame() == b""


# Properties: any split, nothing raises, memory is bounded

frames = st.one_of(
    st.text(max_size=20).map(text),
    st.text(max_size=20).map(text),
    st.binary(max_size=20).map(text),
    st.text("xé", min_size=20, max_size=60).map(text),
    st.builds(length_prefixed, st.integers(0x80, 0xFF), st.binary(max_size=60), st.integers(0, 3)),
    st.builds(lambda kind, data: bytes([kind]) + data, st.integers(0, 0x7F), st.binary()),
    st.binary(max_size=5),
    st.just(CLOSE_FRAME),
)
streams = st.lists(frames, max_size=6).map(b"".join)
makers = st.sampled_from([driver75, driver76, lambda: Hixie76(bytes(8), max_length=MAX_LENGTH)])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)])]


def by_hand(data: bytes, closes: bool) -> list[Data | Event]:
    """What the drafts say to ``data``, read a byte at a time."""
    events: list[Data | Event] = []
    rest = iter(data)
    failed = [ErrorEvent(""), CLOSED]
    for kind in rest:
        if kind & 0x80:
            length = 0
            for byte in rest:
                length = length * 128 + byte % 128
                if length > MAX_LENGTH:
                    return events + failed
                if byte < 128:
                    break
            else:
                return events
            if kind == 0xFF and length == 0 and closes:
                return [*events, CLOSED]
            for _ in range(length):
                next(rest, None)
            continue
        payload = bytearray()
        for byte in rest:
            if byte == 0xFF:
                break
            payload.append(byte)
            if len(payload) > MAX_LENGTH or kind == 0 and not may_go_on(payload):
                return events + failed
        else:
            return events
        if kind == 0:
            try:
                events.append(payload.decode())
            except UnicodeDecodeError:
                return events + failed
    return events


def may_go_on(payload: bytearray) -> bool:
    """Whether some text begins with these bytes."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def without_messages(events: list[Data | Event]) -> list[Data | Event]:
    return [ErrorEvent("") if isinstance(event, ErrorEvent) else event for event in events]


@examples
@given(st.booleans(), streams)
def test_the_drafts_are_followed(closes: bool, data: bytes) -> None:
    driver = driver76() if closes else driver75()
    assert without_messages(driver.receive_data(data)) == by_hand(data, closes)


@examples
@given(makers, streams, st.lists(st.integers(0, 1 << 30), max_size=12))
def test_any_split_gives_the_same_events(
    make: Callable[[], Draft], data: bytes, cuts: list[int]
) -> None:
    at_once, in_pieces, one_by_one = make(), make(), make()
    expected = at_once.receive_data(data) + at_once.receive_eof()
    found = [event for piece in cut(data, cuts) for event in in_pieces.receive_data(piece)]
    assert found + in_pieces.receive_eof() == expected
    found = [event for byte in data for event in one_by_one.receive_data(bytes([byte]))]
    assert found + one_by_one.receive_eof() == expected
    owed = {d.output() + d.closing_frame() for d in (at_once, in_pieces, one_by_one)}
    assert len(owed) == 1


CALLS = ["output", "closing_frame", "eof", "close", "message", "ping", "data", "data", "data"]


@examples
@given(makers, streams, st.lists(st.sampled_from(CALLS), max_size=12))
def test_nothing_raises(make: Callable[[], Draft], data: bytes, order: list[str]) -> None:
    driver = make()
    events: list[Data | Event] = []
    step = len(data) // (order.count("data") + 1) + 1
    for name in [*order, "data", "eof"]:
        if name == "data":
            events += driver.receive_data(data[:step])
            data = data[step:]
        elif name == "eof":
            events += driver.receive_eof()
        else:
            call(driver, name)
        assert len(driver._payload) <= MAX_LENGTH
        assert len(getattr(driver, "_body", b"")) <= 8
    check_events(events)


def call(driver: Draft, name: str) -> None:
    arguments = {"close": (1000, "bye"), "message": ("x",), "ping": (b"x",)}.get(name, ())
    sent = getattr(driver, name)(*arguments)
    assert sent is None if name == "ping" else type(sent) is bytes


def check_events(events: list[Data | Event]) -> None:
    """One close, at the very end; at most one error, right before it; an open only first."""
    assert events[-1] == CLOSED and events.count(CLOSED) == 1
    errors = [index for index, event in enumerate(events) if isinstance(event, ErrorEvent)]
    assert errors in ([], [len(events) - 2])
    assert OpenEvent() not in events[1:]


@examples
@given(st.text(max_size=100))
def test_what_is_sent_is_read(message: str) -> None:
    assert driver75(1000).receive_data(driver76().message(message)) == [message]


def test_a_declared_length_reserves_nothing() -> None:
    driver = driver75(2**62)
    assert driver.receive_data(b"\x80" + b"\xff" * 8 + b"\x7f" + bytes(10)) == [
        ErrorEvent(f"a frame is longer than {2**62} bytes"),
        CLOSED,
    ]
    driver = driver75(2**63)
    assert driver.receive_data(b"\x80" + b"\xff" * 8 + b"\x7f" + bytes(10)) == []
    assert len(driver._payload) == 0


def test_a_frame_that_has_arrived_in_part() -> None:
    driver, numbers = Hixie75(), []
    for piece in (b"\0half", b"\xff\0half", b"\xff\x80\x05ab", b"cde\x01skipped"):
        driver.receive_data(piece)
        numbers.append(driver.unfinished)
    assert len(set(numbers)) == 4 and 0 not in numbers
    driver.receive_data(b"\xff\0" + b"x" * (STEP - 1))
    last = driver.unfinished
    driver.receive_data(b"x")
    assert driver.unfinished not in (0, last, *numbers)
    driver.receive_data(b"\xff")
    assert driver.unfinished == 0
