"""A parsed request and its token lists; a response and its bytes."""

from __future__ import annotations

from http import HTTPStatus

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faye_wsgi.http.messages import Request, Response


def test_a_token_in_a_list_in_any_case() -> None:
    request = Request("GET", {"connection": "keep-alive, UPGRADE", "upgrade": "WebSocket"})
    assert request.has_token("connection", "upgrade")
    assert request.has_token("upgrade", "websocket")
    assert not request.has_token("connection", "websocket")
    assert not request.has_token("missing", "upgrade")
    assert not Request("GET", {"connection": "upgraded"}).has_token("connection", "upgrade")


@pytest.mark.parametrize("value", ["upgrade", " upgrade", "\tUPGRADE ,", ",,upgrade", "a,upgrade"])
def test_blanks_and_empty_items_do_not_hide_a_token(value: str) -> None:
    assert Request("GET", {"connection": value}).has_token("connection", "upgrade")


@pytest.mark.parametrize("value", ["", ",", "up grade", "upgrade;q=1", "'upgrade'", "up,grade"])
def test_what_is_another_token(value: str) -> None:
    assert not Request("GET", {"connection": value}).has_token("connection", "upgrade")


def test_a_request_is_http_1_1_without_a_body_unless_it_says_otherwise() -> None:
    request = Request("GET", {})
    assert (request.http_version, request.has_body) == ("HTTP/1.1", False)


def test_a_response_in_bytes() -> None:
    response = Response(101, [("Upgrade", "websocket"), ("X", "caf\xe9"), ("X", "2")])
    assert response.encode() == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX: caf\xe9\r\nX: 2\r\n\r\n"
    )
    assert Response(400, [], b"no").encode() == b"HTTP/1.1 400 Bad Request\r\n\r\nno"


def test_a_phrase_of_its_own() -> None:
    response = Response(101, [], phrase="Web Socket Protocol Handshake")
    assert response.encode() == b"HTTP/1.1 101 Web Socket Protocol Handshake\r\n\r\n"


def test_a_header_outside_latin_1_cannot_be_sent() -> None:
    with pytest.raises(UnicodeEncodeError):
        Response(400, [("X", "\u2603")]).encode()


@given(
    st.sampled_from([status for status in HTTPStatus if 200 <= status < 600 and status != 304]),
    st.binary(max_size=100),
)
def test_a_client_reads_what_is_encoded(status: HTTPStatus, body: bytes) -> None:
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT):
        body = b""
    headers = [("X-One", "caf\xe9"), ("Content-Length", str(len(body)))]
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(Response(status, headers, body).encode())
    head = client.next_event()
    assert isinstance(head, h11.Response)
    assert (head.status_code, bytes(head.reason)) == (status, status.phrase.encode())
    assert (b"x-one", b"caf\xe9") in [(bytes(k), bytes(v)) for k, v in head.headers]
    received = b""
    while isinstance(event := client.next_event(), h11.Data):
        received += bytes(event.data)
    assert received == body and isinstance(event, h11.EndOfMessage)
