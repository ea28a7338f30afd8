"""Each adapter finds the connection in a real environ of its server; the rest is refused.

These tests fail loudly when a server moves what is looked for.
"""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Callable

import flask
import pytest
import webob
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import LimitedStream
from django.test import RequestFactory
from gevent import monkey

from faye_wsgi import EventSource, HijackError, WebSocket, eventsource
from faye_wsgi.wsgi import handover, servers
from faye_wsgi.wsgi.servers import Place, check_http_version, find_place

from ..support.apps import django_app  # which has Django's settings
from ..support.frames import KEY
from ..support.peer import Peer
from ..support.servers import Server
from ..support.waiting import wait_until
from ..test_websocket import Exchange, Untouchable, exchange, make_environ

__all__ = ["django_app", "exchange"]

APP = "tests.wsgi.test_servers:application"
AHEAD = b"first bytes"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Tells what is found in this server's environ, and takes nothing."""
    if "HTTP_UPGRADE" not in environ:
        start_response("200 OK", [("Content-Length", "3")])
        return [b"ok\n"]
    try:
        report = describe(find_place(environ))
    except HijackError as error:
        report = {"refused": str(error)}
    body = json.dumps(report).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def describe(place: Place) -> dict[str, Any]:
    kinds = [f"{kind.__module__}.{kind.__name__}" for kind in type(place.socket).__mro__]
    return {
        "server": place.server,
        "kinds": kinds,
        "peer": place.socket.getpeername()[1],
        "ahead": read_ahead(place).decode(),
        "again": read_ahead(place).decode(),
    }


def read_ahead(place: Place) -> bytes:
    if place.take_buffered is not None:
        return place.take_buffered()
    assert place.reader is not None
    timeout = place.socket.gettimeout()
    place.socket.settimeout(0)
    try:
        return bytes(place.reader.read(len(place.reader.peek(1))))
    except OSError:  # nothing is there
        return b""
    finally:
        place.socket.settimeout(timeout)


NAMES = {
    "gunicorn-gevent": ("gunicorn", "gevent._socket3.socket"),
    "gunicorn-gevent_pywsgi": ("gunicorn gevent_pywsgi", "gevent._socket3.socket"),
    "gunicorn-gthread": ("gunicorn", "socket.socket"),
    "pywsgi": ("gevent.pywsgi", "gevent._socket3.socket"),
    "pywsgi-unpatched": ("gevent.pywsgi", "gevent._socket3.socket"),
    "flask": ("Werkzeug's development server", "socket.socket"),
    "wsgiref": ("wsgiref", "socket.socket"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_real_environ(serve: Callable[..., Server], peer: Callable[..., Peer], kind: str) -> None:
    """Its own socket, and the bytes that the server has read too early, once."""
    server = serve(kind, APP)
    for first in (AHEAD, b""):
        client = peer(server)
        assert client.request("/", first=first).status == 200
        report = json.loads(client.read_body())
        name, socket_kind = NAMES[kind]
        assert report["server"] == name
        assert socket_kind in report["kinds"]
        assert report["peer"] == client.sock.getsockname()[1]
        assert (report["ahead"], report["again"]) == (first.decode(), "")
        client.close()


def test_the_real_sync_worker(serve: Callable[..., Server], peer: Callable[..., Peer]) -> None:
    client = peer(serve("gunicorn-sync", APP))
    client.request("/")
    said = json.loads(client.read_body())["refused"]
    assert "sync" in said and "-k gevent" in said


# Environs made by hand: other versions, and what is around the input


class Unreader27:
    """As in gunicorn 27."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take_buffered(self) -> bytearray:
        data, self.data = self.data, b""
        return bytearray(data)


@pytest.mark.parametrize("unreader", [Unreader27(AHEAD), SimpleNamespace(buf=io.BytesIO(AHEAD))])
def test_gunicorns_read_ahead(unreader: Any) -> None:
    environ = make_environ(object())
    environ["wsgi.input"] = SimpleNamespace(reader=SimpleNamespace(unreader=unreader))
    place = servers._locate_gunicorn(environ)
    assert place is not None and place.take_buffered is not None and not place.refusal
    assert [place.take_buffered(), place.take_buffered()] == [AHEAD, b""]


def test_what_follows_in_gunicorns_buffer_is_kept() -> None:
    """The buffer that has been emptied must be ready for what is written to it next."""
    buffer = io.BytesIO(AHEAD)
    buffer.seek(0, io.SEEK_END)
    unreader = SimpleNamespace(buf=buffer)
    environ = make_environ(object())
    environ["wsgi.input"] = SimpleNamespace(reader=SimpleNamespace(unreader=unreader))
    place = servers._locate_gunicorn(environ)
    assert place is not None and place.take_buffered is not None
    assert place.take_buffered() == AHEAD
    buffer.write(b"next")
    assert buffer.getvalue() == b"next"


def test_gunicorns_sync_worker_is_refused_before_anything_is_touched() -> None:
    environ = make_environ(Untouchable(), **{"wsgi.multithread": False})
    with pytest.raises(HijackError, match="sync worker.*-k gevent"):
        WebSocket(environ)


def test_gunicorn_gevent_pywsgi() -> None:
    sock, reader = object(), object()
    place = servers._locate_gunicorn({"gunicorn.sock": sock, "wsgi.input": reader})
    assert place is not None
    assert (place.socket, place.reader, place.take_buffered) == (sock, reader, None)


@pytest.mark.parametrize("wrap", [lambda r: r, lambda r: SimpleNamespace(rfile=r)])
def test_pywsgis_input_is_the_file_or_around_it(wrap: Callable[[Any], Any]) -> None:
    sock = object()
    reader = SimpleNamespace(raw=SimpleNamespace(_sock=sock))
    place = servers._locate_pywsgi({"SERVER_SOFTWARE": "gevent/26.9", "wsgi.input": wrap(reader)})
    assert place is not None
    assert (place.server, place.socket, place.reader) == ("gevent.pywsgi", sock, reader)


def test_werkzeug() -> None:
    sock, reader = object(), object()
    place = servers._locate_werkzeug({"werkzeug.socket": sock, "wsgi.input": reader})
    assert place is not None and (place.socket, place.reader) == (sock, reader)


def test_djangos_limit_around_the_input() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as reader:
        environ = {
            "SERVER_SOFTWARE": "WSGIServer/0.2",
            "wsgi.input": LimitedStream(reader, 0),
        }
        place = servers._locate_wsgiref(environ)
        assert place is not None
        assert (place.socket, place.reader) == (ours, reader)


@pytest.mark.parametrize("locate", servers._SERVERS)
@pytest.mark.parametrize("software", ["", None, "Apache/2.4", "waitress", "gevental/1"])
def test_not_mine(locate: Any, software: str | None) -> None:
    assert locate({"SERVER_SOFTWARE": software, "wsgi.input": io.BytesIO()}) is None


# What is refused, with the server's name and the cure


@pytest.mark.parametrize("software", ["waitress", "Apache/2.4 mod_wsgi/5.0", "CherryPy/18"])
def test_an_unknown_server(software: str) -> None:
    environ = make_environ(None, SERVER_SOFTWARE=software)
    with pytest.raises(HijackError) as raised:
        WebSocket(environ)
    assert software in str(raised.value)
    assert "gunicorn -k gevent" in str(raised.value)


def test_a_server_without_a_name() -> None:
    with pytest.raises(HijackError, match="this WSGI server.*gunicorn -k gevent"):
        WebSocket(make_environ(None, SERVER_SOFTWARE=None))


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"uwsgi.version": b"2.0"}, "uWSGI"),
        ({"mod_wsgi.version": (5, 0)}, "mod_wsgi"),
        ({"wsgi.input": type("Body", (), {"__module__": "a2wsgi.wsgi"})()}, "a2wsgi"),
        (
            {"wsgi.input": io.BytesIO(), "wsgi.multiprocess": True},
            r"this ASGI server \(hypercorn, uvicorn or another",
        ),
    ],
)
def test_servers_that_give_no_name_are_recognised(changes: dict[str, Any], name: str) -> None:
    environ = make_environ(None, SERVER_SOFTWARE=None, **changes)
    with pytest.raises(HijackError, match=f"the socket of {name}.*gunicorn -k gevent"):
        WebSocket(environ)


# Mistakes that explain themselves

ASKS = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def _key(name: str) -> str:
    return "HTTP_" + name.replace("-", "_").upper()


def test_a_test_client_of_flask_names_the_testing_kit() -> None:
    app = flask.Flask(__name__)
    app.testing = True
    app.add_url_rule("/chat", "chat", lambda: WebSocket(flask.request), websocket=True)
    with pytest.raises(HijackError, match=r"faye_wsgi.testing.connect\(client, path\)"):
        app.test_client().get("/chat", base_url="ws://localhost", headers=ASKS)


def test_a_test_client_of_django_and_webob_name_the_testing_kit() -> None:
    for environ in (
        RequestFactory().get("/", **{_key(name): ASKS[name] for name in ASKS}).META,
        webob.Request.blank("/", headers=ASKS, environ={"SERVER_PROTOCOL": "HTTP/1.1"}).environ,
    ):
        with pytest.raises(HijackError, match=r"faye_wsgi.testing.connect\(client, path\)"):
            WebSocket(environ)


class OfGeventWebsocket:
    """As ``geventwebsocket.websocket.WebSocket``, by its module."""

    __module__ = "geventwebsocket.websocket"


def test_a_handler_of_gevent_websocket_is_noticed() -> None:
    environ = make_environ(Untouchable(), **{"wsgi.websocket": OfGeventWebsocket()})
    with pytest.raises(HijackError, match="gevent-websocket .* leave out its handler_class"):
        WebSocket(environ)
    find_place(make_environ(Untouchable(), **{"wsgi.websocket": object()}))


def asgi_request(**headers: str) -> ASGIRequest:
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": pairs}
    return ASGIRequest(scope, io.BytesIO())


def test_django_under_an_asgi_server(caplog: pytest.LogCaptureFixture) -> None:
    handover._warn_asgi.cache_clear()
    with pytest.raises(HijackError, match='its asgi.py.*run its wsgi.py with "gunicorn -k gevent"'):
        WebSocket(asgi_request(**ASKS))
    ws = WebSocket(asgi_request())
    assert ws.response.status_code == 426 and b"run its wsgi.py" in ws.response.content
    assert "run its wsgi.py" in caplog.text


def test_an_event_stream_under_an_asgi_server_blames_no_http_2(
    caplog: pytest.LogCaptureFixture,
) -> None:
    eventsource._warn_once.cache_clear()
    es = EventSource(asgi_request())
    es.close()
    assert "its asgi.py" in caplog.text and "HTTP/2" not in caplog.text


def test_a_process_on_gevent_that_is_not_patched_is_warned_once(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    handover._warn_unpatched.cache_clear()
    for _ in range(2):
        exchange().accept().close()
    assert caplog.text.count("without monkey patching") == 1
    assert "monkey.patch_all()" in caplog.text


def test_a_patched_process_is_not_warned(
    exchange: Callable[..., Exchange],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handover._warn_unpatched.cache_clear()
    monkeypatch.setattr(monkey, "is_module_patched", lambda name: True)
    monkeypatch.setattr(handover, "_IS_PATCHED_EARLY", True)
    exchange().accept().close()
    assert caplog.text == ""
    handover._warn_unpatched()


def test_a_process_that_is_patched_late_is_warned_once(
    exchange: Callable[..., Exchange],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handover._warn_late.cache_clear()
    monkeypatch.setattr(monkey, "is_module_patched", lambda name: True)
    for _ in range(2):
        exchange().accept().close()
    assert caplog.text.count("after faye_wsgi had been imported") == 1


def test_a_plain_get_is_answered_on_any_server() -> None:
    """Nothing needs to be taken for a 426."""
    ws = WebSocket(make_environ(None, SERVER_SOFTWARE="waitress", HTTP_UPGRADE=None))
    assert ws.response.status_code == 426


@pytest.mark.parametrize("protocol", ["HTTP/2.0", "HTTP/2", "HTTP/3", ""])
@pytest.mark.parametrize("method", ["GET", "CONNECT"])
def test_http_2(protocol: str, method: str) -> None:
    environ = make_environ(Untouchable(), SERVER_PROTOCOL=protocol, REQUEST_METHOD=method)
    for call in (check_http_version, find_place, WebSocket):
        with pytest.raises(HijackError) as raised:
            call(environ)
        assert "gunicorn/0" in str(raised.value)
        assert "HTTP/1.1" in str(raised.value)


def test_a_header_cannot_make_it_http_2() -> None:
    check_http_version(make_environ(None, HTTP_VERSION="HTTP/2.0"))


def test_a_socket_of_another_kind() -> None:
    with pytest.raises(HijackError, match="gunicorn"):
        WebSocket(make_environ(object()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gunicorn.socket": None, "gunicorn.sock": Untouchable()},
        {"gunicorn.socket": None, "werkzeug.socket": Untouchable()},
        {"gunicorn.socket": None, "SERVER_SOFTWARE": "gevent/26.9"},
        {"gunicorn.socket": None, "SERVER_SOFTWARE": "WSGIServer/0.2"},
    ],
)
@pytest.mark.parametrize("body", [io.BytesIO(), object()])
def test_an_input_that_is_not_the_servers(changes: dict[str, Any], body: Any) -> None:
    """Found out while the server still has its socket, and by name."""
    environ = make_environ(Untouchable(), **changes)
    environ["wsgi.input"] = body
    with pytest.raises(HijackError, match=f"{type(body).__name__}.*wsgi.input"):
        WebSocket(environ)
    del environ["wsgi.input"]
    with pytest.raises(HijackError, match="wsgi.input"):
        WebSocket(environ)


def test_the_operator_finds_it_in_the_log(
    serve: Callable[..., Server], peer: Callable[..., Peer]
) -> None:
    server = serve("gunicorn-sync")
    assert peer(server).request("/echo").status == 500
    wait_until(lambda: "HijackError" in server.log())
    assert 'start gunicorn with "-k gevent"' in server.log()
