"""The proxy step: a CONNECT request, and what a proxy may answer."""

from __future__ import annotations

import pytest

from faye_wsgi.errors import HandshakeError
from faye_wsgi.http.exchange import MAX_BODY, MAX_HEAD
from faye_wsgi.http.proxy import ProxyHandshake
from faye_wsgi.http.url import HTTP_SCHEMES, parse_url


def step(
    proxy: str = "http://proxy:3128",
    server: str = "wss://example.com/chat",
    headers: tuple[tuple[str, str], ...] = (),
) -> ProxyHandshake:
    return ProxyHandshake(parse_url(proxy, HTTP_SCHEMES), parse_url(server), headers)


def refused(data: bytes) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        step().receive_data(data)
    assert caught.value.code == 1006 and "proxy" in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "server, authority",
    [
        ("wss://example.com/chat", b"example.com:443"),
        ("ws://example.com/chat", b"example.com:80"),
        ("ws://u:p@example.com:8000/chat", b"example.com:8000"),
        ("ws://[::1]/", b"[::1]:80"),
    ],
)
def test_the_request(server: str, authority: bytes) -> None:
    expected = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (authority, authority)
    assert step(server=server).request == expected


def test_credentials_and_headers() -> None:
    request = step("http://us%20er:p%40ss@proxy", headers=(("X-One", "1"),)).request
    assert b"\r\nProxy-Authorization: Basic dXMgZXI6cEBzcw==\r\n" in request
    assert b"\r\nX-One: 1\r\n" in request
    request = step("http://u:p@proxy", headers=(("proxy-authorization", "Bearer x"),)).request
    assert request.lower().count(b"proxy-authorization") == 1 and b"Bearer x" in request


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-agent: x\r\n\r\n",
        b"HTTP/1.1 204 Fine\r\n\r\n",
        b"HTTP/1.1 299\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",  # RFC 9110 §9.3.6: no body follows
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_any_2xx_opens_the_tunnel(data: bytes) -> None:
    assert step().receive_data(data) is True
    pieces = step()
    for index in range(len(data) - 1):
        assert pieces.receive_data(data[index : index + 1]) is None
    assert pieces.receive_data(data[-1:]) is True


def test_bytes_after_the_answer() -> None:
    refused(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")


@pytest.mark.parametrize("status", [301, 400, 403, 407, 500, 502, 504])
def test_refusals(status: int) -> None:
    data = b"HTTP/1.1 %d Why\r\nVia: me\r\nContent-Length: 3\r\n\r\nno!" % status
    error = refused(data)
    assert (error.status_code, error.body) == (status, b"no!")
    assert ("Via", "me") in error.headers and str(status) in str(error)


def test_a_refusal_without_an_end() -> None:
    head = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    assert refused(head + b"x" * 2 * MAX_BODY).body == b"x" * MAX_BODY
    endless = step()
    assert endless.receive_data(head + b"start") is None and endless.is_refused
    error = endless.receive_eof()
    assert (error.status_code, error.body, error.code) == (407, b"start", 1006)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * MAX_HEAD,
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    assert refused(data).status_code is None


def test_the_end_of_tcp() -> None:
    error = step().receive_eof()
    assert (error.code, error.status_code) == (1006, None)
