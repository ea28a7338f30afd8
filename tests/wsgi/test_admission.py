"""Who may connect: pages of the right origins, while the process has room."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from faye_wsgi import Client, EventSource, HandshakeError, WebSocket
from faye_wsgi.flask import eventsource, websocket
from faye_wsgi.transport import served
from faye_wsgi.wsgi import admission
from faye_wsgi.wsgi.admission import check_room, is_from_allowed_page

from ..support.peer import Peer
from ..support.servers import Server
from ..support.servers import serve as run_server
from ..support.waiting import wait_until
from ..test_websocket import make_environ

EVENTS = {"Accept": "text/event-stream"}


class Anything:
    """Something that is counted."""


@pytest.fixture
def ten() -> Iterator[list[Anything]]:
    """Ten more connections than there are."""
    made = [Anything() for _ in range(10)]
    for one in made:
        served.enter(one)
    yield made
    for one in made:
        served.leave(one)


# max_connections


def test_a_full_process_refuses(ten: list[Anything]) -> None:
    check_room(None)
    check_room(served.count() + 1)
    with pytest.raises(HandshakeError) as caught:
        check_room(served.count())
    assert caught.value.status_code == 503
    assert caught.value.headers["Retry-After"] == str(admission.RETRY_AFTER)


def test_a_full_process_says_so_once_a_minute(
    ten: list[Anything], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(admission, "monotonic", lambda: now)
    for _ in range(100):
        with pytest.raises(HandshakeError):
            check_room(1)
    assert caplog.text.count("this process is full") == 1
    now += admission.TELL_AGAIN
    with pytest.raises(HandshakeError):
        check_room(1)
    assert caplog.text.count("this process is full") == 2


@pytest.mark.parametrize("kind", [WebSocket, EventSource])
@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "10"])
def test_a_wrong_limit(kind: Any, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_connections"):
        kind({}, max_connections=wrong)


@pytest.mark.parametrize("decorator", [websocket, eventsource])
def test_the_decorators_check_it_at_once(decorator: Any) -> None:
    with pytest.raises(ValueError, match="max_connections"):
        decorator(max_connections=0)(lambda connection: None)


def test_a_refused_stream_is_closed_from_the_start(ten: list[Anything]) -> None:
    es = EventSource(make_environ(object()), max_connections=1)
    assert es.closed and es.response.status_code == 503
    with es:
        es.send("nothing")  # its end, which leaves the block quietly


@pytest.fixture(params=["gunicorn-gevent", "gunicorn-gthread", "wsgiref"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(request.param, "wsgi") as running:
        yield running


def serves_none(server: Server) -> bool:
    return b'"served": 0' in server.get("/stats")[1]


def assert_refused(server: Server, path: str, headers: Any = None) -> None:
    with Peer(server) as peer:
        head = peer.request(path, headers)
        assert head.status == 503, head
        assert head.get("Retry-After") == str(admission.RETRY_AFTER)
        assert peer.read_body().startswith(b"too many connections")


def test_a_real_server_that_is_full(server: Server) -> None:
    """Connections of views that wait, and of views that have returned, of both kinds."""
    with Peer(server) as waiting, Peer(server) as returned, Peer(server) as stream:
        waiting.open("/echo?max_connections=3")
        returned.open("/events?max_connections=3")
        assert stream.request("/es/listening", EVENTS).status == 200
        for _ in range(2):
            assert_refused(server, "/echo?max_connections=3")
            assert_refused(server, "/es/listening?max_connections=3", EVENTS)
        with Peer(server) as unlimited:
            unlimited.open("/events").finish()
        returned.send_text("still there")
        assert returned.read_text() == "still there"
        waiting.finish()
    wait_until(lambda: serves_none(server), what="the end of all")
    with Peer(server) as peer:
        peer.open("/events?max_connections=1").finish()
    with Peer(server) as peer:
        wait_until(lambda: serves_none(server), what="the end of the last")
        assert peer.request("/es/listening?max_connections=1", EVENTS).status == 200
    assert "Traceback" not in server.log()


def test_a_client_sees_why(server: Server) -> None:
    with Peer(server) as peer:
        peer.open("/events")
        url = server.url("/echo?max_connections=1", "ws")
        with pytest.raises(HandshakeError) as caught, Client(url) as ws:
            ws.wait_open(10)
        assert caught.value.status_code == 503
        assert caught.value.headers["Retry-After"] == str(admission.RETRY_AFTER)


# Origins


def from_page(origin: str, **changes: Any) -> dict[str, Any]:
    return make_environ(object(), HTTP_ORIGIN=origin, **changes)


@pytest.mark.parametrize(
    "changes, trust, schemes",
    [
        ({}, False, ["http", "https"]),  # TLS may end at a proxy
        ({}, True, ["http", "https"]),
        ({"wsgi.url_scheme": "https"}, False, ["https"]),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, True, ["https"]),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, False, ["http", "https"]),
        ({"HTTP_X_FORWARDED_SSL": "on"}, True, ["https"]),
    ],
)
def test_a_page_without_tls_where_the_scheme_is_known(
    changes: dict[str, Any], trust: bool, schemes: list[str]
) -> None:
    allowed = [
        scheme
        for scheme in ("http", "https")
        if is_from_allowed_page(from_page(f"{scheme}://example.com", **changes), "same", trust)
    ]
    assert allowed == schemes


def test_each_origin_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "faye_wsgi"):
        for origin in ["http://a.example", "http://b.example"] * 50:
            assert not is_from_allowed_page(from_page(origin), "same", False)
    loud = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert len(loud) == 2 and "http://a.example" in loud[0] and "http://b.example" in loud[1]


def test_a_client_that_makes_up_origins_fills_neither_log_nor_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(1000):
        origin = f"http://{number}.example/{'x' * 10_000}"
        assert not is_from_allowed_page(from_page(origin), "same", False)
    assert len(caplog.records) <= admission.MAX_TOLD + 1
    assert max(len(record.getMessage()) for record in caplog.records) < 1000
    assert len(admission._told) <= admission.MAX_TOLD + 1
    assert sum(map(len, admission._told)) < 100_000
