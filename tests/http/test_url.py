"""URLs of WebSockets and of proxies: taken apart, checked, and shown without their secrets."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faye_wsgi.http.url import HTTP_SCHEMES, Url, parse_url, resolve, without_query


@pytest.mark.parametrize(
    "text, host_header, authority, target",
    [
        ("ws://example.com", "example.com", "example.com:80", "/"),
        ("wss://example.com", "example.com", "example.com:443", "/"),
        ("WS://EXAMPLE.com:80/a?b=c", "example.com", "example.com:80", "/a?b=c"),
        ("ws://example.com:443/", "example.com:443", "example.com:443", "/"),
        ("ws://example.com?x", "example.com", "example.com:80", "/?x"),
        ("ws://example.com/a#part", "example.com", "example.com:80", "/a"),
        (
            "ws://example.com/a%20b/é?ü=ß d",
            "example.com",
            "example.com:80",
            "/a%20b/%C3%A9?%C3%BC=%C3%9F%20d",
        ),
        ("ws://[::1]:8000/", "[::1]:8000", "[::1]:8000", "/"),
        ("ws://[fe80::1%25eth0]/", "[fe80::1]", "[fe80::1]:80", "/"),
        ("ws://bücher.example/", "xn--bcher-kva.example", "xn--bcher-kva.example:80", "/"),
        ("ws://127.0.0.1:1/", "127.0.0.1:1", "127.0.0.1:1", "/"),
    ],
)
def test_urls(text: str, host_header: str, authority: str, target: str) -> None:
    url = parse_url(text)
    assert (url.host_header, url.authority, url.target) == (host_header, authority, target)
    assert url.secure == text.lower().startswith("wss")


def test_the_zone_is_kept_for_connecting() -> None:
    assert parse_url("ws://[fe80::1%25eth0]/").host == "fe80::1%eth0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "//example.com",
        "http://example.com",
        "ws:example.com",
        "ws://",
        "ws:///path",
        "ws://:80/",
        "ws://example.com:port/",
        "ws://example.com:65536/",
        "ws://example.com:0/",
        "ws://exam ple.com/",
        "ws://example.com\r\nX: y/",
        "ws://example.com/\tx",
        "ws://exa%6dple.com/",
        "ws://a<b>/",
        "ws://[::1/",
        "ws://[example.com]/",
        "ws://" + "é" * 80 + "/",
        "ws://a%3Ab:c@example.com/",
        "ws+unix:",
        "ws+unix::/path",
    ],
)
def test_urls_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_url(text)


@pytest.mark.parametrize(
    "text", ["ws://me:pass@example.com/?token=secret", "ws+unix:/sock:/path?token=secret"]
)
def test_a_repr_has_no_secrets(text: str) -> None:
    shown = repr(parse_url(text))
    assert text.partition(":")[0] in shown
    assert not any(secret in shown for secret in ("secret", "pass", "Basic"))


def test_an_error_has_no_secrets() -> None:
    with pytest.raises(ValueError) as caught:
        parse_url("http://me:pass@example.com/?token=secret")
    assert "example.com" in str(caught.value)
    assert "secret" not in str(caught.value) and "pass" not in str(caught.value)


def test_a_url_is_text() -> None:
    with pytest.raises(TypeError):
        parse_url(b"ws://example.com")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "userinfo, expected",
    [
        ("user:secret", b"user:secret"),
        ("user", b"user:"),
        ("us%20er:p%3A%40%2F", b"us er:p:@/"),
        ("us%C3%A9r:%ff", b"us\xc3\xa9r:\xff"),
        (":secret", b":secret"),
        ("user:a@b", b"user:a@b"),
    ],
)
def test_credentials(userinfo: str, expected: bytes) -> None:
    url = parse_url(f"ws://{userinfo}@example.com/")
    assert url.authorization == "Basic " + base64.b64encode(expected).decode()
    assert str(url) == "ws://example.com/"


def test_no_credentials() -> None:
    assert parse_url("ws://@example.com/").authorization == ""
    assert parse_url("ws://:@example.com/").authorization == ""


def test_an_error_does_not_tell_the_password() -> None:
    with pytest.raises(ValueError) as caught:
        parse_url("http://user:secret@example.com/")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text, path, target",
    [
        ("ws+unix:/run/a.sock", "/run/a.sock", "/"),
        ("ws+unix:/run/a.sock:/chat?x=y#z", "/run/a.sock", "/chat?x=y"),
        ("ws+unix:///run/a.sock:/chat", "/run/a.sock", "/chat"),
        ("ws+unix:/run/a%20b.sock", "/run/a b.sock", "/"),
        ("ws+unix:a.sock:chat", "a.sock", "/chat"),
    ],
)
def test_unix_sockets(text: str, path: str, target: str) -> None:
    url = parse_url(text)
    assert (url.path, url.target, url.host_header, url.secure) == (path, target, "localhost", False)
    assert str(url) == f"ws+unix:{path}:{target}"


def test_proxies() -> None:
    url = parse_url("http://proxy:3128", HTTP_SCHEMES)
    assert (url.host, url.port, url.secure) == ("proxy", 3128, False)
    assert parse_url("https://proxy", HTTP_SCHEMES).port == 443
    with pytest.raises(ValueError):
        parse_url("socks5://proxy", HTTP_SCHEMES)


@pytest.mark.parametrize(
    "location, expected",
    [
        ("/b", "wss://example.com/b"),
        ("c?d", "wss://example.com/a/c?d"),
        ("//other.example/", "wss://other.example/"),
        ("ws://example.com/", "ws://example.com/"),
        ("https://example.com:8443/x#y", "wss://example.com:8443/x"),
        ("http://example.com", "ws://example.com/"),
    ],
)
def test_redirects(location: str, expected: str) -> None:
    assert str(resolve(parse_url("wss://example.com/a/b"), location)) == expected


def test_redirects_of_http() -> None:
    base = parse_url("https://example.com/a", HTTP_SCHEMES)
    assert str(resolve(base, "/b")) == "https://example.com/b"
    assert str(resolve(base, "http://other.example/")) == "http://other.example/"
    with pytest.raises(ValueError):
        resolve(base, "wss://example.com/")


@pytest.mark.parametrize("location", ["ftp://a/", "ws+unix:/run/x", "javascript:1", "ws://:1/"])
def test_redirects_to_nowhere(location: str) -> None:
    with pytest.raises(ValueError):
        resolve(parse_url("ws://example.com/"), location)


def test_origins() -> None:
    base = parse_url("ws://example.com/a")
    assert base.origin == parse_url("ws://u:p@EXAMPLE.com:80/b").origin
    for other in ("wss://example.com/", "ws://example.com:81/", "ws://www.example.com/"):
        assert parse_url(other).origin != base.origin
    assert isinstance(base, Url)


@pytest.mark.parametrize("location", ["//u:p@other.example/", "ws://u:p@other.example/"])
def test_a_redirect_may_bring_credentials_but_does_not_inherit_them(location: str) -> None:
    base = parse_url("wss://me:mine@example.com/a")
    assert resolve(base, "/b").authorization == ""
    expected = "Basic " + base64.b64encode(b"u:p").decode()
    assert resolve(base, location).authorization == expected


@pytest.mark.parametrize(
    "text, shown",
    [
        ("wss://example.com/a?token=x", "wss://example.com/a"),
        ("ws+unix:/sock:/a?x?y", "ws+unix:/sock:/a"),
        ("ws://example.com/a", "ws://example.com/a"),
        ("", ""),
    ],
)
def test_without_the_query(text: str, shown: str) -> None:
    assert without_query(text) == shown


# Hostile input

HOSTS = st.one_of(st.text(max_size=20), st.sampled_from(["example.com", "[::1]", "a.b:80"]))
URLS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["ws://", "wss://", "WS://", "ws:", "ws+unix:", "http://", ""]),
    HOSTS,
    st.sampled_from(["", "/", "/a b", "?", "#", "\\", "/é?ü"]),
    st.text(max_size=20),
)


@given(URLS)
@example("ws://a/\u2028")
@example("ws://a\u2100b/")  # normalises to a slash inside the host
@example("ws://\u212a/")
def test_a_url_is_read_or_refused_with_a_value_error(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError:
        return
    # It goes into a request line and a Host header: nothing in it may end either of them.
    for part in (url.target, url.host_header, url.authority, url.authorization):
        assert part.isascii() and part.isprintable()
    assert " " not in url.target and "#" not in url.target
    assert url.target.startswith("/") and " " not in url.host_header


@given(URLS)
def test_what_is_shown_of_a_url_names_the_same_place(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError:
        return
    if "%" in url.host or url.path:
        return  # a zone is not shown, and the path of a Unix socket is shown unquoted
    again = parse_url(str(url))
    assert (again.origin, again.target) == (url.origin, url.target)


@given(URLS, st.text(max_size=30))
def test_a_redirect_is_read_or_refused_with_a_value_error(text: str, location: str) -> None:
    try:
        found = resolve(parse_url("wss://example.com/a/b"), text + location)
    except ValueError:
        return
    assert found.scheme in ("ws", "wss") and found.host
