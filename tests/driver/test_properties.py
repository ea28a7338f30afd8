"""Properties that must hold for all input, with examples made by hypothesis.

Any split of the input is the same input; what others encode is read, and what we encode
is read by them; nothing raises; memory stays within the limits.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faye_wsgi.driver import hybi
from faye_wsgi.driver.events import (
    CloseEvent,
    Data,
    ErrorEvent,
    Event,
    PingEvent,
    PongEvent,
)
from faye_wsgi.driver.frames import is_valid_close_code, stored_size
from faye_wsgi.driver.hybi import Hybi
from faye_wsgi.driver.server_handshake import handshake
from faye_wsgi.errors import HandshakeError
from faye_wsgi.extensions.negotiation import negotiate
from faye_wsgi.extensions.permessage_deflate import permessage_deflate
from faye_wsgi.http.headers import check_headers, parse_extensions
from faye_wsgi.http.messages import Request
from faye_wsgi.http.origins import check_origins, is_allowed

from ..support import frames

examples = settings(
    max_examples=150,
    database=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)

MAX_LENGTH = 1000
MAX_FRAGMENTS = 8
MAX_HEADER, MAX_CONTROL = 14, 125


class Sent(NamedTuple):
    """One frame to send, before it is encoded."""

    opcode: int
    payload: bytes
    fin: bool = True


def driver(client: bool) -> Hybi:
    return Hybi(client=client, max_length=MAX_LENGTH, max_fragments=MAX_FRAGMENTS)


# What is sent

data = st.one_of(st.text(max_size=40), st.binary(max_size=150), st.just("é" * 70))
controls = st.builds(
    Sent, st.sampled_from([frames.PING, frames.PONG]), st.binary(max_size=125), st.just(True)
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[Sent], list[Data | Event]]:
    """The frames of one message, control frames between them, and the events they make."""
    message: str | bytes = draw(data)
    opcode = frames.TEXT if isinstance(message, str) else frames.BINARY
    payload = message.encode() if isinstance(message, str) else message
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=MAX_FRAGMENTS - 1)))
    sent: list[Sent] = []
    events: list[Data | Event] = []
    for start, end in zip([0, *cuts], [*cuts, len(payload)]):
        if draw(st.integers(0, 3)) == 0:
            control = draw(controls)
            sent.append(control)
            events.append(event_of(control))
        sent.append(Sent(opcode, payload[start:end], False))
        opcode = frames.CONTINUATION
    sent[-1] = sent[-1]._replace(fin=True)
    return sent, [*events, message]


def event_of(control: Sent) -> Event:
    kind = PingEvent if control.opcode == frames.PING else PongEvent
    return kind(control.payload)


conversations = st.lists(messages(), max_size=4).map(
    lambda made: ([f for sent, _ in made for f in sent], [e for _, events in made for e in events])
)
roles = st.booleans()  # whether the reader is the client
keys = st.binary(min_size=4, max_size=4)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bool, bytes]:
    """A reader's role, and bytes that are a conversation, mostly, or were one once."""
    client = draw(roles)
    sent, _ = draw(conversations)
    encoded = b"".join(by_hand(frame, None if client else draw(keys)) for frame in sent)
    if draw(st.booleans()):
        payload = frames.close_payload(draw(st.integers(0, 5000)), draw(st.binary(max_size=9)))
        encoded += by_hand(Sent(frames.CLOSE, payload), None if client else bytes(4))
    return client, mutated(draw, encoded)


def mutated(draw: st.DrawFn, encoded: bytes) -> bytes:
    changed = bytearray(encoded)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(changed)))
        how = draw(st.integers(0, 3))
        if how == 0:
            changed[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == 1:
            del changed[at : at + draw(st.integers(1, 9))]
        elif how == 2:
            changed[at:at] = draw(st.binary(max_size=9))
        elif at < len(changed):
            changed[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


# Bytes that begin like frames get further into the parser than plain noise does.
headers = st.builds(
    lambda first, second, rest: bytes([first, second]) + rest,
    st.one_of(
        st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89]), st.integers(0, 255)
    ),
    st.one_of(st.sampled_from([0x80, 0xFD, 0xFE, 0xFF, 0x7E, 0x7F, 0x05]), st.integers(0, 255)),
    st.binary(max_size=20),
)
noise = st.tuples(roles, st.one_of(st.binary(max_size=300), st.lists(headers).map(b"".join)))
anything = st.one_of(streams(), noise)


rooms = st.integers(-100, 2000)


@st.composite
def deflated(draw: st.DrawFn) -> bytes:
    """A client's messages, compressed or not, whole or in fragments, and its close, maybe."""
    encoded = b""
    for size, letter in draw(st.lists(st.tuples(st.integers(0, 300), st.sampled_from("aé😀")))):
        payload, rsv = (letter * size).encode(), 0
        if draw(st.booleans()):
            packer = zlib.compressobj(wbits=-15)
            payload = (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
            rsv = 4
        at = draw(st.integers(0, len(payload)))
        if draw(st.booleans()):
            encoded += frames.frame(frames.TEXT, payload, rsv=rsv)
        else:
            encoded += frames.frame(frames.TEXT, payload[:at], fin=False, rsv=rsv)
            encoded += frames.frame(frames.PING, b"p")
            encoded += frames.frame(frames.CONTINUATION, payload[at:])
    return encoded + (frames.close(1000, "bye") if draw(st.booleans()) else b"")


def deflating() -> Hybi:
    return Hybi(pipeline=negotiate([permessage_deflate], "permessage-deflate", 2000))


def by_hand(frame: Sent, key: bytes | None) -> bytes:
    return frames.frame(frame.opcode, frame.payload, fin=frame.fin, mask=key)


def cut(encoded: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({place % (len(encoded) + 1) for place in cuts})
    return [encoded[a:b] for a, b in zip([0, *places], [*places, len(encoded)])]


# Any split of the input gives the same events


@examples
@given(anything, st.lists(st.integers(0, 1 << 30), max_size=12))
def test_any_split_gives_the_same_events(stream: tuple[bool, bytes], cuts: list[int]) -> None:
    client, encoded = stream
    at_once, in_pieces, one_by_one = driver(client), driver(client), driver(client)
    expected = at_once.receive_data(encoded) + at_once.receive_eof()
    found = [e for piece in cut(encoded, cuts) for e in in_pieces.receive_data(piece)]
    assert found + in_pieces.receive_eof() == expected
    found = [e for byte in encoded for e in one_by_one.receive_data(bytes([byte]))]
    assert found + one_by_one.receive_eof() == expected


@pytest.mark.skipif(hybi.parse_messages is None, reason="the C extension was not built")
@examples
@given(anything, st.lists(st.integers(0, 1 << 30), max_size=3))
def test_the_scanner_never_changes_the_events(stream: tuple[bool, bytes], cuts: list[int]) -> None:
    client, encoded = stream
    with_it, without_it = driver(client), driver(client)
    for piece in cut(encoded, cuts):
        found = with_it.receive_data(piece)
        with mock.patch.object(hybi, "parse_messages", None):
            expected = without_it.receive_data(piece)
        assert (found, with_it.missing, with_it.expected) == (
            expected,
            without_it.missing,
            without_it.expected,
        )
    assert with_it.receive_eof() == without_it.receive_eof()


@pytest.mark.skipif(hybi.parse_messages is None, reason="the C extension was not built")
def test_the_scanner_is_used_between_plain_messages_alone() -> None:
    scanned = mock.Mock(side_effect=hybi.parse_messages)
    with mock.patch.object(hybi, "parse_messages", scanned):
        subject = driver(False)
        assert subject.receive_data(frames.text("a")) == ["a"]
        assert scanned.call_count == 1
        subject.receive_data(frames.text("a", fin=False))
        assert subject.receive_data(frames.frame(0, b"b")) == ["ab"]
        subject.close(1000, "")
        assert subject.receive_data(frames.text("dropped")) == []
        assert deflating().receive_data(frames.text("a")) == ["a"]
    assert scanned.call_count == 2


@examples
@given(anything, st.integers(0, 1 << 30))
def test_what_is_owed_is_the_same_after_any_split(stream: tuple[bool, bytes], at: int) -> None:
    client, encoded = stream
    answers = []
    for pieces in ([encoded], cut(encoded, [at])):
        reader = driver(client)
        for piece in pieces:
            reader.receive_data(piece)
        answers.append(owed(reader))
    assert answers[0] == answers[1]


def owed(reader: Hybi) -> list[Any]:
    """The frames that answer what has come, without their masking keys."""
    return [f[:4] for f in frames.parse(reader.output() + reader.closing_frame())[0]]


@examples
@given(deflated(), st.lists(st.integers(0, 1 << 30), max_size=6), st.lists(rooms, min_size=1))
def test_any_room_gives_the_same_events(
    encoded: bytes, cuts: list[int], given_rooms: list[int]
) -> None:
    expected = deflating().receive_data(encoded)
    expected += [] if expected[-1:] == [CloseEvent(1000, "bye")] else [CloseEvent(1006, "")]
    reader, turns = deflating(), itertools.cycle(given_rooms)
    found: list[Data | Event] = []
    for piece in cut(encoded, cuts):
        found += take_turn(reader, piece, next(turns))
    while reader.holds_back:
        found += take_turn(reader, b"", max(next(turns), 0))  # an empty queue takes any message
    assert found + reader.receive_eof() == expected


def take_turn(reader: Hybi, data: bytes, room: int) -> list[Data | Event]:
    """The events of one call: no message begins where there is no room."""
    events = reader.receive_data(data, room)
    sizes = [stored_size(e) for e in events if isinstance(e, (str, bytes))]
    assert sum(sizes[:-1]) <= room or not sizes
    assert room >= 0 or not events
    return events


@examples
@given(anything, st.lists(st.integers(0, 1 << 30), max_size=6), st.integers(1, 4))
def test_any_amount_of_work_gives_the_same_events(
    stream: tuple[bool, bytes], cuts: list[int], max_work: int
) -> None:
    client, encoded = stream
    whole, reader = driver(client), driver(client)
    reader.max_work = max_work
    expected, found = whole.receive_data(encoded), []
    for piece in cut(encoded, cuts):
        found += reader.receive_data(piece)
    while reader.holds_back:
        found += reader.receive_data(b"")
    assert found + reader.receive_eof() == expected + whole.receive_eof()
    assert owed(reader) == owed(whole)


@examples
@given(anything)
def test_the_end_never_changes_what_was_said(stream: tuple[bool, bytes]) -> None:
    # A longer input has the shorter one's events first: none is ever taken back.
    client, encoded = stream
    so_far: list[Data | Event] = []
    for end in range(0, len(encoded) + 1, max(1, len(encoded) // 8)):
        found = driver(client).receive_data(encoded[:end])
        assert found[: len(so_far)] == so_far
        so_far = found


# What others encode


@examples
@given(conversations, roles, keys)
def test_we_read_what_is_encoded_by_hand(
    conversation: tuple[list[Sent], list[Data | Event]], client: bool, key: bytes
) -> None:
    sent, events = conversation
    encoded = b"".join(by_hand(frame, None if client else key) for frame in sent)
    assert driver(client).receive_data(encoded) == events


@examples
@given(conversations, roles)
def test_we_read_what_websockets_encodes(
    conversation: tuple[list[Sent], list[Data | Event]], client: bool
) -> None:
    theirs = pytest.importorskip("websockets.frames")
    sent, events = conversation
    encoded = b"".join(
        theirs.Frame(theirs.Opcode(f.opcode), f.payload, f.fin).serialize(mask=not client)
        for f in sent
    )
    assert driver(client).receive_data(encoded) == events


@examples
@given(conversations, roles)
def test_websockets_reads_what_we_encode(
    conversation: tuple[list[Sent], list[Data | Event]], client: bool
) -> None:
    protocol = pytest.importorskip("websockets.protocol")
    sent, _ = conversation
    ours = driver(client)
    # Its other side: it reads what a client sends if it is the server.
    theirs = protocol.Protocol(protocol.Side.SERVER if client else protocol.Side.CLIENT)
    theirs.receive_data(b"".join(encode(ours, frame) for frame in sent))
    assert theirs.parser_exc is None
    found = [(f.opcode, bytes(f.data), f.fin) for f in theirs.events_received()]
    assert found == [tuple(frame) for frame in sent]


def encode(ours: Hybi, frame: Sent) -> bytes:
    """``frame`` by the driver, through the method that a user's call would take."""
    if frame.opcode == frames.PONG:
        feed = by_hand(Sent(frames.PING, frame.payload), None if ours._client else bytes(4))
        ours.receive_data(feed)
        return ours.output()
    if frame.opcode == frames.PING:
        return ours.ping(frame.payload) or b""
    if frame.fin and frame.opcode == frames.TEXT:
        return ours.message(frame.payload.decode())
    if frame.fin and frame.opcode == frames.BINARY:
        return ours.message(frame.payload)
    return ours.fragment(frame.payload, frame.opcode, frame.fin)


@examples
@given(roles, st.integers(0, 70000), st.binary(min_size=1, max_size=5))
def test_long_messages_both_ways(client: bool, size: int, unit: bytes) -> None:
    payload = (unit * size)[:size]
    sender, reader = Hybi(client=client), Hybi(client=not client)
    encoded = sender.message(payload)
    assert frames.parse(encoded)[0][0].payload == payload
    assert reader.receive_data(encoded) == [payload]


# Nothing raises, whatever arrives, whatever is asked for, in whatever order

calls = st.lists(
    st.sampled_from(["output", "closing_frame", "eof", "close", "text", "ping", "data", "data"]),
    max_size=12,
)


@examples
@given(anything, calls)
def test_nothing_raises(stream: tuple[bool, bytes], order: list[str]) -> None:
    client, encoded = stream
    subject = driver(client)
    events: list[Data | Event] = []
    step = len(encoded) // (order.count("data") + 1) + 1
    for name in [*order, "rest"]:
        if name in ("data", "rest"):
            size = step if name == "data" else len(encoded)
            events += subject.receive_data(encoded[:size])
            encoded = encoded[size:]
        elif name == "eof":
            events += subject.receive_eof()
        else:
            check_output(call(subject, name), client)
        check_memory(subject)
    events += subject.receive_eof()
    check_output(subject.output(), client)
    check_output(subject.closing_frame(), client)
    assert subject.closing_frame() == b""
    check_events(events)


def call(subject: Hybi, name: str) -> bytes | None:
    if name == "close":
        return subject.close(1000, "bye")
    if name == "text":
        return subject.message("x")
    if name == "ping":
        return subject.ping(b"x")
    return subject.output() if name == "output" else subject.closing_frame()


def check_output(sent: bytes | None, client: bool) -> None:
    """Whole frames that the protocol allows, masked on one side only, a close frame last."""
    found, rest = frames.parse(sent or b"")
    assert rest == b""
    for frame in found:
        assert (frame.mask is not None) == client
        assert frame.rsv == 0 and frame.fin and len(frame.payload) <= MAX_CONTROL
        if frame.opcode == frames.CLOSE:
            assert frame is found[-1]
            assert frame.close_code is None or is_valid_close_code(frame.close_code)
            assert frame.close_reason is not None


def check_events(events: list[Data | Event]) -> None:
    """One close, at the very end; at most one error, right before it."""
    assert [type(event) for event in events].count(CloseEvent) == 1
    assert isinstance(events[-1], CloseEvent)
    errors = [index for index, event in enumerate(events) if isinstance(event, ErrorEvent)]
    assert errors in ([], [len(events) - 2])
    for event in events:
        if isinstance(event, (str, bytes)):
            size = len(event.encode() if isinstance(event, str) else event)
            assert size <= MAX_LENGTH


def check_memory(subject: Hybi) -> None:
    """Never more than the start of a header or control frame, and one message."""
    assert len(subject._rest) <= MAX_HEADER + MAX_CONTROL
    arriving = subject._arriving
    assert arriving is None or arriving.stored <= MAX_LENGTH
    assert all(len(payload) <= MAX_CONTROL for payload in subject._pongs)


@examples
@given(anything, st.lists(st.integers(0, 1 << 30), max_size=12))
def test_memory_is_bounded(stream: tuple[bool, bytes], cuts: list[int]) -> None:
    client, encoded = stream
    subject = driver(client)
    for piece in cut(encoded, cuts):
        subject.receive_data(piece)
        subject.drop_pongs()  # as for a peer that does not read
        assert len(subject._pongs) <= 1
        check_memory(subject)


@examples
@given(st.sampled_from([1, 2]), st.integers(0, 2**64 - 1))
def test_a_declared_length_reserves_nothing(opcode: int, length: int) -> None:
    form, size = ("!H", 126) if length < 65536 else ("!Q", 127)
    header = bytes([0x80 | opcode, 0x80 | size]) + struct.pack(form, length) + bytes(4)
    subject = Hybi(max_length=2**62)
    subject.receive_data(header)
    assert subject._arriving is None or subject._arriving.payload() == b""
    assert subject._rest == b""


# The handshake and its grammars

raw = st.text(st.characters(max_codepoint=0x17F, exclude_categories=[]), max_size=60)
grammar = st.lists(
    st.sampled_from(["a", "b1", " ", "\t", ",", ";", "=", '"', "\\", "\r\n", "x=1", '"y"'])
).map("".join)
field = st.one_of(raw, grammar)
NAMES = [
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
]
GOOD = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": frames.KEY,
    "sec-websocket-version": "13",
}


@examples
@given(st.dictionaries(st.sampled_from(NAMES), field, max_size=3))
def test_a_handshake_is_accepted_or_refused(changes: dict[str, str]) -> None:
    try:
        _, response = handshake(Request("GET", {**GOOD, **changes}), protocols=["a", "b1"])
    except HandshakeError as error:
        assert error.status_code in (400, 426)
    else:
        head = response.encode()
        assert head.count(b"\r\n") == len(response.headers) + 2 and head.endswith(b"\r\n\r\n")


@examples
@given(field)
def test_extensions_are_tokens_or_refused(value: str) -> None:
    try:
        offers = parse_extensions(value)
    except ValueError:
        return
    again = ", ".join(
        "; ".join([name, *(k if v is True else f'{k}="{v}"' for k, v in parameters.items())])
        for name, parameters in offers
    )
    assert parse_extensions(again) == offers


@examples
@given(field, field)
def test_checked_headers_stay_in_their_line(name: str, value: str) -> None:
    try:
        ((name, value),) = check_headers([(name, value)])
    except ValueError:
        return
    assert not set("\r\n\0") & set(name + value) and ":" not in name
    assert value.encode("latin-1") is not None


@examples
@given(st.one_of(field, field.map("http://{}".format)), field)
def test_origins_are_decided_without_raising(origin: str, host: str) -> None:
    assert is_allowed(origin, host, "same") in (True, False)
    assert is_allowed(origin, host, check_origins(["http://a"])) in (True, False)
