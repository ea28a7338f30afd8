"""The client's opening handshake, RFC 6455 §4.1."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.client_handshake import ClientHandshake, Opened
from faye_wsgi.driver.events import CloseEvent
from faye_wsgi.driver.hybi import Hybi
from faye_wsgi.errors import HandshakeError
from faye_wsgi.extensions.permessage_deflate import PermessageDeflate
from faye_wsgi.http.exchange import MAX_BODY, MAX_HEAD, MAX_INTERIM
from faye_wsgi.http.url import parse_url

from ..support import frames

NONCE = base64.b64decode(frames.KEY)
GOOD = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Accept": frames.accept(frames.KEY),
}


def handshake(url: str = "ws://example.com/chat", **options: Any) -> ClientHandshake:
    return ClientHandshake(parse_url(url), random=lambda size: NONCE[:size], **options)


def answer(
    headers: dict[str, str] | None = None,
    *,
    without: str = "",
    status: str = "HTTP/1.1 101 Switching Protocols",
    more: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """A good answer, but for what is said."""
    merged = {**GOOD, **(headers or {})}
    merged.pop(without, None)
    lines = [status] + [f"{name}: {value}" for name, value in (*merged.items(), *more)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def opened(data: bytes, **options: Any) -> Opened:
    result = handshake(**options).receive_data(data)
    assert result is not None
    return result


def refused(data: bytes, **options: Any) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        handshake(**options).receive_data(data)
    assert caught.value.reason and caught.value.code == 1002
    return caught.value


# The request


def test_the_request() -> None:
    assert handshake().request == (
        b"GET /chat HTTP/1.1\r\n"
        b"Host: example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
    )


def test_what_is_added_to_the_request() -> None:
    request = handshake(
        "ws://us%20er:p%40ss@example.com:81/",
        protocols=["irc", "amqp"],
        headers=[("X-One", "1"), ("Cookie", "a=b"), ("Cookie", "c=d")],
    ).request
    assert b"\r\nHost: example.com:81\r\n" in request
    assert b"\r\nSec-WebSocket-Protocol: irc, amqp\r\n" in request
    assert b"\r\nX-One: 1\r\n" in request
    assert b"\r\nCookie: a=b\r\nCookie: c=d\r\n" in request
    basic = base64.b64encode(b"us er:p@ss")
    assert b"\r\nAuthorization: Basic " + basic + b"\r\n" in request


def test_the_users_host_and_authorization_win() -> None:
    headers = [("host", "virtual.example"), ("authorization", "Bearer x")]
    request = handshake("ws://u:p@example.com/", headers=headers).request
    assert request.lower().count(b"\r\nhost:") == 1 and b"virtual.example" in request
    assert request.lower().count(b"\r\nauthorization:") == 1 and b"Bearer x" in request


def test_each_key_is_its_own() -> None:
    url = parse_url("ws://example.com/")
    assert ClientHandshake(url).request != ClientHandshake(url).request


@pytest.mark.parametrize(
    "headers", [[("X One", "1")], [("Host", "a"), ("Host", "b")], [("X-One", "a\r\nb")]]
)
def test_headers_that_http_forbids(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError):
        handshake(headers=headers)


# Answers that open


def test_the_answer_opens() -> None:
    result = opened(answer({"Set-Cookie": "a=b"}), max_length=3)
    assert result.status_code == 101 and ("Set-Cookie", "a=b") in result.headers
    driver = result.driver
    assert isinstance(driver, Hybi)
    assert (driver.state, driver.protocol, driver.version) == (ReadyState.OPEN, "", "hybi-13")
    assert driver.receive_data(frames.text("abc", mask=None)) == ["abc"]
    end = driver.receive_data(frames.text("abcd", mask=None))[-1]
    assert isinstance(end, CloseEvent) and end.code == 1009


def test_what_follows_the_head_is_left() -> None:
    assert opened(answer() + b"\x81\x01a").left == b"\x81\x01a"
    assert opened(answer()).left == b""


def test_any_split() -> None:
    data = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + answer()
    step = handshake()
    for index in range(len(data) - 1):
        assert step.receive_data(data[index : index + 1]) is None
    assert step.receive_data(data[-1:] + b"left").left == b"left"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "WebSocket"},
        {"Upgrade": "h2c, WEBSOCKET"},
        {"Connection": "keep-alive, upgrade"},
        {"Sec-WebSocket-Extensions": ""},
        {"Content-Length": "0"},
    ],
)
def test_answers_that_are_good(headers: dict[str, str]) -> None:
    assert opened(answer(headers)).status_code == 101


def test_a_subprotocol_that_was_offered() -> None:
    data = answer({"Sec-WebSocket-Protocol": "amqp"})
    assert opened(data, protocols=["irc", "amqp"]).driver.protocol == "amqp"
    assert opened(answer(), protocols=["irc"]).driver.protocol == ""


def test_the_driver_masks_and_takes_nothing_masked() -> None:
    driver = opened(answer()).driver
    assert driver.message("a") == frames.text("a", mask=NONCE[:4])
    end = driver.receive_data(frames.text("a"))[-1]
    assert isinstance(end, CloseEvent) and end.code == 1002


def test_an_extension_that_was_offered() -> None:
    step = handshake(extensions=[PermessageDeflate()])
    assert b"\r\nSec-WebSocket-Extensions: permessage-deflate" in step.request
    result = step.receive_data(answer({"Sec-WebSocket-Extensions": "permessage-deflate"}))
    assert result is not None
    sent = result.driver.message("x" * 9999)
    assert sent[0] == 0xC1 and len(sent) < 100


# Answers that fail


@pytest.mark.parametrize(
    "data",
    [
        answer({"Upgrade": "h2c"}),
        answer({"Upgrade": "websockets"}),
        answer(without="Upgrade"),
        answer({"Connection": "close"}),
        answer(without="Connection"),
        answer({"Sec-WebSocket-Accept": frames.accept(base64.b64encode(bytes(16)).decode())}),
        answer({"Sec-WebSocket-Accept": frames.accept(frames.KEY).lower()}),
        answer({"Sec-WebSocket-Accept": ""}),
        answer(without="Sec-WebSocket-Accept"),
        answer(more=(("Sec-WebSocket-Accept", frames.accept(frames.KEY)),)),
        answer({"Sec-WebSocket-Protocol": "mqtt"}),
        answer({"Sec-WebSocket-Protocol": "IRC"}),
        answer({"Sec-WebSocket-Protocol": ""}),
        answer({"Sec-WebSocket-Protocol": "irc, amqp"}),
        answer({"Sec-WebSocket-Protocol": "irc"}, more=(("Sec-WebSocket-Protocol", "irc"),)),
        answer({"Sec-WebSocket-Extensions": "permessage-deflate"}),
        answer({"Sec-WebSocket-Extensions": 'x; y="'}),
        answer(status="HTTP/1.0 101 Switching Protocols"),
    ],
)
def test_a_wrong_switch(data: bytes) -> None:
    error = refused(data, protocols=["irc", "amqp"])
    assert error.status_code == 101 and error.headers and error.body == b""


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x05hello world\r\n\r\n",
        b"HTTP/2 101 x\r\n\r\n",
        b"HTTP/1.1 1000 x\r\n\r\n",
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/1.1 101 x\r\nNo colon here\r\n\r\n",
        b"HTTP/1.1 101 x\r\n folded: first\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * (MAX_INTERIM + 1),
        b"HTTP/1.1 101 x\r\nX: " + b"x" * MAX_HEAD * 2,
        b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * MAX_HEAD,
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    assert refused(data).status_code is None


def test_a_refusal_carries_its_answer() -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nX-Why: because\r\nContent-Length: 6\r\n\r\n"
    step = handshake()
    assert step.receive_data(head + b"no") is None and step.is_refused
    with pytest.raises(HandshakeError) as caught:
        step.receive_data(b"body")
    error = caught.value
    assert (error.status_code, error.body) == (403, b"nobody")
    assert ("X-Why", "because") in error.headers
    assert "403 Forbidden" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_refusals_that_end(data: bytes) -> None:
    assert refused(data).status_code == int(data.split()[1])


def test_the_body_of_a_refusal_is_bounded() -> None:
    step = handshake()
    assert step.receive_data(b"HTTP/1.1 500 Oh\r\n\r\n") is None
    with pytest.raises(HandshakeError) as caught:
        for _ in range(MAX_BODY + 1):
            step.receive_data(b"x" * 10)
    assert caught.value.body == b"x" * MAX_BODY


def test_the_end_of_tcp() -> None:
    step = handshake()
    assert (step.receive_eof().code, step.receive_eof().status_code) == (1006, None)
    step.receive_data(b"HTTP/1.1 502 Bad\r\n\r\nhalf")
    assert (step.receive_eof().status_code, step.receive_eof().body) == (502, b"half")


def test_a_refusal_whose_body_breaks() -> None:
    data = b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n"
    assert (refused(data).status_code, refused(data).body) == (500, b"abc")
