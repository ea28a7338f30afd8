"""The grammar of header fields: tokens, comma lists, extensions; linear in time.

RFC 9110 §5.6 (tokens, lists, quoted strings), RFC 6455 §9.1 (extensions).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Union

__all__ = [
    "HeadersLike",
    "Parameters",
    "check_headers",
    "is_token",
    "parse_extensions",
    "split_list",
]

HeadersLike = Union[Mapping[str, str], Iterable[tuple[str, str]], None]
Parameters = dict[str, Union[str, bool]]

MAX_EXTENSIONS_HEADER = 4096
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\r\n\0]*")


def is_token(text: str) -> bool:
    """Whether ``text`` is a token of RFC 9110 §5.6.2."""
    return _TOKEN.fullmatch(text) is not None


def split_list(value: str) -> list[str]:
    """The items of a comma list, stripped, without empty ones."""
    return [item for item in (piece.strip(" \t") for piece in value.split(",")) if item]


def check_headers(headers: HeadersLike, reserved: Iterable[str] = ()) -> list[tuple[str, str]]:
    """The user's headers as pairs; ValueError where one could break out of its line.

    ``reserved`` are lower-case names, or prefixes that end in ``-``, which users cannot set.
    """
    if headers is None:
        return []
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(_pairs(headers))
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"header names and values are str: {name!r}")
        if not is_token(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {name!r} has a name or value that HTTP forbids")
        _check_latin1(name, value)
        lower = name.lower()
        if any(lower == r or (r[-1] == "-" and lower.startswith(r)) for r in reserved):
            raise ValueError(f"header {name!r} belongs to the handshake")
    return pairs


def _pairs(headers: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for pair in [headers] if isinstance(headers, (str, bytes)) else headers:
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Iterable):
            # Without the value, which may be a secret.
            line = pair if isinstance(pair, str) else "Name: ..."
            name = line.partition(":")[0].strip()
            raise TypeError(
                f"headers are a dict or pairs: write headers={{{name!r}: '...'}}, "
                f"not a line like '{name}: ...'"
            )
        found = tuple(pair)
        if len(found) != 2:
            raise TypeError("headers are a dict or pairs: write headers={'Name': 'value'}")
        yield found


def _check_latin1(name: str, value: str) -> None:
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"header {name!r} has characters outside ISO 8859-1") from None


# RFC 6455 §9.1: one regular expression a step, each anchored where the last one ended.
_NAME = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*")
_ARGUMENT = re.compile(
    r"""=[ \t]*(?:"((?:[^"\\\r\n\0]|\\[^\r\n\0])*)"|([!#$%&'*+.^_`|~0-9A-Za-z-]+))[ \t]*"""
)
_ESCAPED = re.compile(r"\\(.)")
_EMPTY = re.compile(r"[ \t]*,")


def parse_extensions(value: str) -> list[tuple[str, Parameters]]:
    """Read ``Sec-WebSocket-Extensions``: pairs of a name and its parameters, in order.

    A parameter without a value is True. ValueError: the header breaks the grammar, names
    a parameter twice, or is longer than 4096 characters.
    """
    if len(value) > MAX_EXTENSIONS_HEADER:
        raise ValueError("the extensions header is too long")
    offers: list[tuple[str, Parameters]] = []
    value = value.strip(" \t")
    pos = 0
    while pos < len(value):
        empty = _EMPTY.match(value, pos)
        if empty:
            pos = empty.end()
            continue
        name, pos = _parse_name(value, pos)
        parameters: Parameters = {}
        while value[pos : pos + 1] == ";":
            key, pos = _parse_name(value, pos + 1)
            argument, pos = _parse_argument(value, pos)
            if key in parameters:
                raise ValueError(f"extension parameter {key!r} is repeated")
            parameters[key] = argument
        offers.append((name, parameters))
        if value[pos : pos + 1] not in ("", ","):
            raise ValueError("the extensions header is malformed")
        pos += 1
    return offers


def _parse_name(value: str, pos: int) -> tuple[str, int]:
    match = _NAME.match(value, pos)
    if not match:
        raise ValueError("the extensions header is malformed")
    return match.group(1), match.end()


def _parse_argument(value: str, pos: int) -> tuple[str | bool, int]:
    match = _ARGUMENT.match(value, pos)
    if not match:
        if value[pos : pos + 1] == "=":
            raise ValueError("the extensions header is malformed")
        return True, pos
    quoted, token = match.groups()
    argument = token if quoted is None else _ESCAPED.sub(r"\1", quoted)
    if not is_token(argument):  # RFC 6455 §9.1: a token, once unquoted
        raise ValueError("an extension parameter is no token")
    return argument, match.end()
