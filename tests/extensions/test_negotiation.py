"""Agreeing on extensions: what is offered, chosen, refused, and in which order it works."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from faye_wsgi.errors import ExtensionError
from faye_wsgi.extensions.base import Message
from faye_wsgi.extensions.negotiation import (
    ClientNegotiation,
    Pipeline,
    check_extensions,
    negotiate,
    serialize,
)
from faye_wsgi.extensions.permessage_deflate import PermessageDeflate, permessage_deflate
from faye_wsgi.http.headers import parse_extensions

from .fakes import Fake, Reverse

LIMIT = 1000


def answer(extensions: list[Any], header: str) -> str:
    pipeline = negotiate(extensions, header, LIMIT)
    return "" if pipeline is None else pipeline.header


# The option


def test_the_option_is_one_several_or_none() -> None:
    one, two = Fake("one"), Fake("two")
    assert check_extensions(None) == ()
    assert check_extensions([]) == ()
    assert check_extensions(one) == (one,)
    assert check_extensions([one, two]) == (one, two)
    assert check_extensions(iter([one])) == (one,)
    assert check_extensions(permessage_deflate) == (permessage_deflate,)


@pytest.mark.parametrize(
    "wrong", ["permessage-deflate", ["x"], [None], 5, PermessageDeflate, [PermessageDeflate]]
)
def test_no_extension(wrong: Any) -> None:
    with pytest.raises(TypeError, match="no extension"):
        check_extensions(wrong)


def test_names_of_extensions() -> None:
    for name in ("", "a b", "a,b", "a;b", "ä"):
        with pytest.raises(ValueError, match="no name"):
            check_extensions(Fake(name))
    with pytest.raises(ValueError, match="twice"):
        check_extensions([Fake("same"), Fake("other"), Fake("same")])


def test_the_type_and_bits_of_an_extension() -> None:
    frames, number = Fake("frames"), Fake("number")
    frames.type = "perframe"
    with pytest.raises(ValueError, match="perframe"):
        check_extensions(frames)
    number.rsv1 = 1  # type: ignore[assignment]
    with pytest.raises(TypeError, match="rsv1"):
        check_extensions(number)


# The header


@pytest.mark.parametrize(
    ("params", "header"),
    [
        ({}, "x"),
        ({"a": True}, "x; a"),
        ({"a": False}, "x"),
        ({"a": 8}, "x; a=8"),
        ({"a": "token", "b": True, "c": 0}, "x; a=token; b; c=0"),
    ],
)
def test_serialize(params: dict[str, Any], header: str) -> None:
    assert serialize("x", params) == header
    read = {key: True if v is True else str(v) for key, v in params.items() if v is not False}
    assert parse_extensions(header) == [("x", read)]


@pytest.mark.parametrize(
    "params", [{"a": ""}, {"a": "b c"}, {"a": 'b"'}, {"a b": True}, {"": 1}, {"a": "x\r\ny"}]
)
def test_what_cannot_be_serialized(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no parameter"):
        serialize("x", params)


# The server


def test_nothing_agreed_costs_nothing() -> None:
    assert negotiate([], "", LIMIT) is None
    assert negotiate([], "a; b=1, c", LIMIT) is None
    assert negotiate([Fake("a")], "", LIMIT) is None
    assert negotiate([Fake("a")], "b", LIMIT) is None
    assert negotiate([Fake("a", declines=True)], "a", LIMIT) is None


@pytest.mark.parametrize("header", ["a;", "a b", "a; b=", ";", 'a; b="', "a" * 5000])
def test_a_malformed_header(header: str) -> None:
    for extensions in ([], [Fake("a")]):
        with pytest.raises(ExtensionError) as caught:
            negotiate(extensions, header, LIMIT)
        assert caught.value.code == 1002


def test_an_extension_sees_its_own_offers_in_order() -> None:
    calls: list[Any] = []
    extensions = [Fake("a", "1", calls=calls), Fake("b", "2", calls=calls), Fake("c", calls=calls)]
    negotiate(extensions, 'b; x=1, a; y, b; x="2"; z, unknown', LIMIT)
    assert calls == [("a", [{"y": True}]), ("b", [{"x": "1"}, {"x": "2", "z": True}])]


@pytest.mark.parametrize(
    ("header", "response"),
    [
        ("a, b", "a; n=1, b"),
        ("b, a", "a; n=1, b"),  # the server's order
        ("b", "b"),
        ("A", ""),  # names are compared as they are
        ("a; n=2; other, b; bad", "a; n=1, b"),
    ],
)
def test_the_servers_order(header: str, response: str) -> None:
    assert answer([Fake("a", "1", response={"n": 1}), Fake("b", "2")], header) == response


@pytest.mark.parametrize(
    ("bits", "response"),
    [
        (("1", "1", "1"), "a"),
        (("1", "2", "3"), "a, b, c"),
        (("1", "12", "2"), "a, c"),  # b is passed over whole, and takes nothing
        (("", "", ""), "a, b, c"),
        (("123", "", "3"), "a, b"),
    ],
)
def test_one_extension_a_bit(bits: tuple[str, ...], response: str) -> None:
    extensions = [Fake(name, rsv) for name, rsv in zip("abc", bits)]
    assert answer(extensions, "c, b, a") == response


def test_a_declined_extension_leaves_its_bit() -> None:
    assert answer([Fake("a", "1", declines=True), Fake("b", "1")], "a, b") == "b"


def test_the_mask_of_bits() -> None:
    for bits, mask in (("", 0), ("1", 0x40), ("2", 0x20), ("3", 0x10), ("13", 0x50)):
        pipeline = negotiate([Fake("a", bits)], "a", LIMIT)
        assert pipeline is not None and pipeline.rsv_mask == mask
    both = negotiate([Fake("a", "1"), Fake("b", "2")], "a, b", LIMIT)
    assert both is not None and both.rsv_mask == 0x60


# The client


@pytest.mark.parametrize(
    ("offers", "header"),
    [
        ([], ""),
        ([None], ""),
        ([{}], "e0"),
        ([{"x": True, "y": 9}], "e0; x; y=9"),
        ([{"x": 1}, None, {}], "e0; x=1, e2"),
        ([[{"x": 1}, {}]], "e0; x=1, e0"),
        ([[], {}], "e1"),
    ],
)
def test_offers(offers: list[Any], header: str) -> None:
    extensions = [Fake(f"e{number}", offer=offer) for number, offer in enumerate(offers)]
    assert ClientNegotiation(extensions).header == header


def test_an_extension_may_not_be_offered() -> None:
    client = ClientNegotiation([Fake("a", declines=True), Fake("b", offer={})])
    assert client.header == "b"
    with pytest.raises(ExtensionError, match="not offered"):
        client.activate("a", LIMIT)


def test_a_server_that_wants_none() -> None:
    assert ClientNegotiation([]).activate("", LIMIT) is None
    assert ClientNegotiation([Fake("a", offer={})]).activate("", LIMIT) is None


def test_the_order_of_the_response() -> None:
    calls: list[Any] = []
    extensions = [Fake("a", "1", offer={}, calls=calls), Fake("b", "2", offer={}, calls=calls)]
    pipeline = ClientNegotiation(extensions).activate('b; x="1", a; y', LIMIT)
    assert pipeline is not None and pipeline.header == 'b; x="1", a; y'
    assert calls == [("b", {"x": "1"}), ("a", {"y": True})]
    assert pipeline.rsv_mask == 0x60
    assert pipeline.process_outgoing(Message(1, b"-")).data == b"-ba"
    assert pipeline.process_incoming(Message(1, b"-")).data == b"-ab"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("unknown", "unknown, which was not offered"),
        ("a, unknown", "not offered"),
        ("silent", "not offered"),
        ("a, a", "not offered"),
        ("free, free", "not offered"),
        ("a, b", "RSV bit"),
        ("strict", "parameters of strict"),
        ("vague", "parameters of vague"),
        ("a;", "malformed"),
        ("a; x; x", "repeated"),
    ],
)
def test_the_client_fails_the_handshake(header: str, message: str) -> None:
    extensions = [
        Fake("a", "1", offer={}),
        Fake("b", "12", offer={}),
        Fake("free", offer={}),
        Fake("strict", offer={}, accepts=False),
        Fake("vague", offer={}, accepts=1),
        Fake("silent"),
    ]
    with pytest.raises(ExtensionError, match=message) as caught:
        ClientNegotiation(extensions).activate(header, LIMIT)
    assert caught.value.code == 1002


def test_reasons_fit_into_a_close_frame() -> None:
    with pytest.raises(ExtensionError) as caught:
        ClientNegotiation([]).activate("a" * 4000, LIMIT)
    assert len(str(caught.value)) == 123
    error = RuntimeError("ä" * 100)
    with pytest.raises(ExtensionError) as caught:
        pipe(Fake("x", error=error)).process_incoming(Message(1, b""))
    assert str(caught.value) == "x: " + "ä" * 60


# The pipeline


def pipe(*extensions: Any, max_length: int = LIMIT) -> Pipeline:
    pipeline = negotiate(extensions, ", ".join(e.name for e in extensions), max_length)
    assert pipeline is not None
    return pipeline


def test_incoming_messages_pass_in_reverse() -> None:
    pipeline = pipe(Fake("a"), Fake("b"), Fake("c"))
    assert pipeline.process_outgoing(Message(1, b"")).data == b"abc"
    assert pipeline.process_incoming(Message(1, b"")).data == b"cba"


def test_sessions_know_the_limit() -> None:
    pipeline = pipe(Fake("a"), permessage_deflate, max_length=7)
    assert [session.max_length for _, session in pipeline._outgoing] == [7, 7]


def test_the_limit_holds_for_every_extension() -> None:
    pipeline = pipe(Fake("longer"), max_length=10)
    assert pipeline.process_incoming(Message(1, b"1234")).data == b"1234longer"
    with pytest.raises(ExtensionError) as caught:
        pipeline.process_incoming(Message(1, b"12345"))
    assert caught.value.code == 1009
    with pytest.raises(ExtensionError, match="^a message is longer than 10 bytes$"):
        list(pipeline.process_in_steps(Message(1, b"12345")))
    assert len(pipeline.process_outgoing(Message(1, b"12345")).data) == 11  # ours may be longer


@pytest.mark.parametrize(
    ("error", "incoming", "outgoing"),
    [
        (ValueError("bad"), 1002, 1011),
        (ExtensionError("bad"), 1002, 1002),
        (ExtensionError("bad", 1007), 1007, 1007),
        (ExtensionError("bad", 1009), 1009, 1009),
    ],
)
def test_errors_of_sessions(error: Exception, incoming: int, outgoing: int) -> None:
    pipeline = pipe(Fake("fine"), Fake("faulty", error=error))
    for process, code in (
        (pipeline.process_incoming, incoming),
        (lambda message: list(pipeline.process_in_steps(message)), incoming),
        (pipeline.process_outgoing, outgoing),
    ):
        with pytest.raises(ExtensionError, match="^faulty: bad$") as caught:
            process(Message(1, b""))
        assert caught.value.code == code
        assert caught.value.__cause__ is error


def test_a_bit_that_is_not_its_own() -> None:
    class Greedy(Reverse):
        rsv2, rsv3 = False, True

    with pytest.raises(ExtensionError, match="not its own") as caught:
        pipe(Greedy()).process_outgoing(Message(1, b"x"))
    assert caught.value.code == 1011


def test_close_reaches_every_session_once(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Any] = []
    pipeline = pipe(
        Fake("a", calls=calls, error=RuntimeError("no")), Fake("b", calls=calls), Fake("c")
    )
    calls.clear()
    with caplog.at_level(logging.ERROR, "faye_wsgi"):
        pipeline.close()
        pipeline.close()
    assert calls == [("a", "close"), ("b", "close")]
    assert [record.getMessage() for record in caplog.records] == ["extension a failed to close"]
