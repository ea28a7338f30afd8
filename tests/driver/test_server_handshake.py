"""The server's opening handshake, RFC 6455 §4.2: a request in, a driver or an error out."""

from __future__ import annotations

import pytest

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.events import CloseEvent
from faye_wsgi.driver.server_handshake import (
    RESERVED_HEADERS,
    accept_key,
    check_protocols,
    handshake,
)
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.http.headers import check_headers
from faye_wsgi.http.messages import Request

from ..support import frames

HEADERS = {
    "host": "example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}


def request(
    headers: dict[str, str] | None = None,
    *,
    without: str = "",
    method: str = "GET",
    http_version: str = "HTTP/1.1",
    has_body: bool = False,
) -> Request:
    """A good request, but for what is said."""
    merged = {**HEADERS, **(headers or {})}
    merged.pop(without, None)
    return Request(method, merged, http_version, has_body)


def refused(bad: Request) -> HandshakeError:
    """The error that ``bad`` gets: always plain text that tells why."""
    with pytest.raises(HandshakeError) as caught:
        handshake(bad)
    error = caught.value
    assert isinstance(error, ConnectionClosed)
    assert error.reason and error.body == f"{error.reason}\n".encode()
    assert ("Content-Type", "text/plain; charset=utf-8") in error.headers
    return error


def test_the_example_of_the_rfc() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    driver, response = handshake(request())
    assert response.status_code == 101 and response.body == b""
    assert response.encode() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"\r\n"
    )
    assert (driver.state, driver.protocol, driver.version) == (ReadyState.OPEN, "", "hybi-13")


@pytest.mark.parametrize("number", range(5))
def test_other_keys(number: int) -> None:
    key = frames.new_key()
    _, response = handshake(request({"sec-websocket-key": key}))
    assert dict(response.headers)["Sec-WebSocket-Accept"] == frames.accept(key)


def test_the_driver_is_a_servers_with_the_given_limits() -> None:
    driver, _ = handshake(request(), max_length=3, max_fragments=2)
    assert driver.receive_data(frames.text("abc")) == ["abc"]
    end = driver.receive_data(frames.text("abcd"))[-1]
    assert isinstance(end, CloseEvent) and end.code == 1009
    driver, _ = handshake(request(), max_length=3, max_fragments=2)
    pieces = frames.text("a", fin=False) + frames.frame(0, b"", fin=False) + frames.frame(0)
    end = driver.receive_data(pieces)[-1]
    assert isinstance(end, CloseEvent) and end.code == 1009


@pytest.mark.parametrize(
    "headers",
    [
        {"upgrade": "WebSocket"},
        {"upgrade": "h2c, WEBSOCKET"},
        {"connection": "upgrade"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "keep-alive ,\tUPGRADE,"},
        {"sec-websocket-key": " dGhlIHNhbXBsZSBub25jZQ== "},
        {"sec-websocket-extensions": ""},
        {"sec-websocket-extensions": "permessage-deflate; client_max_window_bits"},
        {"sec-websocket-extensions": 'unknown, another; x="1"'},
        {"sec-websocket-protocol": ""},
        {"origin": "http://anywhere.example"},
    ],
)
def test_requests_that_are_good(headers: dict[str, str]) -> None:
    _, response = handshake(request(headers))
    assert response.status_code == 101
    assert dict(response.headers)["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_no_extension_is_agreed_on_that_was_not_asked_for() -> None:
    _, response = handshake(request({"sec-websocket-extensions": "permessage-deflate"}))
    assert "Sec-WebSocket-Extensions" not in dict(response.headers)


# Refusals


def test_a_plain_get_is_told_to_upgrade() -> None:
    error = refused(Request("GET", {"host": "example.com"}))
    assert error.status_code == 426
    assert ("Upgrade", "websocket") in error.headers
    assert ("Connection", "Upgrade") in error.headers


@pytest.mark.parametrize(
    "bad",
    [
        request(method="POST"),
        request(method="HEAD"),
        request(method="get"),
        request(method="CONNECT"),
        Request("POST", {}),
        request({"upgrade": "h2c"}),
        request({"upgrade": ""}),
        request({"upgrade": "websockets"}),
        request({"connection": "keep-alive"}),
        request({"connection": "close"}),
        request({"connection": "upgrades"}),
        request(without="connection"),
        request(http_version="HTTP/1.0"),
        request(has_body=True),
    ],
)
def test_what_is_no_websocket_request(bad: Request) -> None:
    assert refused(bad).status_code == 400


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/2", "HTTP/2.0", "HTTP/3"])
def test_other_http_versions(version: str) -> None:
    # The connection of an HTTP/2 request is shared by all its streams.
    assert refused(request(http_version=version)).status_code == 400


@pytest.mark.parametrize("version", ["", "0", "7", "8", "12", "14", "013", "1", "13x", "13, 13"])
def test_other_versions_are_told_ours(version: str) -> None:
    error = refused(request({"sec-websocket-version": version}))
    assert error.status_code == 426
    assert ("Sec-WebSocket-Version", "13") in error.headers


def test_a_missing_version_is_told_ours() -> None:
    error = refused(request(without="sec-websocket-version"))
    assert error.status_code == 426
    assert ("Sec-WebSocket-Version", "13") in error.headers


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQ====",
        "dGhlIHNhbXBsZSBub25jZQ==========",
        "dGhlIHNhbXBsZSBub25jZQ==,dGhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZQ==,evil",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZWFh",
        "dGhlIHNhbXBsZSBub25jZWFhYWFh",
        "dGhlIHNhbXBsZ$Bub25jZQ==",
        "dGhlIHNhbXBsZS\r\nub25jZQ==",
        "dGhlIHNh_XBsZSBub25jZQ==",
        "dGhlIHNh\xe9XBsZSBub25jZQ==",
        "dGhlIHNh\u0661XBsZSBub25jZQ==",
        "========================",
    ],
)
def test_bad_keys(key: str) -> None:
    assert refused(request({"sec-websocket-key": key})).status_code == 400


def test_a_missing_key() -> None:
    assert refused(request(without="sec-websocket-key")).status_code == 400


@pytest.mark.parametrize("value", ["a;", "a=1", ";", "a;x;x", "a\r\nX: y", "a" * 5000])
def test_malformed_extensions(value: str) -> None:
    assert refused(request({"sec-websocket-extensions": value})).status_code == 400


@pytest.mark.parametrize("name", sorted(HEADERS))
@pytest.mark.parametrize("value", ["", ",", "\0", "\xff", "\u20ac", "a\r\nb", '"', ";" * 100])
def test_nothing_a_client_says_raises_anything_else(name: str, value: str) -> None:
    try:
        handshake(request({name: value}))
    except HandshakeError as error:
        assert error.status_code in (400, 426)


# Subprotocols


@pytest.mark.parametrize(
    ("offered", "supported", "chosen"),
    [
        ("chat", ["chat"], "chat"),
        ("a, b, c", ["c", "b"], "b"),
        ("a,b", "b , a", "a"),
        ("a, b", ("x", "y"), ""),
        ("Chat", ["chat"], ""),
        ("a", None, ""),
        ("a", [], ""),
        ("", ["a"], ""),
        (",, a", ["a"], "a"),
        ("not a token, a", ["a"], "a"),
        ("a\r\nX: y, b", ["b"], "b"),
    ],
)
def test_the_first_of_the_clients_subprotocols(
    offered: str, supported: object, chosen: str
) -> None:
    driver, response = handshake(
        request({"sec-websocket-protocol": offered}),
        protocols=supported,  # type: ignore[arg-type]
    )
    assert driver.protocol == chosen
    assert dict(response.headers).get("Sec-WebSocket-Protocol", "") == chosen
    assert ("Sec-WebSocket-Protocol" in dict(response.headers)) == bool(chosen)


def test_a_callable_chooses() -> None:
    seen: list[list[str]] = []

    def choose(offered: list[str]) -> str | None:
        seen.append(offered)
        return offered[-1] if offered else None

    driver, _ = handshake(request({"sec-websocket-protocol": "a, b"}), protocols=choose)
    assert driver.protocol == "b"
    driver, response = handshake(request(), protocols=choose)
    assert driver.protocol == "" and "Sec-WebSocket-Protocol" not in dict(response.headers)
    assert seen == [["a", "b"], []]


def test_a_callable_may_not_choose_what_was_not_offered() -> None:
    with pytest.raises(ValueError, match="evil"):
        handshake(request({"sec-websocket-protocol": "a"}), protocols=lambda offered: "evil")


@pytest.mark.parametrize("names", [["a b"], "a b", [""], ["a\r\n"], ["a;"], [1], [None]])
def test_names_that_are_no_subprotocols(names: object) -> None:
    with pytest.raises(ValueError, match="subprotocol"):
        check_protocols(names)  # type: ignore[arg-type]


# The user's headers


def test_the_users_headers_are_added_after_ours() -> None:
    users = check_headers([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], RESERVED_HEADERS)
    _, response = handshake(request(), headers=users)
    assert response.headers[-2:] == users
    assert response.encode().endswith(b"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n")


def test_our_headers_cannot_be_overridden() -> None:
    _, response = handshake(
        request({"sec-websocket-protocol": "a"}), protocols=["a"], headers=[("X", "y")]
    )
    for name, _ in response.headers[:-1]:
        for spelling in (name, name.lower(), name.upper()):
            with pytest.raises(ValueError, match="handshake"):
                check_headers({spelling: "mine"}, RESERVED_HEADERS)


def test_nothing_of_the_request_is_echoed_unchecked() -> None:
    evil = "a\r\nSet-Cookie: evil=1"
    bad = request({"sec-websocket-protocol": f"{evil}, b", "origin": evil, "host": evil})
    _, response = handshake(bad, protocols=lambda offered: offered[0])
    assert b"evil" not in response.encode()
    for name in ("upgrade", "connection", "sec-websocket-key", "sec-websocket-version"):
        error = refused(request({name: evil}))
        assert b"evil" not in error.body and "evil" not in str(error.headers)


@pytest.mark.parametrize(
    "lost, status",
    [("upgrade", 426), ("connection", 400)],
)
def test_a_proxy_that_drops_a_header_is_named(lost: str, status: int) -> None:
    error = refused(request(without=lost))
    assert error.status_code == status
    for wanted in ("in a proxy", "proxy_http_version 1.1", "proxy_set_header Upgrade"):
        assert wanted in str(error.reason) and wanted.encode() in error.body


def test_a_request_that_never_asked_blames_no_proxy() -> None:
    for bad in (
        Request("GET", {}),
        Request("POST", {"sec-websocket-key": HEADERS["sec-websocket-key"]}),
        request({"upgrade": "h2c"}),
    ):
        assert "proxy" not in str(refused(bad).reason)
