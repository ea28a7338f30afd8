"""text/event-stream: what is encoded is read back by a parser to the WHATWG's rules.

The parser below is written from WHATWG HTML §9.2.6 and shares no code with the package;
`sseclient`, where it is installed, is a second opinion.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.events import CloseEvent
from faye_wsgi.driver.eventstream import (
    EventStream,
    EventStreamDecoder,
    encode_comment,
    encode_event,
    encode_retry,
    response,
)

examples = settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)

ENDS = ["\n", "\r", "\r\n", "\n\r", "\r\r\n", "\n\n", "\0", "\x0b", "\x0c", "\x85", "\u2028"]
# Pieces that a careless encoder or parser would take for something else.
TRAPS = [*ENDS, " ", ":", "data: x", "id: 7", "retry: 1", "event: y", "\ufeff", "é", "👍", ""]
texts = st.one_of(st.text(max_size=40), st.lists(st.sampled_from([*TRAPS, "a", "b"])).map("".join))
lines = texts.map(lambda text: re.sub("[\r\n\0]", "", text))


class Dispatched(NamedTuple):
    """What a client tells its listeners: §9.2.6, 'dispatch the event'."""

    data: str
    event: str = "message"
    last_event_id: str = ""


class Client:
    """The interpretation of a stream, §9.2.6, of all its bytes at once."""

    def __init__(self, stream: bytes) -> None:
        self.dispatched: list[Dispatched] = []
        self.comments: list[str] = []
        self.retry: int | None = None
        self.last_event_id = ""
        self._data = self._type = ""
        *whole, rest = self._lines(stream.decode("utf-8"))
        assert rest == "", "the stream ends in the middle of a line"
        for line in whole:
            self._take(line)
        assert self._data == "" and self._type == "", "the stream ends in the middle of an event"

    @staticmethod
    def _lines(text: str) -> list[str]:
        text = text[1:] if text.startswith("\ufeff") else text
        return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    def _take(self, line: str) -> None:
        if line == "":
            self._dispatch()
        elif line[0] == ":":
            self.comments.append(line[1:])
        else:
            name, _, value = line.partition(":")
            self._field(name, value[1:] if value[:1] == " " else value)

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._type = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self.last_event_id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry = int(value)

    def _dispatch(self) -> None:
        if self._data:
            event = Dispatched(self._data[:-1], self._type or "message", self.last_event_id)
            self.dispatched.append(event)
        self._data = self._type = ""


def normalised(data: str) -> str:
    """A client sees every end of line as LF."""
    return re.sub("\r\n|\r|\n", "\n", data)


# Events


@pytest.mark.parametrize(
    ("data", "options", "encoded"),
    [
        ("Hello", {}, b"data: Hello\r\n\r\n"),
        ("", {}, b"data: \r\n\r\n"),
        (" x", {}, b"data:  x\r\n\r\n"),
        ("a\nb\rc\r\nd", {}, b"data: a\r\ndata: b\r\ndata: c\r\ndata: d\r\n\r\n"),
        ("a\n", {}, b"data: a\r\ndata: \r\n\r\n"),
        ("\n\r", {}, b"data: \r\ndata: \r\ndata: \r\n\r\n"),
        ("a\u2028b\x0bc\x85", {}, "data: a\u2028b\x0bc\x85\r\n\r\n".encode()),
        ("👍", {"event": "é"}, "event: é\r\ndata: 👍\r\n\r\n".encode()),
        ("x", {"event": "tick", "id": "a7"}, b"event: tick\r\nid: a7\r\ndata: x\r\n\r\n"),
        ("x", {"id": 0}, b"id: 0\r\ndata: x\r\n\r\n"),
        ("x", {"id": 12}, b"id: 12\r\ndata: x\r\n\r\n"),
        ("x", {"id": ""}, b"id: \r\ndata: x\r\n\r\n"),
    ],
)
def test_events(data: str, options: dict[str, object], encoded: bytes) -> None:
    assert encode_event(data, **options) == encoded  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["event", "id"])
@pytest.mark.parametrize("value", ["\r", "\n", "\0", "a\r\nb", "a\n", "\nb", "x\n\ndata: forged"])
def test_fields_of_one_line(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        encode_event("x", **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [None, b"x", 1, ["x"], {"a": 1}, bytearray(b"x")])
def test_data_is_text(data: object) -> None:
    with pytest.raises(TypeError):
        encode_event(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"event": 1}, {"event": b"x"}, {"id": 1.5}, {"id": True}])
def test_fields_have_their_types(options: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        encode_event("x", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"event": "\ud800"}, {"id": "\ud800"}])
def test_what_is_no_unicode_raises(options: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        encode_event("" if options else "\ud800", **options)  # type: ignore[arg-type]


made = st.tuples(texts, st.none() | lines, st.none() | lines | st.integers())


@examples
@given(st.lists(made, max_size=5))
def test_clients_read_what_is_encoded(
    events: list[tuple[str, str | None, str | int | None]],
) -> None:
    stream = encode_retry(2.5)
    expected = []
    last_event_id = ""
    for data, event, id in events:
        stream += encode_event(data, event=event, id=id) + encode_comment(data)
        last_event_id = last_event_id if id is None else str(id)
        expected.append(Dispatched(normalised(data), event or "message", last_event_id))
    client = Client(stream)
    assert client.dispatched == expected
    assert client.retry == 2500


@examples
@given(st.lists(made, max_size=5))
def test_sseclient_reads_what_is_encoded(
    events: list[tuple[str, str | None, str | int | None]],
) -> None:
    sseclient = pytest.importorskip("sseclient")
    stream = b"".join(encode_event(data, event=e, id=i) for data, e, i in events)
    found = [(e.data, e.event, e.id) for e in sseclient.SSEClient([stream]).events()]
    assert found == [
        (normalised(data), event or "message", None if id is None else str(id))
        for data, event, id in events
    ]


# Comments and retry


def test_a_ping_is_an_empty_comment() -> None:
    assert encode_comment() == b":\r\n\r\n"
    assert encode_comment("still here") == b": still here\r\n\r\n"


@examples
@given(texts)
def test_comments_say_nothing(text: str) -> None:
    client = Client(encode_comment(text) + encode_event("x"))
    assert client.dispatched == [Dispatched("x")]
    found = "\n".join(c[1:] if c.startswith(" ") else c for c in client.comments)
    assert found == normalised(text)


def test_a_comment_is_text() -> None:
    with pytest.raises(TypeError):
        encode_comment(b"x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(5, 5000), (0, 0), (0.25, 250), (1.001, 1001), (86400, 86400000)]
)
def test_retry_is_in_milliseconds(seconds: float, milliseconds: int) -> None:
    assert encode_retry(seconds) == b"retry: %d\r\n\r\n" % milliseconds
    assert Client(encode_retry(seconds)).retry == milliseconds


@pytest.mark.parametrize("seconds", [-1, -0.1, float("nan"), float("inf"), 1e307])
def test_retry_is_a_time(seconds: float) -> None:
    with pytest.raises(ValueError):
        encode_retry(seconds)


@pytest.mark.parametrize("seconds", ["5", None])
def test_retry_is_a_number(seconds: object) -> None:
    with pytest.raises(TypeError):
        encode_retry(seconds)  # type: ignore[arg-type]


# The head


def test_the_head() -> None:
    assert response().encode() == (
        b"HTTP/1.1 200 OK\r\n"
        b"Content-Type: text/event-stream; charset=utf-8\r\n"
        b"Cache-Control: no-cache, no-store, no-transform\r\n"
        b"X-Accel-Buffering: no\r\n"
        b"Connection: close\r\n"
        b"\r\n"
    )


def test_headers_of_the_user_replace_ours() -> None:
    head = response({"cache-control": "no-cache", "Access-Control-Allow-Origin": "*"})
    assert head.headers == [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("X-Accel-Buffering", "no"),
        ("Connection", "close"),
        ("cache-control", "no-cache"),
        ("Access-Control-Allow-Origin", "*"),
    ]


def test_headers_may_repeat() -> None:
    cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    assert response(cookies).headers[-2:] == cookies
    assert len(response(cookies).headers) == 6
    assert response() == response(None) == response({})


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X\n": "a"},
        {"": "a"},
        {"X": "☃"},
        {"Content-Length": "0"},
        {"transfer-encoding": "chunked"},
    ],
)
def test_headers_that_would_break_the_stream(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        response(headers)


# The driver


def test_the_driver_hands_encoded_events_on() -> None:
    driver = EventStream()
    assert driver.state == ReadyState.OPEN and not driver.features.closing_handshake
    assert driver.message(encode_event("x")) == b"data: x\r\n\r\n"
    assert driver.ping(b"") == b":\r\n\r\n"
    assert driver.ping(b"a\nb\xff") == ": a\r\n: b\ufffd\r\n\r\n".encode()
    with pytest.raises(TypeError):
        driver.message("x")
    with pytest.raises(TypeError):
        driver.fragment(b"x", 1, True)


def test_the_driver_ends_without_a_word() -> None:
    driver = EventStream()
    assert driver.receive_data(b"GET / HTTP/1.1\r\n") == []
    assert driver.close(1000, "") == b""
    assert driver.state == ReadyState.CLOSING
    assert driver.receive_eof() == [CloseEvent(None, None)]
    assert driver.receive_eof() == []
    assert driver.closing_frame() == b""
    assert driver.state == ReadyState.CLOSED
    assert driver.close(1000, "") == b"" and driver.state == ReadyState.CLOSED


@pytest.mark.parametrize("code", [1001, 1012])
def test_a_server_that_stops_says_when_to_come_back(code: int) -> None:
    driver = EventStream(iter([6.5, 7.25]).__next__)
    assert driver.close(code, "") == b"retry: 6500\r\n\r\n"
    assert driver.state == ReadyState.CLOSING


def test_a_stream_that_is_ended_says_no_such_thing() -> None:
    assert EventStream(lambda: 6.5).close(1000, "") == b""
    assert EventStream().close(1001, "") == b"", "the client may choose"


# The decoder


def decoded(stream: bytes, cuts: list[int] | None = None) -> tuple[list[Dispatched], Any]:
    decoder = EventStreamDecoder()
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts or []), len(stream)]
    events = []
    for start, end in zip(places, places[1:]):
        events += decoder.receive_data(stream[start:end])
    return [Dispatched(*event) for event in events], decoder


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # The examples of §9.2.6.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Dispatched("YHOO\n+2\n10")]),
        (
            b": a comment\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n",
            [
                Dispatched("first event", last_event_id="1"),
                Dispatched("second event"),
                Dispatched(" third"),
            ],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [Dispatched(""), Dispatched("\n")]),
        (b"data:test\n\ndata: test\n\n", [Dispatched("test"), Dispatched("test")]),
        (b"\xef\xbb\xbfdata: bom\n\n\xef\xbb\xbfdata: none\n\n", [Dispatched("bom")]),
        (b"id: 1\n\nid: a\0b\ndata: x\n\n", [Dispatched("x", last_event_id="1")]),
        (b"event: e\n\ndata: x\n\n", [Dispatched("x")]),
        (b"DATA: x\nfoo: y\n: data: z\n\n", []),
        (b"data: \xff\n\n", [Dispatched("\ufffd")]),
        (b"data: a\rdata: b\r\r", [Dispatched("a\nb")]),
        (b"data: cut in the middle of an event\n", []),
    ],
)
def test_the_decoder_keeps_the_rules(stream: bytes, events: list[Dispatched]) -> None:
    assert decoded(stream)[0] == events
    assert decoded(stream, list(range(len(stream))))[0] == events  # byte by byte


@pytest.mark.parametrize(
    ("stream", "retry"),
    [
        (b"retry: 1500\n", 1.5),
        (b"retry: 1.5\n", None),
        (b"retry: -1\n", None),
        ("retry: ²\n".encode(), None),
        (b"retry:" + b"9" * 5000 + b"\n", float("inf")),
    ],
)
def test_the_decoder_reads_retry(stream: bytes, retry: float | None) -> None:
    assert decoded(stream)[1].retry == retry


def test_an_id_counts_when_its_event_is_complete() -> None:
    decoder = EventStreamDecoder("7")
    assert decoder.receive_data(b"id: 8\n") == []
    assert decoder.last_event_id == "7"
    decoder.receive_data(b"\n")
    assert decoder.last_event_id == "8"


@examples
@given(st.lists(made, max_size=5), st.lists(st.integers(0, 10_000), max_size=6))
def test_the_decoder_reads_what_is_encoded_in_any_split(
    events: list[tuple[str, str | None, str | int | None]], cuts: list[int]
) -> None:
    stream = b"".join(
        encode_event(data, event=event, id=id) + encode_comment(data) for data, event, id in events
    )
    assert decoded(stream, cuts)[0] == Client(stream).dispatched


@examples
@given(st.lists(st.sampled_from([*TRAPS, "a"])).map("".join), st.lists(st.integers(0, 1000)))
def test_any_text_gives_the_same_in_any_split(text: str, cuts: list[int]) -> None:
    stream = text.encode()
    assert decoded(stream, cuts)[0] == decoded(stream)[0]


# Limits of the decoder


@pytest.mark.parametrize(
    "stream, whole",
    [
        (b"data: ok\n\ndata: 12345678901\n\ndata: x\n\n", 1),  # a line
        (b"data: ok\n\n: a long comment\n\ndata: x\n\n", 1),
        (b"data: ok\n\ndata: 12345\ndata: 12345\n\ndata: x\n\n", 1),  # an event
        (b"data\n" * 12 + b"\ndata: x\n\n", 0),
        ("data:世界世界\ndata:世界世界\ndata:世\n\n".encode(), 0),
        ((b"data: 1234\n: comment\n\n" + b"event: 1234\n") * 100, 100),  # many that are not
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_too_long(stream: bytes, whole: int, size: int) -> None:
    """What came before counts, and nothing that follows."""
    decoder = EventStreamDecoder(max_length=11)
    events = []
    for start in range(0, len(stream), size):
        events += decoder.receive_data(stream[start : start + size])
    assert len(events) == whole
    assert bool(decoder.failure) == (whole < 100)
    assert whole == 100 or "more than 11 characters" in decoder.failure


def test_an_event_of_the_greatest_length() -> None:
    decoder = EventStreamDecoder(max_length=100)
    assert decoder.receive_data(b"data:" + b"x" * 95 + b"\n\n") == [("x" * 95, "message", "")]
    assert not decoder.failure


def test_a_failure_keeps_nothing() -> None:
    decoder = EventStreamDecoder(max_length=1000)
    for _ in range(3):
        assert decoder.receive_data(b"data: " + b"x" * 990 + b"\n") == []
    assert decoder.failure
    buffers = [decoder._line, decoder._data]
    decoder.receive_data(b"x" * 10_000)
    assert [buffer.getvalue() for buffer in buffers] == ["", ""]
