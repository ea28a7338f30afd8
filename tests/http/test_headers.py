"""Header fields: tokens, comma lists, the user's headers, the grammar of extensions."""

from __future__ import annotations

import string
from typing import Any

import pytest

from faye_wsgi.driver.server_handshake import RESERVED_HEADERS
from faye_wsgi.http.headers import (
    MAX_EXTENSIONS_HEADER,
    check_headers,
    is_token,
    parse_extensions,
    split_list,
)

TOKEN_CHARACTERS = set("!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters)


def test_the_characters_of_a_token() -> None:
    for number in range(0x180):
        character = chr(number)
        assert is_token(character) == (character in TOKEN_CHARACTERS)
        assert is_token(f"a{character}b") == (character in TOKEN_CHARACTERS)
        assert is_token(f"a{character}") == (character in TOKEN_CHARACTERS)  # also '\n'
    assert not is_token("")


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("", []),
        (",", []),
        (" , ,\t,", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (" a\t, b ,,c", ["a", "b", "c"]),
        ("keep-alive, Upgrade", ["keep-alive", "Upgrade"]),
        ("a b", ["a b"]),
    ],
)
def test_lists(value: str, items: list[str]) -> None:
    assert split_list(value) == items


# The user's headers


def test_headers_as_pairs_or_mapping() -> None:
    pairs = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Empty", "")]
    assert check_headers(pairs) == pairs
    assert check_headers(iter(pairs)) == pairs
    assert check_headers({"X-One": "1"}) == [("X-One", "1")]
    assert check_headers(None) == []
    assert check_headers([("X", "caf\xe9\tau lait")]) == [("X", "caf\xe9\tau lait")]


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\n", "\r\nSet-Cookie: x=1", "\n "])
@pytest.mark.parametrize("place", ["{0}v", "a{0}v", "v{0}"])
def test_values_that_break_their_line(bad: str, place: str) -> None:
    with pytest.raises(ValueError, match="X-Name"):
        check_headers([("X-Name", place.format(bad))])


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", ":a", "a\r\nb", "a\n", "\0", "caf\xe9", "a\t", "(a)", '"a"']
)
def test_names_that_are_no_tokens(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        check_headers([(name, "v")])


def test_values_outside_latin_1() -> None:
    with pytest.raises(ValueError, match="8859"):
        check_headers({"X": "\u2028"})


@pytest.mark.parametrize("pair", [("X", 1), ("X", b"v"), (b"X", "v"), (1, "v"), ("X", None)])
def test_headers_of_wrong_types(pair: tuple[object, object]) -> None:
    with pytest.raises(TypeError):
        check_headers([pair])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "name",
    [
        "Upgrade",
        "CONNECTION",
        "connection",
        "Content-Length",
        "Transfer-Encoding",
        "Sec-WebSocket-Accept",
        "sec-websocket-protocol",
        "SEC-WEBSOCKET-EXTENSIONS",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-",
    ],
)
def test_headers_of_the_handshake_are_not_the_users(name: str) -> None:
    with pytest.raises(ValueError, match="handshake"):
        check_headers({name: "v"}, RESERVED_HEADERS)
    assert check_headers({name: "v"}) == [(name, "v")]


@pytest.mark.parametrize("name", ["Set-Cookie", "X-Upgrade", "Upgrade-Insecure", "Sec-Websock"])
def test_other_headers_are_the_users(name: str) -> None:
    assert check_headers({name: "v"}, RESERVED_HEADERS) == [(name, "v")]


# Sec-WebSocket-Extensions, RFC 6455 §9.1


@pytest.mark.parametrize(
    ("value", "offers"),
    [
        ("", []),
        ("  \t", []),
        (",", []),
        (", ,", []),
        ("a", [("a", {})]),
        (" a , b ", [("a", {}), ("b", {})]),
        ("a,,b,", [("a", {}), ("b", {})]),
        ("a, a;x", [("a", {}), ("a", {"x": True})]),
        ("a;x", [("a", {"x": True})]),
        ('a; x=1; y="2"', [("a", {"x": "1", "y": "2"})]),
        ('a\t;\tx = "1"\t,b', [("a", {"x": "1"}), ("b", {})]),
        (r'a;x="\1\2"', [("a", {"x": "12"})]),
        (
            "permessage-deflate; client_max_window_bits, permessage-deflate; x=15",
            [("permessage-deflate", {"client_max_window_bits": True})]
            + [("permessage-deflate", {"x": "15"})],
        ),
        ("!#$%&'*+.^_`|~-0aZ", [("!#$%&'*+.^_`|~-0aZ", {})]),
    ],
)
def test_extensions(value: str, offers: list[tuple[str, dict[str, object]]]) -> None:
    assert parse_extensions(value) == offers


@pytest.mark.parametrize(
    "value",
    [
        ";",
        "=",
        "a;",
        "a;;x",
        "a;x=",
        "a;x=,b",
        "a;=1",
        "a=1",
        "a b",
        "a;x y",
        "a;x=1 2",
        'a;x="1',
        'a;x=1"',
        'a;x=""',
        'a;x="1 2"',
        'a;x="1,2"',
        'a;x="\\"',
        'a;x="1"2',
        'a;x="1""2"',
        "a;x;x",
        "a;x=1;x=2",
        "a/b",
        '"a"',
        'a;"x"',
        "a\r\nb",
        "a\r\n, b",
        "a\n",
        "a\0",
        'a;x="\r\n"',
        'a;x="\\\n"',
        "a;x=\0",
        "caf\xe9",
        "a\xa0;x",
        "a;x=\u0661",
    ],
)
def test_malformed_extensions(value: str) -> None:
    with pytest.raises(ValueError, match="extension"):
        parse_extensions(value)


def test_the_extensions_header_is_capped() -> None:
    longest = "a" * MAX_EXTENSIONS_HEADER
    assert parse_extensions(longest) == [(longest, {})]
    with pytest.raises(ValueError, match="too long"):
        parse_extensions(longest + "a")


class Counted(str):
    """A string that counts how many characters its slices have handed out."""

    steps = 0

    def strip(self, characters: object = None, /) -> str:
        return self

    def __getitem__(self, key: object) -> str:
        found = super().__getitem__(key)  # type: ignore[index]
        Counted.steps += len(found) + 1
        return found


HOSTILE = ["a;b,", "a,", ",", 'a;b="\\x";', " ", "a;c=x", "\t,", 'a;b="', "\\"]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_headers_take_linear_steps(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps are counted, not timed: twice the input may take about twice as many.
    monkeypatch.setattr("faye_wsgi.http.headers.MAX_EXTENSIONS_HEADER", 1 << 20)

    def steps(count: int) -> int:
        Counted.steps = 0
        try:
            parse_extensions(Counted(unit * count))
        except ValueError:
            pass
        return Counted.steps + 1

    assert steps(4000) <= 2 * steps(2000) + 10


@pytest.mark.parametrize(
    "value",
    [
        'a;b="' + '\\"' * 500_000,
        'a;b="' + "x" * 1_000_000,
        "a" + " " * 1_000_000 + "b",
        " \t" * 500_000 + ";",
        "a;b=" + "x" * 1_000_000 + '"',
    ],
    ids=["escapes", "unclosed", "blanks", "only blanks", "token"],
)
def test_no_regular_expression_goes_back_over_a_long_header(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A megabyte would take hours if any of them were quadratic; it ends in milliseconds.
    monkeypatch.setattr("faye_wsgi.http.headers.MAX_EXTENSIONS_HEADER", 1 << 21)
    with pytest.raises(ValueError, match="extension"):
        parse_extensions(value)


@pytest.mark.parametrize("headers", [["Cookie: a=secret"], "Cookie: a=secret"])
def test_a_line_is_explained_without_its_value(headers: Any) -> None:
    with pytest.raises(TypeError, match="write headers={'Cookie': '...'}") as caught:
        check_headers(headers)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("headers", [[("Cookie",)], [("a", "b", "c")], [7], [b"Cookie: a"]])
def test_what_is_no_pair_is_explained(headers: Any) -> None:
    with pytest.raises(TypeError, match="headers are a dict or pairs: write headers="):
        check_headers(headers)
