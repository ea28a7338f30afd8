"""What an environ says: which request it is, its URL, its host, its headers."""

from __future__ import annotations

import sys
import uuid
from typing import Any

import django.http
import flask
import pytest
import webob
import werkzeug

from faye_wsgi import WebSocket
from faye_wsgi.wsgi import handover
from faye_wsgi.wsgi.environ import (
    environ_of,
    host_of,
    is_eventsource,
    is_secure,
    is_websocket,
    read_request,
    text_of,
    url_of,
)

from ..test_websocket import make_environ

SCHEME = "ws"
TRUSTED = {
    "HTTP_X_FORWARDED_HOST": "example.org",
    "HTTP_X_FORWARDED_PROTO": "https",
}


def environ(**changes: Any) -> dict[str, Any]:
    return make_environ(None, **changes)


def django_request(source: dict[str, Any]) -> django.http.HttpRequest:
    # Made without its constructor, which wants settings.
    request = django.http.HttpRequest.__new__(django.http.HttpRequest)
    request.META = source
    return request


REQUESTS = {
    "environ": lambda source: source,
    "WebOb": webob.Request,
    "Werkzeug": werkzeug.Request,
    "Flask": flask.Request,
    "Django": django_request,
}


# The environ of whatever came


@pytest.mark.parametrize("name", REQUESTS)
def test_environ_of(name: str) -> None:
    source = environ()
    request = REQUESTS[name](source)
    assert environ_of(request) is source
    assert is_websocket(request)
    assert not is_eventsource(request)


def test_the_current_request_of_flask() -> None:
    """A proxy object, which stands for the request."""
    app = flask.Flask(__name__)
    source = environ()
    with app.request_context(source):
        assert environ_of(flask.request) is source
        assert WebSocket.is_websocket(flask.request)


@pytest.mark.parametrize("request_", [None, 7, "GET / HTTP/1.1", object(), webob.Response()])
def test_no_environ(request_: Any) -> None:
    with pytest.raises(TypeError, match=type(request_).__name__):
        environ_of(request_)


# Which request it is


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, True),
        ({"HTTP_CONNECTION": "Upgrade"}, True),
        ({"HTTP_CONNECTION": "keep-alive,UPGRADE"}, True),
        ({"HTTP_CONNECTION": "upgrade \t, keep-alive"}, True),
        ({"HTTP_CONNECTION": "keep-alive"}, False),
        ({"HTTP_CONNECTION": "not-upgrade"}, False),
        ({"HTTP_CONNECTION": "upgrades"}, False),
        ({"HTTP_CONNECTION": None}, False),
        ({"HTTP_UPGRADE": "WebSocket"}, True),
        ({"HTTP_UPGRADE": "h2c, websocket"}, True),
        ({"HTTP_UPGRADE": "websocket/13"}, False),
        ({"HTTP_UPGRADE": "h2c"}, False),
        ({"HTTP_UPGRADE": ""}, False),
        ({"HTTP_UPGRADE": None}, False),
        ({"REQUEST_METHOD": "POST"}, False),
        ({"REQUEST_METHOD": "get"}, False),
        ({"REQUEST_METHOD": "CONNECT"}, False),
        ({"SERVER_PROTOCOL": "HTTP/2.0"}, False),
        ({"SERVER_PROTOCOL": "HTTP/2"}, False),
        ({"HTTP_VERSION": "HTTP/2.0"}, True),  # a header of that name, which means nothing
    ],
)
def test_is_websocket(changes: dict[str, Any], expected: bool) -> None:
    assert WebSocket.is_websocket(environ(**changes)) is expected


@pytest.mark.parametrize(
    "accept, expected",
    [
        ("text/event-stream", True),
        ("text/event-stream;q=0.9", True),
        ("text/html, text/event-stream ; charset=utf-8", True),
        ("Text/Event-Stream", True),
        ("text/event-streams", False),
        ("text/*", False),
        ("*/*", False),
        ("", False),
        (None, False),
    ],
)
def test_is_eventsource(accept: str | None, expected: bool) -> None:
    assert is_eventsource(environ(HTTP_ACCEPT=accept)) is expected
    assert not is_eventsource(environ(HTTP_ACCEPT=accept, REQUEST_METHOD="POST"))


# Where it came from


@pytest.mark.parametrize(
    "changes, trust, expected",
    [
        ({}, False, "example.com"),
        ({"HTTP_HOST": "example.com:8000"}, False, "example.com:8000"),
        ({"HTTP_HOST": "[::1]:8000"}, False, "[::1]:8000"),
        ({"HTTP_HOST": None}, False, "127.0.0.1:8000"),
        (TRUSTED, False, "example.com"),
        (TRUSTED, True, "example.org"),
        ({"HTTP_X_FORWARDED_HOST": "first.org, second.org"}, True, "first.org"),
        ({"HTTP_X_FORWARDED_HOST": ""}, True, "example.com"),
        ({"HTTP_X_FORWARDED_HOST": " , "}, True, "example.com"),
    ],
)
def test_host_of(changes: dict[str, Any], trust: bool, expected: str) -> None:
    assert host_of(environ(**changes), trust) == expected


@pytest.mark.parametrize(
    "changes, trust, expected",
    [
        ({}, False, False),
        ({"wsgi.url_scheme": "https"}, False, True),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, False, False),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, True, True),
        ({"HTTP_X_FORWARDED_PROTO": "wss"}, True, True),
        ({"HTTP_X_FORWARDED_PROTO": "HTTPS, http"}, True, True),
        ({"HTTP_X_FORWARDED_PROTO": "http, https"}, True, False),
        ({"HTTP_X_FORWARDED_PROTO": "http"}, True, False),
        ({"HTTP_X_FORWARDED_SCHEME": "https"}, True, True),
        ({"HTTP_X_FORWARDED_SCHEME": "https"}, False, False),
        ({"HTTP_X_FORWARDED_SSL": "on"}, True, True),
        ({"HTTP_X_FORWARDED_SSL": "on"}, False, False),
        ({"HTTP_X_FORWARDED_SSL": "off"}, True, False),
    ],
)
def test_is_secure(changes: dict[str, Any], trust: bool, expected: bool) -> None:
    assert is_secure(environ(**changes), trust) is expected


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, "ws://example.com/chat?room=1"),
        ({"QUERY_STRING": ""}, "ws://example.com/chat"),
        ({"QUERY_STRING": None}, "ws://example.com/chat"),
        ({"PATH_INFO": "", "QUERY_STRING": ""}, "ws://example.com/"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/chat"}, "ws://example.com/app/chat?room=1"),
        ({"wsgi.url_scheme": "https"}, "wss://example.com/chat?room=1"),
        ({"QUERY_STRING": "q=%C3%BC&x=a+b"}, "ws://example.com/chat?q=%C3%BC&x=a+b"),
        # PEP 3333: the path is decoded, its bytes shown as ISO 8859-1.
        (
            {"PATH_INFO": "/grüße a".encode().decode("latin-1"), "QUERY_STRING": ""},
            "ws://example.com/gr%C3%BC%C3%9Fe%20a",
        ),
        ({"PATH_INFO": "/a?b#c", "QUERY_STRING": ""}, "ws://example.com/a%3Fb%23c"),
        (
            {"PATH_INFO": "/a:b/~c@d;e=f,g+h", "QUERY_STRING": ""},
            "ws://example.com/a:b/~c@d;e=f,g+h",
        ),
    ],
)
def test_url_of(changes: dict[str, Any], expected: str) -> None:
    assert url_of(environ(**changes), SCHEME) == expected


def test_url_behind_a_proxy() -> None:
    assert url_of(environ(**TRUSTED), SCHEME) == "ws://example.com/chat?room=1"
    assert url_of(environ(**TRUSTED), SCHEME, True) == "wss://example.org/chat?room=1"


# What the handshake reads


def test_read_request() -> None:
    request = read_request(environ(HTTP_X_TWO_WORDS="a, b"))
    assert (request.method, request.http_version, request.has_body) == ("GET", "HTTP/1.1", False)
    assert request.headers["x-two-words"] == "a, b"
    assert request.headers["sec-websocket-version"] == "13"
    assert request.has_token("connection", "upgrade")
    assert "gunicorn.socket" not in request.headers


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"CONTENT_LENGTH": "0"}, False),
        ({"CONTENT_LENGTH": ""}, False),
        ({"CONTENT_LENGTH": "7"}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
    ],
)
def test_a_body(changes: dict[str, Any], expected: bool) -> None:
    assert read_request(environ(**changes)).has_body is expected


def test_an_empty_environ() -> None:
    """Nothing is taken for granted."""
    assert not is_websocket({}) and not is_eventsource({})
    assert read_request({}).method == ""
    assert url_of({"SERVER_NAME": "a", "SERVER_PORT": "1"}, SCHEME) == "ws://a:1/"


# What of it is kept

MANY = {f"HTTP_X_{number}": "x" * 8000 for number in range(90)}
MAX_KEPT = 16384


def stored(source: dict[str, Any]) -> int:
    return sum(sys.getsizeof(key) + sys.getsizeof(value) for key, value in source.items())


def test_all_text_of_an_ordinary_request_is_kept() -> None:
    source = environ(HTTP_X_OWN="mine", HTTP_COOKIE="c" * 4000, HTTP_EMPTY="", app_user="jo")
    texts = {key: value for key, value in source.items() if isinstance(value, str)}
    assert len(texts) < len(source)
    assert text_of(source) == texts


def test_no_more_text_is_kept_than_16_KiB() -> None:
    handshake = {"HTTP_COOKIE": "c" * 4000, "HTTP_ORIGIN": "http://example.com"}
    source = {**MANY, **environ(**handshake, app_user="jo", HTTP_X_SMALL="s")}
    kept = text_of(source)
    assert stored(kept) <= MAX_KEPT
    usual = text_of(environ(**handshake, app_user="jo", HTTP_X_SMALL="s"))
    assert usual.items() <= kept.items()
    assert all(value == source[key] for key, value in kept.items()), "none is cut off"
    assert url_of(kept, SCHEME) == url_of(source, SCHEME)


def test_the_request_comes_before_what_is_no_header_and_that_before_other_headers() -> None:
    half = "x" * (MAX_KEPT // 2)
    source = {"HTTP_X_A": half, "app_text": half, "PATH_INFO": half}
    assert list(text_of(source)) == ["PATH_INFO"], "two halves, and their names, are too much"
    source["app_text"] = source["HTTP_X_A"] = half[:6000]
    assert list(text_of(source)) == ["PATH_INFO", "app_text"]


@pytest.mark.parametrize("key, value", [("HTTP_X_{}", "a value"), ("HTTP_X", "v{}")])
def test_nothing_that_a_client_chooses_is_interned(key: str, value: str) -> None:
    """CPython 3.12.0 to 3.12.4 would keep it for ever."""
    mine = uuid.uuid4().hex[:12]
    ((kept_key, kept_value),) = text_of({key.format(mine): value.format(mine)}).items()
    for kept, pattern in ((kept_key, key), (kept_value, value)):
        if "{}" in pattern:
            copy = pattern.format(mine)
            assert sys.intern(copy) is copy is not kept


def test_connections_share_the_names_and_values_that_all_have() -> None:
    copies = [{"".join(["HTTP_", "HOST"]): "".join(["web", "socket"])} for _ in range(2)]
    ((key, value),), ((other_key, other_value),) = (text_of(copy).items() for copy in copies)
    assert key is other_key and value is other_value


def test_a_threaded_servers_environ_is_bounded_too() -> None:
    """There it is a copy from the start: the server's own tells by its end of the request's."""
    source = environ(**MANY)
    assert handover.own_environ(source) is source
    source[handover.TOKEN_KEY] = object()
    own = handover.own_environ(source)
    assert stored({key: value for key, value in own.items() if type(value) is str}) <= MAX_KEPT
    assert own["HTTP_HOST"] == "example.com" and own["wsgi.multithread"] is True
    assert not {handover.TOKEN_KEY, "wsgi.input"} & own.keys()
