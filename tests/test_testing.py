"""The testing kit: WebSockets of Flask, Django and WSGI views, without a server.

Each test here runs in this process, whose threads are not patched. The last ones run all the
others once more in processes of their own: in the reversed order, where everything is patched,
and in parallel.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, request, session

from faye_wsgi import (
    ConnectionClosed,
    EventSource,
    EventSourceClient,
    HandshakeError,
    WebSocket,
)
from faye_wsgi.flask import eventsource, websocket
from faye_wsgi.testing import connect, connect_events, ws_url

from .support import servers
from .test_layers import ROOT, fresh_python

AGAIN_MARK = "FAYE_WSGI_TEST_AGAIN"
AGAIN = """
import sys

threads, *arguments = sys.argv[1:]
if threads == "patched":
    import gevent.monkey

    gevent.monkey.patch_all()
import gc, os, threading
import pytest
from greenlet import greenlet


def count():
    gc.collect()
    greenlets = [one for one in gc.get_objects() if isinstance(one, greenlet) and not one.dead]
    return len(os.listdir("/dev/fd")), threading.active_count(), len(greenlets)


class Reversed:
    def pytest_collection_modifyitems(self, items):
        self.items = items
        items.reverse()

    def pytest_runtest_logfinish(self, nodeid):
        if nodeid == self.items[len(self.items) // 2].nodeid:
            self.usual = count()


plugin = Reversed()
status = pytest.main(arguments, [plugin])

from faye_wsgi.testkit.request import wait_until  # not before pytest has begun

is_clean = wait_until(lambda: all(map(int.__le__, count(), plugin.usual)), 5)
print(plugin.usual, count())
sys.exit(status or not is_clean)
"""
PARALLEL = """
from gevent.monkey import is_module_patched
from tests.test_testing import *


def test_threads_are_patched():
    assert is_module_patched("threading")
"""
once = pytest.mark.skipif(AGAIN_MARK in os.environ, reason="this is run by one of these")
left: list[Any] = []

app = Flask(__name__)
app.secret_key = "a secret"


@app.route("/echo", websocket=True)
@websocket(protocols=["chat"], max_length=1000, headers={"Set-Cookie": "seen=yes; Path=/"})
def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


@app.route("/who", websocket=True)
@websocket
def who(ws: WebSocket) -> None:
    ws.send_json([session.get("user"), request.cookies.get("seen"), request.args.get("q")])


@app.route("/broken", websocket=True)
@websocket
def broken(ws: WebSocket) -> None:
    ws.receive()
    raise KeyError("a mistake of the view's")


@app.route("/listens", websocket=True)
@websocket
def listens(ws: WebSocket) -> None:
    ws.on("message", lambda event: ws.send(event.data.upper()))


@app.route("/stays", websocket=True)
@websocket
def stays(ws: WebSocket) -> None:
    left[0].wait(60)


@app.route("/leaves", websocket=True)
@websocket
def leaves(ws: WebSocket) -> None:
    left.append(open(os.devnull))


@app.route("/codes", websocket=True)
@websocket(close_timeout=1)
def codes(ws: WebSocket) -> None:
    try:
        ws.receive()
    except ConnectionClosed as closed:
        left.append(closed.code)


@app.route("/floods", websocket=True)
@websocket(close_timeout=1)
def floods(ws: WebSocket) -> None:
    for _ in range(200):
        ws.send(bytes(65536))


@app.get("/feed")
@eventsource(retry=2, headers={"Set-Cookie": "fed=yes; Path=/"})
def feed(es: EventSource) -> None:
    first = int(es.last_event_id or 0) + 1
    for number in range(first, 4):
        es.send(f"event\n{number}", event="tick", id=number)
    es.on("close", lambda event: left.append("closed"))


@app.get("/feed/short")
@eventsource
def short_feed(es: EventSource) -> None:
    es.send("only")
    es.close()


@app.get("/feed/broken")
@eventsource
def broken_feed(es: EventSource) -> None:
    es.send("é")
    raise KeyError("a mistake of the view's")


@app.get("/cookies")
def cookies() -> str:
    return request.headers.get("Cookie", "")


@app.get("/page")
def page() -> str:
    return "a page"


def plain(environ: Any, start_response: Any) -> Any:
    ws = WebSocket(environ)
    while True:  # without a decorator, the end of the client is an exception
        ws.send(ws.receive())


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    left.clear()


def test_a_conversation() -> None:
    with connect(app.test_client(), "/echo", ["chat"]) as ws:
        ws.send("hello")
        assert ws.receive() == "hello"
        ws.send_json({"a": 1})
        assert ws.receive_json() == {"a": 1}
        ws.ping("p")
        ws.assert_silent(0.01)
        assert ws.protocol == "chat"
    assert ws.close_code == 1000


def test_any_wsgi_application() -> None:
    for application in (plain, app):
        with connect(application, "/echo") as ws:
            ws.send(b"bytes")
            assert ws.receive() == b"bytes"


def test_the_client_has_a_session_and_gets_cookies() -> None:
    client = app.test_client()
    with client.session_transaction() as stored:
        stored["user"] = "ada"
    with connect(client, "/echo"):
        pass
    with connect(client, "/who?q=1") as ws:
        assert ws.receive_json() == ["ada", "yes", "1"]


def test_limits_are_real() -> None:
    with connect(app, "/echo") as ws:
        ws.send("x" * 1001)
        with pytest.raises(ConnectionClosed):
            ws.receive()
        assert ws.close_code == 1009


def test_a_refused_handshake() -> None:
    with pytest.raises(HandshakeError) as caught:
        connect(app, "/nowhere").__enter__()
    assert caught.value.status_code == 404
    assert b"Not Found" in caught.value.body
    with pytest.raises(HandshakeError) as caught:
        connect(app, "/echo", headers={"Origin": "https://evil.example"}).__enter__()
    assert caught.value.status_code == 403


@pytest.mark.parametrize("testing", [True, False])
def test_what_the_view_raises_is_raised_at_the_next_receive(testing: bool) -> None:
    app.testing = testing
    with pytest.raises(KeyError, match="a mistake of the view's") as caught:
        with connect(app, "/broken") as ws:
            ws.send("x")
            ws.receive()
    assert "broken" in [entry.name for entry in caught.traceback]


def test_what_the_view_raises_is_raised_at_the_end() -> None:
    with pytest.raises(KeyError, match="a mistake"):
        with connect(app, "/broken") as ws:
            ws.send("x")


def test_no_message_in_time() -> None:
    with pytest.raises(AssertionError) as caught:
        with connect(app, "/echo") as ws:
            ws.send("hello")
            ws.receive()
            ws.receive(timeout=0.01)
    text = str(caught.value)
    assert "no message within 0.01 seconds: it is at" in text
    assert "for message in ws" in text
    assert "-> 'hello'\n  <- 'hello'" in text


def test_a_message_instead_of_silence() -> None:
    with pytest.raises(AssertionError, match="should have been silent: 'x'"):
        with connect(app, "/echo") as ws:
            ws.send("x")
            ws.assert_silent(5)


def test_a_view_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("testkit.exchange", "testing"):
        monkeypatch.setattr(f"faye_wsgi.{module}.TIMEOUT", 0.05)
    left.append(threading.Event())
    try:
        with pytest.raises(AssertionError, match=r"not ended within(.|\n)*in stays"):
            with connect(app, "/stays", keeps=["threads", "greenlets", "descriptors"]):
                pass
    finally:
        left[0].set()


def test_listeners_outlive_their_view() -> None:
    with connect(app, "/listens") as ws:
        ws.send("x")
        assert ws.receive() == "X"


def test_what_is_left_behind() -> None:
    with pytest.raises(AssertionError, match=r"left behind descriptors: .*keeps=\['descriptors'\]"):
        with connect(app, "/leaves") as ws:
            ws.wait_closed()
    with connect(app, "/leaves", keeps=["descriptors"]):
        pass
    for file in left:
        file.close()


@pytest.mark.parametrize("fault", ["reset", "vanish"])
def test_a_peer_that_is_gone(fault: str) -> None:
    with connect(app, "/codes") as ws:
        getattr(ws, fault)()
        assert ws.close_code == 1006
    assert left == [1006]


def test_a_peer_that_has_vanished_says_nothing() -> None:
    with connect(app, "/codes") as ws:
        ws.vanish()
        with pytest.raises(AssertionError, match="not ended within"):
            ws.wait_ended(0.05)
        assert left == []


def test_a_peer_that_does_not_read() -> None:
    with connect(app, "/floods") as ws:
        ws.stall()
        with pytest.raises(AssertionError, match="in floods"):
            ws.wait_ended(0.05)
        with pytest.raises(RuntimeError, match="resume"):
            ws.receive()
        ws.resume()
        for _ in range(200):
            assert len(ws.receive()) == 65536


def test_raw_bytes() -> None:
    with connect(app, "/codes") as ws:
        ws.send_raw(b"\xff\xff")
        assert ws.wait_closed() == 1002
    assert left == [1002]


@pytest.mark.parametrize("client", [None, "app", SimpleNamespace()])
def test_what_is_no_client(client: Any) -> None:
    with pytest.raises(TypeError, match="a test client of Flask, Werkzeug or Django"):
        connect(client, "/").__enter__()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="begins with a slash"):
        connect(app, "echo").__enter__()
    with pytest.raises(ValueError, match="descriptors"):
        connect(app, "/echo", keeps=["files"])
    with pytest.raises(TypeError):
        connect(app, "/echo", no_such_option=1).__enter__()


def test_two_at_once() -> None:
    with connect(app, "/echo") as one, connect(app, "/echo") as two:
        two.send("2")
        one.send("1")
        assert (one.receive(), two.receive()) == ("1", "2")


def test_an_event_stream() -> None:
    client = app.test_client()
    with connect_events(client, "/feed") as es:
        assert es.receive() == ("event\n1", "tick", "1")
        assert [es.receive().id, es.receive().id] == ["2", "3"]
        es.assert_silent(0.01)
        assert (es.last_event_id, es.retry) == ("3", 2)
        with pytest.raises(AssertionError, match=r"no event within(.|\n)*'tick', '3'"):
            es.receive(timeout=0.01)
    assert left == ["closed"]
    with connect_events(client, "/feed", last_event_id=2) as es:
        assert es.receive().id == "3"
    with connect(client, "/echo") as ws:
        ws.send("x")
    assert "fed=yes" in client.get("/cookies").text


def test_the_end_of_an_event_stream() -> None:
    with connect_events(app, "/feed/short") as es:
        assert es.receive().data == "only"
        for _ in range(2):
            with pytest.raises(ConnectionClosed):
                es.receive()
        with pytest.raises(AssertionError, match="the stream has ended"):
            es.assert_silent(5)


def test_what_the_view_of_a_stream_raises() -> None:
    with pytest.raises(KeyError, match="a mistake"):
        with connect_events(app, "/feed/broken") as es:
            assert es.receive().data == "é"
            es.receive()


def test_what_is_no_event_stream() -> None:
    for path, status in (("/nowhere", 404), ("/page", 200)):
        with pytest.raises(HandshakeError) as caught:
            connect_events(app, path).__enter__()
        assert caught.value.status_code == status
        assert caught.value.body


def test_a_client_of_events_that_is_left_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/feed?token=x"
        with pytest.raises(
            AssertionError, match="connections: <Feed http://127.0.0.1:[0-9]+/feed>"
        ):
            with connect(app, "/echo", keeps=["greenlets", "descriptors"]):
                es = EventSourceClient(url)
        es.close()


@pytest.mark.parametrize("number", range(50))
def test_many_in_little_time(number: int) -> None:
    """Each one looks for leftovers by itself."""
    with connect(app, "/echo") as ws:
        ws.send(str(number))
        assert ws.receive() == str(number)


@pytest.mark.parametrize(
    "server",
    [
        SimpleNamespace(live_server_url="http://localhost:81"),  # Django
        SimpleNamespace(url="http://localhost:81"),  # pytest-django
        SimpleNamespace(url=lambda: "http://localhost:81"),  # pytest-flask
        "http://localhost:81/",
    ],
)
def test_ws_url(server: Any) -> None:
    assert ws_url(server, "/chat") == "ws://localhost:81/chat"


def test_production_does_not_load_the_kit() -> None:
    script = (
        "import sys, faye_wsgi.flask, faye_wsgi.django, faye_wsgi.client, faye_wsgi.eventsource\n"
        "print([name for name in sys.modules if name.startswith('faye_wsgi.test')])"
    )
    assert fresh_python(script) == "[]"


@once
@pytest.mark.parametrize("threads", ["unpatched", "patched"])
def test_in_the_reversed_order(threads: str) -> None:
    """And nothing is left when all have run."""
    result = run("-c", AGAIN, threads, "-q", "-p", "no:cacheprovider", __file__)
    assert result.returncode == 0, result.stdout + result.stderr


@once
def test_in_parallel_under_patched_threads(tmp_path: Path) -> None:
    """pytest-xdist has a thread of its own, which is not patched."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfaye_wsgi_patch = true", "utf-8")
    (tmp_path / "test_all.py").write_text(PARALLEL, "utf-8")
    plugins = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "xdist.plugin,faye_wsgi.pytest_plugin",
    }
    options = ["-q", "-p", "no:cacheprovider", "-n", "2"]
    result = run("-m", "pytest", *options, folder=tmp_path, **plugins)
    assert result.returncode == 0, result.stdout + result.stderr


@once
@pytest.mark.parametrize("threads", ["unpatched", "patched"])
def test_djangos_test_cases(threads: str) -> None:
    """A TestCase's transaction, SQLite in memory, force_login, and LiveServerTestCase."""
    result = run("-m", "tests.testing_django", threads)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "16 tests" in result.stdout
    assert "Traceback" not in result.stderr


def run(
    *arguments: str, folder: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    if not servers.MAY_START:
        pytest.skip("it starts another run of tests")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, AGAIN_MARK: "1", "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
