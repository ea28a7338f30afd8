"""The client's request for an event stream, and any answer to it, without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faye_wsgi.driver.eventstream import EventStreamDecoder, ServerEvent
from faye_wsgi.driver.eventstream_request import EventStreamRequest
from faye_wsgi.errors import HandshakeError
from faye_wsgi.http.exchange import MAX_BODY, MAX_HEAD
from faye_wsgi.http.url import HTTP_SCHEMES, parse_url

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
STREAM = b"id: 1\ndata: a\n\nevent: e\ndata: b\n\nretry: 250\ndata: c"
EVENTS = [ServerEvent("a", id="1"), ServerEvent("b", "e", "1")]
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def ask(
    url: str = "http://example.com/feed", last_event_id: str = "", **headers: str
) -> EventStreamRequest:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return EventStreamRequest(
        parse_url(url, HTTP_SCHEMES), named, EventStreamDecoder(last_event_id)
    )


def chunks(*bodies: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies)


def refused(answer: bytes) -> HandshakeError:
    request = ask()
    with pytest.raises(HandshakeError) as caught:
        request.receive_data(answer)
        assert request.is_refused
        raise request.receive_eof()
    return caught.value


# The request


def test_the_request() -> None:
    assert ask("http://us:pw@example.com:8000/feed?a=b").request == (
        b"GET /feed?a=b HTTP/1.1\r\nHost: example.com:8000\r\nAccept: text/event-stream\r\n"
        b"Accept-Encoding: identity\r\nCache-Control: no-store\r\n"
        b"Authorization: Basic dXM6cHc=\r\n\r\n"
    )


def test_headers_of_the_user_replace_ours() -> None:
    request = ask(host="virtual.example", ACCEPT="*/*", X_One="1").request
    assert request == (
        b"GET /feed HTTP/1.1\r\nhost: virtual.example\r\n"
        b"Accept-Encoding: identity\r\nCache-Control: no-store\r\nACCEPT: */*\r\nX-One: 1\r\n\r\n"
    )


@pytest.mark.parametrize(
    "last_event_id, sent",
    [
        ("7", b"7"),
        ("café 世界", "café 世界".encode()),
        (" a b\t", b"a b"),
        ("a\tb", b"a\tb"),
        ("\x85\xa0", "\x85\xa0".encode()),
        ("\ud800", b"?"),
        ("", None),
        (" ", None),
        ("a\x0bb", None),
        ("a\x7f", None),
        ("a\0", None),
    ],
)
def test_the_last_event_id(last_event_id: str, sent: bytes | None) -> None:
    """What HTTP forbids, the request goes without: it must be sent all the same."""
    request = ask(last_event_id=last_event_id).request
    assert (b"Last-Event-ID: %b\r\n" % sent in request) if sent else b"Last-Event" not in request


@given(st.text())
def test_any_id_can_be_sent(last_event_id: str) -> None:
    assert ask(last_event_id=last_event_id).request.count(b"\r\n\r\n") == 1


# Streams


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"\r\n" + STREAM + b"\n\n",
        HEAD.replace(b"1.1", b"1.0") + b"\r\n" + STREAM + b"\n\n",
        HEAD.replace(b"stream", b"stream; charset=utf-8") + b"\r\n" + STREAM + b"\n\n",
        HEAD.replace(b"text/event", b" TEXT/Event") + b"\r\n" + STREAM + b"\n\n",
        HEAD + b"Content-Encoding: identity\r\n\r\n" + STREAM + b"\n\n",
        HEAD + b"Content-Length: %d\r\n\r\n" % (len(STREAM) + 2) + STREAM + b"\n\n",
        CHUNKED + chunks(STREAM, b"\n", b"\n", b""),
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + CHUNKED + chunks(STREAM + b"\n\n", b""),
    ],
    ids=["identity", "1.0", "charset", "case", "coding", "length", "chunked", "interim"],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_stream_in_any_split(answer: bytes, size: int) -> None:
    request = ask()
    events = None
    for start in range(0, len(answer), size):
        piece = answer[start : start + size]
        if events is not None:
            events += request.receive_events(piece)
        elif request.receive_data(piece):
            events = request.receive_events()
    if request.end is None:
        assert events is not None and request.receive_events(b"") == []
    assert events == [*EVENTS, ServerEvent("c", id="1")]
    assert (request.end, request.status_code, request.decoder.retry) == ("", 200, 0.25)
    assert request.headers[0][0] == "Content-Type" and request.decoder.last_event_id == "1"


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 1000\r\n\r\n" + STREAM,
        CHUNKED + chunks(STREAM),
        CHUNKED + b"ff\r\n" + STREAM,
    ],
    ids=["length", "chunked", "chunk"],
)
def test_a_stream_that_is_broken_off(answer: bytes) -> None:
    request = ask()
    assert request.receive_data(answer) is request
    assert request.receive_events() == EVENTS and request.end is None
    assert request.receive_events(b"") == []
    assert request.end


def test_what_came_before_a_malformed_chunk_counts() -> None:
    request = ask()
    assert request.receive_data(CHUNKED + chunks(STREAM) + b"nonsense\r\n")
    assert request.receive_events() == EVENTS
    assert request.end


def test_what_a_server_can_make_us_store() -> None:
    """A chunk's extension, and trailers that never end."""
    for endless in (b"5;" + b"x" * 2 * MAX_HEAD, b"0\r\n" + b"X: y\r\n" * MAX_HEAD):
        request = ask()
        assert request.receive_data(CHUNKED)
        request.receive_events()
        request.receive_events(endless)
        assert request.end


# Refusals


@pytest.mark.parametrize(
    "head, says",
    [
        (b"Content-Type: text/html", "text/html"),
        (b"Content-Type: text/event-streams", "text/event-streams"),
        (b"X: y", "no Content-Type"),
        (b"Content-Type: text/event-stream\r\nContent-Encoding: gzip", "gzip"),
    ],
)
def test_what_is_no_event_stream(head: bytes, says: str) -> None:
    error = refused(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + b"x" * 100_000)
    assert (error.status_code, len(error.body)) == (200, MAX_BODY)
    assert "no event stream" in str(error) and says in str(error)


@pytest.mark.parametrize("status", [201, 204, 206, 301, 404, 503])
def test_other_answers(status: int) -> None:
    """An event stream is one with 200 alone."""
    error = refused(HEAD.replace(b"200", b"%d" % status) + b"\r\n")
    assert (error.status_code, error.code) == (status, 1002)
    assert "no event stream" not in str(error)


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * MAX_HEAD]
)
def test_no_answer(answer: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        ask().receive_data(answer)
    assert caught.value.status_code is None


def test_a_server_that_hangs_up() -> None:
    request = ask()
    assert request.receive_data(b"HTTP/1.1 200") is None and not request.is_refused
    assert request.receive_eof().code == 1006


@pytest.mark.parametrize(
    "answer",
    [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 400 Bad Request\r\n\r\n<p>The plain HTTP request was sent to HTTPS port</p>",
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    ],
    ids=["alert", "nginx", "go"],
)
def test_a_server_that_speaks_tls(answer: bytes) -> None:
    request = ask()
    with pytest.raises(HandshakeError, match="the server speaks TLS here: write https://"):
        request.receive_data(answer)
        raise request.receive_eof()


def test_another_400_is_one() -> None:
    assert "TLS" not in str(refused(b"HTTP/1.1 400 Bad Request\r\n\r\nno such feed"))
