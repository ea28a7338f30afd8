"""A request that asks to switch, and any answer to it: an Answer, a refusal, or an error.

What the client's opening handshake and the proxy step make of it is tested with them.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faye_wsgi.errors import HandshakeError
from faye_wsgi.http.exchange import MAX_BODY, MAX_HEAD, MAX_INTERIM, Answer, Exchange

UPGRADE = [("Host", "example.com"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def upgrade(headers: list[tuple[str, str]] | None = None) -> Exchange:
    return Exchange("the server", "GET", "/chat", headers or UPGRADE)


def refused(data: bytes) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        upgrade().receive_data(data)
    assert "the server" in caught.value.reason  # type: ignore[operator]
    return caught.value


# The request


def test_the_request_keeps_order_and_case() -> None:
    headers = [*UPGRADE, ("X-One", "caf\xe9"), ("x-one", "2")]
    assert upgrade(headers).request == (
        b"GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nX-One: caf\xe9\r\nx-one: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    "header", [("X", "a\r\nb"), ("X", "a\0"), ("X Y", "a"), ("", "a"), ("X", "\u2603")]
)
def test_a_header_that_would_break_the_request(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError):
        upgrade([*UPGRADE, header])


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "", "/\0"])
def test_a_target_that_would_break_the_request(target: str) -> None:
    with pytest.raises(ValueError):
        Exchange("the server", "GET", target, UPGRADE)


# Answers


def test_an_answer_that_switches() -> None:
    answer = upgrade().receive_data(SWITCH + b"\x81\x01a")
    headers = (("Upgrade", "websocket"),)
    assert answer == Answer(101, "Switching Protocols", headers, "1.1", b"\x81\x01a")


def test_a_header_of_an_answer() -> None:
    answer = Answer(101, "", (("X-One", "1"), ("x-one", "2"), ("Other", "3")), "1.1")
    assert answer.get("x-one") == "1, 2"
    assert answer.get("none") is None


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_interim_answers_come_first(status: int) -> None:
    interim = b"HTTP/1.1 %d Wait\r\nX: y\r\n\r\n" % status
    answer = upgrade().receive_data(interim * MAX_INTERIM + SWITCH)
    assert answer is not None and answer.status_code == 101
    assert "interim" in str(refused(interim * (MAX_INTERIM + 1) + SWITCH))


def test_a_connect_is_answered_by_any_2xx_and_not_by_101() -> None:
    def tunnel() -> Exchange:
        return Exchange("the proxy", "CONNECT", "example.com:80", [("Host", "example.com:80")])

    answer = tunnel().receive_data(b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nleft")
    assert answer is not None and (answer.http_version, answer.left) == ("1.0", b"left")
    with pytest.raises(HandshakeError):
        tunnel().receive_data(SWITCH)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_refusal_has_its_head_and_the_start_of_its_body(size: int) -> None:
    data = b"HTTP/1.1 403 No\r\nX-Why: it\r\n\r\n" + b"x" * (MAX_BODY + 100)
    step = upgrade()
    with pytest.raises(HandshakeError) as caught:
        for start in range(0, len(data), size):
            assert step.receive_data(data[start : start + size]) is None
    error = caught.value
    assert (error.status_code, error.headers) == (403, (("X-Why", "it"),))
    assert error.body == b"x" * MAX_BODY
    assert str(error) == "handshake failed (403): the server answered 403 No"


def test_is_refused_from_the_refusals_head_on() -> None:
    step = upgrade()
    step.receive_data(b"HTTP/1.1 503 Later\r\nContent-Length: 9\r\n")
    assert not step.is_refused
    step.receive_data(b"\r\n")
    assert step.is_refused
    error = step.receive_eof()
    assert (error.status_code, error.body, error.code) == (503, b"", 1002)


def test_the_end_before_any_answer() -> None:
    error = upgrade().receive_eof()
    assert (error.code, error.status_code) == (1006, None)
    assert "closed the connection" in str(error)


def test_an_endless_head_is_bounded() -> None:
    step = upgrade()
    step.receive_data(b"HTTP/1.1 101 x\r\n")
    taken = 0
    with pytest.raises(HandshakeError):
        while taken <= 2 * MAX_HEAD:
            step.receive_data(b"X: " + b"y" * 1000 + b"\r\n")
            taken += 1005
    assert taken <= MAX_HEAD + 2000


# Hostile input

PIECES = st.sampled_from(
    [
        SWITCH,
        b"HTTP/1.1 ",
        b"HTTP/1.0 200 OK\r\n",
        b"101 x\r\n",
        b"200 OK\r\n",
        b"304 \r\n",
        b"Upgrade: websocket\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n",
        b"\n",
        b"3\r\nabc\r\n",
        b"\0",
    ]
)


@given(st.lists(PIECES | st.binary(max_size=10), max_size=12))
@example([b"HTTP/1.1 ", b"101 x\r\n", b"\r\n", b"\0"])
@example([SWITCH, SWITCH])
def test_any_bytes_in_any_pieces_give_an_answer_or_a_handshake_error(data: list[bytes]) -> None:
    def outcome(pieces: list[bytes]) -> tuple[object, ...]:
        step = upgrade()
        for index, piece in enumerate(pieces):
            try:
                answer = step.receive_data(piece)
            except HandshakeError as error:
                return "error", error.status_code, error.headers, error.body
            if answer is not None:
                left = answer.left + b"".join(pieces[index + 1 :])
                return "answer", *answer[:4], left
        error = step.receive_eof()
        return "end", error.status_code, error.headers, error.body

    whole = b"".join(data)
    # An empty read would be the end of TCP, which has its own method.
    pieces = [piece for piece in data if piece]
    single = [whole[index : index + 1] for index in range(len(whole))]
    assert outcome(pieces) == outcome(single)


# An answer whose body is wanted


def test_a_body_that_is_wanted() -> None:
    exchange = Exchange("the server", "GET", "/", UPGRADE, is_wanted=lambda a: a.status_code == 203)
    answer = exchange.receive_data(b"HTTP/1.1 203 X\r\nContent-Length: 4\r\n\r\na")
    assert answer is not None and answer.status_code == 203
    assert (exchange.read_body(), exchange.body_end) == (b"a", None)
    assert (exchange.read_body(b"bcd and more"), exchange.body_end) == (b"bcd", "")


def test_a_body_that_is_not_wanted_is_a_refusal() -> None:
    exchange = Exchange("the server", "GET", "/", UPGRADE, is_wanted=lambda answer: False)
    with pytest.raises(HandshakeError) as caught:
        exchange.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
    assert caught.value.body == b"a"


def test_a_proxy_that_speaks_tls_is_told_its_own_scheme() -> None:
    with pytest.raises(HandshakeError, match="the proxy speaks TLS here: write https://"):
        exchange = Exchange("the proxy", "CONNECT", "a:80", [("Host", "a:80")], scheme="http")
        exchange.receive_data(b"\x15\x03\x01\x00\x02\x02\x46")


def test_a_tls_alert_that_comes_byte_by_byte() -> None:
    with pytest.raises(HandshakeError, match="the proxy speaks TLS here: write https://"):
        exchange = Exchange("the proxy", "CONNECT", "a:80", [("Host", "a:80")], scheme="http")
        for byte in b"\x15\x03\x01\x00\x02\x02\x46":
            exchange.receive_data(bytes([byte]))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 %b\r\n\r\n", b"NO %b\r\n\r\n"])
def test_an_error_does_not_quote_all_that_a_peer_says(answer: bytes) -> None:
    exchange = Exchange("the server", "GET", "/", UPGRADE)
    with pytest.raises(HandshakeError) as caught:
        exchange.receive_data(answer % (b"x" * 50_000))
        raise exchange.receive_eof()
    assert len(str(caught.value)) < 1000
