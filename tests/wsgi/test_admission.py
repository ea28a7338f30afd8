"""Who may connect: pages of the right origins, while the process has room."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from faye_wsgi import Client, EventSource, HandshakeError, WebSocket
from faye_wsgi.flask import eventsource, websocket
from faye_wsgi.transport import served
from faye_wsgi.wsgi import admission
from faye_wsgi.wsgi.admission import check_room, check_share, is_from_allowed_page

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


# Shares


def named(environ: dict[str, Any]) -> str | None:
    return environ.get("HTTP_X_USER")


def serve_limited(environ: dict[str, Any], start_response: Any) -> Any:
    """An application with both limits, for WebSockets and event streams."""
    limits: Any = {"max_per_address": 3, "max_per_user": (2, named)}
    connection: Any
    if environ["PATH_INFO"] == "/stream":
        connection = EventSource(environ, **limits)
    elif WebSocket.is_websocket(environ):
        connection = WebSocket(environ, **limits)
    else:
        start_response("200 OK", [])
        return [b""]
    connection.on("close", lambda event: None)  # the connection outlives its view
    return connection.response(environ, start_response)


@pytest.fixture(params=["gunicorn-gevent", "gunicorn-gthread"])
def limited(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(request.param, "tests.wsgi.test_admission:serve_limited") as running:
        yield running
        assert "Traceback" not in running.log()


def is_admitted(server: Server, user: str) -> bool:
    with Peer(server) as peer:
        head = peer.request("/stream", {"X-User": user})
        if head.status == 429:
            assert head.get("Retry-After") == str(admission.RETRY_AFTER)
        return head.status == 200


def test_a_share_of_real_connections(limited: Server) -> None:
    """Of both kinds; and what has ended counts no more."""
    with Peer(limited) as first, Peer(limited) as second, Peer(limited) as third:
        first.open("/", {"X-User": "ada"})
        assert second.request("/stream", {"X-User": "ada"}).status == 200
        with Peer(limited) as refused:
            assert refused.request("/stream", {"X-User": "ada"}).status == 429
            assert refused.read_body().startswith(b"too many connections of one user")
        third.open("/")  # of no user
        with Peer(limited) as refused:
            assert refused.request("/stream", {"X-User": "eve"}).status == 429
            assert refused.read_body().startswith(b"too many connections of one address")
        first.finish()
        wait_until(lambda: is_admitted(limited, "ada"), what="room for one more")


def test_what_has_no_name_has_no_limit() -> None:
    environ = make_environ(object(), REMOTE_ADDR="")
    assert check_share(environ, 1, (1, lambda request: None)) == []
    environ["REMOTE_ADDR"] = "192.0.2.1"
    assert check_share(environ, 1, (1, lambda request: 7)) == [
        ("user", "7"),
        ("address", "192.0.2.1"),
    ]
    assert check_share(environ, None, None) == []


def test_an_owner_without_connections_is_forgotten() -> None:
    one, two = Anything(), Anything()
    served.enter(one, [("user", "x")])
    served.enter(two, [("user", "x"), ("address", "y")])
    assert served.count(("user", "x")) == 2 and served.count(("address", "y")) == 1
    served.leave(one)
    served.leave(one)
    assert served.count(("user", "x")) == 1
    del two  # collected without an end
    gc.collect()
    assert served.count(("user", "x")) == 0
    assert ("user", "x") not in served._groups and ("address", "y") not in served._groups


def test_django_and_flask_requests_go_to_the_function() -> None:
    """As the view has it; a limit of another kind does not ask it."""

    class Request:
        environ = {"REMOTE_ADDR": "192.0.2.1"}

    seen: list[Any] = []
    request = Request()
    check_share(request, None, (1, seen.append))
    check_share(request, 1, None)
    assert seen == [request]


@pytest.mark.parametrize("kind", [WebSocket, EventSource])
@pytest.mark.parametrize(
    "wrong",
    [
        {"max_per_address": 0},
        {"max_per_address": "5"},
        {"max_per_user": 5},
        {"max_per_user": (0, named)},
        {"max_per_user": (5, "name")},
    ],
)
def test_a_wrong_share(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="max_per_"):
        kind({}, **wrong)


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
