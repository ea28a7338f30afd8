"""HTTP as the handshakes need it: a parsed request, a response to send."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from faye_wsgi.http.headers import split_list

__all__ = ["Request", "Response"]

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Request(NamedTuple):
    """A request with a parsed head.

    ``headers`` has lower-case names; repeated ones are joined by commas. ``has_body`` says that
    the head announces a body that is not empty.
    """

    method: str
    headers: Mapping[str, str]
    http_version: str = "HTTP/1.1"
    has_body: bool = False

    def has_token(self, name: str, token: str) -> bool:
        """Whether the comma list in header ``name`` has ``token``, in any case."""
        value = self.headers.get(name, "").lower()
        return value == token or token in split_list(value)


class Response(NamedTuple):
    """A response to send; ``encode`` gives its bytes.

    ``phrase`` is the status line's reason phrase; HTTP's own where it is empty.
    """

    status_code: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    phrase: str = ""

    def encode(self) -> bytes:
        """The bytes of an HTTP/1.1 response."""
        phrase = self.phrase or _PHRASES[self.status_code]
        lines = [f"HTTP/1.1 {self.status_code} {phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body
