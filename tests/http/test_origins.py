"""Which pages may connect: Origin against Host, lists and patterns."""

from __future__ import annotations

import re
from typing import Any

import pytest

from faye_wsgi.http.origins import check_origins, is_allowed

SAME = [
    ("http://example.com", "example.com"),
    ("https://example.com", "example.com"),  # TLS ends at a proxy
    ("https://example.com", "example.com:443"),
    ("http://example.com", "example.com:80"),
    ("https://example.com:443", "example.com"),
    ("http://example.com:8000", "example.com:8000"),
    ("HTTP://Example.COM", "eXample.com"),
    ("https://example.com.", "example.com"),
    ("http://127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://[::1]:8000", "[::1]:8000"),
    ("http://[::1]", "[::1]"),
    ("http://xn--bcher-kva.example", "xn--bcher-kva.example"),
]
OTHER = [
    ("http://evil.com", "example.com"),
    ("http://example.com.evil.com", "example.com"),
    ("http://evilexample.com", "example.com"),
    ("http://sub.example.com", "example.com"),
    ("http://example.com", "sub.example.com"),
    ("http://example.com:8001", "example.com:8000"),
    ("http://example.com", "example.com:8000"),
    ("http://example.com:8000", "example.com"),
    ("https://example.com", "example.com:80"),
    ("http://localhost:8000", "127.0.0.1:8000"),
    ("http://example.com@evil.com", "example.com"),
    ("http://evil.com#example.com", "example.com"),
    ("http://evil.com/example.com", "example.com"),
    ("http://evil.com?example.com", "example.com"),
    ("http://evil.com\\example.com", "example.com"),
    ("http://example.com http://evil.com", "example.com"),
    ("http://example.com, http://evil.com", "example.com"),
    ("http://example.com,http://evil.com", "example.com"),
    ("http://example.com,evil.com", "example.com"),
    ("http://example.com:80@evil.com", "example.com"),
    ("http://example.com%2f.evil.com", "example.com"),
    ("http://example.com%00.evil.com", "example.com"),
    ("http://example.com\t.evil.com", "example.com"),
    ("http://example.com..", "example.com"),
    ("http://.example.com", "example.com"),
    ("http://xample.com", "example.com"),
    ("http://[::ffff:127.0.0.1]", "127.0.0.1"),
    ("ws://example.com", "example.com"),
    ("ftp://example.com", "example.com"),
    ("chrome-extension://example.com", "example.com"),
]
MALFORMED = [
    "",
    "null",
    "example.com",
    "//example.com",
    "http:example.com",
    "http://",
    "http://:80",
    "http://example.com/",
    "http://example.com/path",
    "http://example.com?q",
    "http://example.com#f",
    "http://user@example.com",
    "http://user:pw@example.com",
    "http://example.com:port",
    "http://example.com:99999",
    "http://example.com:",
    "http://example.com:-80",
    "http://example.com:\u0661",
    "http://ex\u00e4mple.com",
    "http://\u212aelvin.example",
    "null ",
    " http://example.com",
    "http://example.com\n",
    "http://[::1",
    "http://[nonsense]",
    "\0",
]


@pytest.mark.parametrize(("origin", "host"), SAME)
def test_same(origin: str, host: str) -> None:
    assert is_allowed(origin, host, "same")


@pytest.mark.parametrize(("origin", "host"), OTHER)
def test_not_the_same(origin: str, host: str) -> None:
    assert not is_allowed(origin, host, "same")


SECURE = [  # over TLS, as far as we know
    ("https://example.com", "example.com", True),
    ("https://example.com", "example.com:443", True),
    ("https://example.com:8443", "example.com:8443", True),
    ("HTTPS://example.com", "example.com", True),
    ("http://example.com", "example.com", False),
    ("http://example.com:443", "example.com", False),
    ("http://example.com:443", "example.com:443", False),
    ("http://example.com:8443", "example.com:8443", False),
    ("Http://example.com", "example.com", False),
    ("http://evil.com", "example.com", False),
]


@pytest.mark.parametrize(("origin", "host", "allowed"), SECURE)
def test_a_page_without_tls_is_not_the_same_with_tls(origin: str, host: str, allowed: bool) -> None:
    assert is_allowed(origin, host, "same", is_secure=True) is allowed


def test_a_list_names_its_schemes_itself() -> None:
    origins = check_origins(["http://example.com"])
    assert is_allowed("http://example.com", "example.com", origins, is_secure=True)
    assert not is_allowed("https://example.com", "example.com", origins, is_secure=True)


@pytest.mark.parametrize("origin", MALFORMED)
def test_what_is_no_origin_is_never_the_same(origin: str) -> None:
    assert not is_allowed(origin, "example.com", "same")
    assert not is_allowed(origin, origin, "same")
    assert not is_allowed(origin, "example.com", ["http://example.com"])


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        "a@example.com",
        "example.com/",
        "example.com:x",
        "[::1",
        "a b?",
        "example.com,evil",
    ],
)
def test_a_malformed_host_is_never_the_same(host: str) -> None:
    assert not is_allowed("http://example.com", host, "same")


def test_no_browser_sends_no_origin() -> None:
    assert is_allowed(None, "example.com", "same")
    assert is_allowed(None, "example.com", ["http://other.com"])
    assert is_allowed(None, "", None)


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "", "http://[::1"])
def test_none_lets_all_in(origin: str) -> None:
    assert is_allowed(origin, "example.com", None)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example.com", True),
        ("https://APP.example.com:443", True),
        ("http://localhost:3000", True),
        ("http://app.example.com", False),
        ("https://app.example.com:8443", False),
        ("http://localhost", False),
        ("https://api.example.com", False),
        ("null", False),
    ],
)
def test_a_list(origin: str, allowed: bool) -> None:
    origins = check_origins(["https://app.example.com", "http://localhost:3000"])
    assert is_allowed(origin, "api.example.com", origins) is allowed


def test_a_list_does_not_add_the_same_host() -> None:
    assert not is_allowed("http://example.com", "example.com", ["http://other.com"])
    assert not is_allowed("http://example.com", "example.com", [])


def test_patterns_must_match_the_whole_origin() -> None:
    origins = check_origins([re.compile(r"https://[a-z]+\.example\.com"), "http://localhost"])
    assert is_allowed("https://app.example.com", "h", origins)
    assert is_allowed("http://localhost", "h", origins)
    assert not is_allowed("https://app.example.com.evil.com", "h", origins)
    assert not is_allowed("xhttps://app.example.com", "h", origins)
    assert is_allowed("null", "h", [re.compile("null")])


def test_an_opaque_origin_may_be_named() -> None:
    origins = check_origins(["null", "http://localhost"])
    assert is_allowed("null", "h", origins) and is_allowed("http://localhost:80", "h", origins)
    assert not is_allowed("Null", "h", origins) and not is_allowed("http://h", "h", origins)


@pytest.mark.parametrize("origin", sorted({*MALFORMED} - {"null"}))
def test_a_list_of_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        check_origins([origin])


@pytest.mark.parametrize("origins", ["any", "http://example.com", ""])
def test_a_string_that_is_not_same(origins: str) -> None:
    with pytest.raises(ValueError, match="same"):
        check_origins(origins)


def test_things_that_are_neither_text_nor_pattern() -> None:
    # A bad value is refused at construction, not at the first handshake.
    for wrong in (1, None, b"http://example.com", re.compile(b"x")):
        with pytest.raises((TypeError, ValueError)):
            check_origins([wrong])  # type: ignore[list-item]


def test_an_iterator_may_be_used_again_and_again() -> None:
    origins = check_origins(iter(["http://example.com"]))
    assert is_allowed("http://example.com", "h", origins)
    assert is_allowed("http://example.com", "h", origins)


def test_same_and_none_are_kept() -> None:
    assert check_origins("same") == "same"
    assert check_origins(None) is None


@pytest.mark.parametrize("origins", ["*", ["*"], ["http://example.com", "*"]])
def test_a_star_is_explained(origins: Any) -> None:
    with pytest.raises(ValueError, match="write origins=None, which lets the pages of any site"):
        check_origins(origins)


def test_one_origin_is_a_list_of_one() -> None:
    with pytest.raises(ValueError, match=r"write origins=\['http://example.com'\]"):
        check_origins("http://example.com")
