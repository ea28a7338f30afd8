"""A WebSocket on every kind of server: messages, the early return, errors, and quiet logs."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import websocket

from ..support import frames
from ..support.certs import certificates
from ..support.peer import Peer
from ..support.servers import KINDS, Server
from ..support.servers import serve as run_server
from ..support.waiting import wait_until

# gunicorn's sync worker is refused; see the end of this file.
SERVED = [kind for kind in KINDS if kind != "gunicorn-sync"]
ALARM = re.compile(
    r"Traceback|Exception|Error\b|\bERROR\b|\bWARNING\b|\bCRITICAL\b|\[(error|warning|critical)\]"
)


def ways(kind: str) -> list[str]:
    """The ways a kind of server can listen, as `start` takes them."""
    what = KINDS[kind]
    return [kind] + [f"{kind}+tls"] * what.tls + [f"{kind}+unix"] * what.unix


LISTENING = [way for kind in SERVED for way in ways(kind)]
PATHS = ["/echo", "/events"]
MESSAGES = ["hello", "", "grüße, 世界 🎉", "x" * 125, "y" * 126, "z" * 70_000]


def start(name: str) -> contextlib.AbstractContextManager[Server]:
    kind, _, way = name.partition("+")
    how: dict[str, Any] = {way: True} if way else {}
    return run_server(kind, **how)


@pytest.fixture(scope="module", params=LISTENING)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server for the tests of this file."""
    with start(request.param) as running:
        CHECKED[running] = len(running.log())
        yield running


# How much of each server's log has been looked at.
CHECKED: dict[Server, int] = {}


@pytest.fixture
def quiet(server: Server) -> Iterator[Server]:
    """The server; what is new in its log after the test must hold no complaint."""
    yield server
    new = server.log()[CHECKED[server] :]
    CHECKED[server] += len(new)
    assert not ALARM.search(new), new


def logged(server: Server, path: str, status: int = 101) -> bool:
    """Does the access log show the request with that status?"""
    line = rf'GET {re.escape(path)} HTTP/1\.1[^"\n]*" {status}\b'
    return bool(re.search(line, server.access_log()))


@pytest.mark.parametrize("path", PATHS)
def test_echo(quiet: Server, path: str) -> None:
    with Peer(quiet) as peer:
        peer.open(path)
        for message in MESSAGES:
            peer.send_text(message)
            assert peer.read_text() == message
        peer.send_binary(b"\x00\xff" * 500)
        assert peer.read_frame() == frames.Frame(frames.BINARY, b"\x00\xff" * 500)
        peer.finish()
    wait_until(lambda: logged(quiet, path), what="101 in the access log")


@pytest.mark.parametrize("path", PATHS)
def test_first_frames_in_the_handshakes_segment(quiet: Server, path: str) -> None:
    first = frames.text("one") + frames.text("two") + frames.frame(frames.PING, "three")
    with Peer(quiet) as peer:
        peer.open(path, first=first)
        received = {peer.read_frame()[:2] for _ in range(3)}
        assert received == {
            (frames.TEXT, b"one"),
            (frames.TEXT, b"two"),
            (frames.PONG, b"three"),
        }
        peer.finish()


@pytest.mark.parametrize("path", PATHS)
def test_a_whole_conversation_in_one_segment(quiet: Server, path: str) -> None:
    first = frames.text("one") + frames.text("two") + frames.close(1000)
    with Peer(quiet) as peer:
        peer.open(path, first=first)
        assert [peer.read_text(), peer.read_text()] == ["one", "two"]
        assert peer.read_close().close_code == 1000
        peer.read_eof()


@pytest.mark.parametrize("path", PATHS)
def test_one_byte_at_a_time(quiet: Server, path: str) -> None:
    with Peer(quiet) as peer:
        peer.open(path)
        peer.send(frames.text("grüße") + frames.text("x" * 200), step=1)
        assert peer.read_text() == "grüße"
        assert peer.read_text() == "x" * 200
        peer.finish()


@pytest.mark.parametrize("path", PATHS)
def test_fragments(quiet: Server, path: str) -> None:
    with Peer(quiet) as peer:
        peer.open(path)
        peer.send_frame(frames.TEXT, "gr\u00fc".encode()[:3], fin=False)
        peer.send_frame(frames.PING, "between")
        peer.send_frame(frames.CONTINUATION, "\u00fc\u00dfe".encode()[1:])
        assert peer.read_frame()[:2] == (frames.PONG, b"between")
        assert peer.read_text() == "grüße"
        peer.finish()


@pytest.mark.parametrize("path", PATHS)
def test_websocket_client(quiet: Server, path: str) -> None:
    with library_client(quiet, path) as client:
        for message in MESSAGES:
            client.send(message)
            assert client.recv() == message
        client.send_binary(b"\x00\x01\x02")
        assert client.recv() == b"\x00\x01\x02"
        client.send_close(1000)
        opcode, payload = client.recv_data()
        assert (opcode, payload[:2]) == (frames.CLOSE, b"\x03\xe8")


@contextlib.contextmanager
def library_client(server: Server, path: str) -> Iterator[websocket.WebSocket]:
    with server.connect() as sock:
        yield websocket.create_connection(
            server.url(path, "ws"),
            timeout=10,
            socket=sock,
            sslopt={"ca_certs": certificates().ca},
            suppress_origin=True,
        )


@pytest.mark.parametrize("path", PATHS)
def test_the_peer_vanishes(quiet: Server, path: str) -> None:
    """No closing handshake: the server just gets on."""
    with Peer(quiet) as peer:
        peer.open(path)
        peer.send_text("hello")
        assert peer.read_text() == "hello"
    wait_until(lambda: logged(quiet, path))
    assert quiet.get("/plain")[0] == 200


def test_early_return_without_listeners(quiet: Server) -> None:
    """Nobody will ever read it: the connection is closed in the ordinary way."""
    with Peer(quiet) as peer:
        peer.open("/early")
        assert peer.read_close().close_code in (1000, 1001)
        peer.send_close(1000)
        peer.read_eof()
    wait_until(lambda: logged(quiet, "/early"))


def test_server_pushes_then_closes(quiet: Server) -> None:
    with Peer(quiet) as peer:
        peer.open("/push?n=300&size=1000")
        assert all(peer.read_text() == "x" * 1000 for _ in range(300))
        assert peer.read_close().close_code == 1000
        peer.send_close(1000)
        peer.read_eof()


def test_ordinary_pages_go_on_working(quiet: Server) -> None:
    with contextlib.ExitStack() as stack:
        if quiet.kind != "wsgiref-single":  # which serves one connection at a time
            stack.enter_context(Peer(quiet)).open("/echo")
        assert quiet.get("/plain") == (200, b"an ordinary page\n")


def test_a_listener_may_sleep_while_the_protocol_goes_on(quiet: Server) -> None:
    """A ping is answered at once, whatever a listener does."""
    with Peer(quiet) as peer:
        peer.open("/slow?delay=0.2")
        peer.send(frames.text("wait") + frames.frame(frames.PING, "there?"))
        assert peer.read_frame()[:2] == (frames.PONG, b"there?")
        assert peer.read_text() == "wait"
        peer.finish()


def test_a_refused_handshake_is_an_ordinary_response(quiet: Server) -> None:
    with Peer(quiet) as peer:
        head = peer.request("/echo", {"Sec-WebSocket-Version": "12"})
        assert head.status == 426
        assert head.get("Sec-WebSocket-Version") == "13"
        peer.read_body()
    assert quiet.get("/plain")[0] == 200


# Errors: a server of their own, since they leave a traceback.


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("path, error", [("/raise", "listener"), ("/raise_in_view", "view")])
def test_an_exception_closes_with_1011_and_is_logged_once(kind: str, path: str, error: str) -> None:
    with run_server(kind) as server:
        with Peer(server) as peer:
            peer.open(path)
            peer.send_text("go on")
            assert peer.read_close().close_code == 1011
            peer.send_close(1011)
            peer.read_eof()
        said = f"RuntimeError: raised by a {error}"
        wait_until(lambda: said in server.log(), what="the traceback")
        assert server.get("/plain")[0] == 200
        assert server.log().count(said) == 1
        assert server.log().count("Traceback") == 1


@pytest.mark.parametrize("kind", SERVED)
def test_listeners_are_told_of_the_end_when_the_view_raises(kind: str) -> None:
    with run_server(kind) as server:
        with Peer(server) as peer:
            peer.open("/raise_with_listeners")
            wait_until(lambda: "raised by a view" in server.log(), what="the traceback")
            server.get("/stats")  # collects garbage, which Flask leaves where threads serve
            assert peer.read_close().close_code == 1011
            peer.send_close(1011)
            peer.read_eof()
        wait_until(lambda: "told of its close: " in server.log(), what="the close event")
        assert server.get("/plain")[0] == 200
        assert server.log().count("told of its close: ") == 1
        assert server.log().count("Traceback") == 1


def test_listeners_that_come_when_the_client_has_gone(quiet: Server) -> None:
    """Each is told once, before another request is through with the same."""
    before = quiet.log().count("told late: 0")
    for times in (before + 1, before + 2):
        with Peer(quiet) as peer:
            peer.open("/late")
            peer.finish()
        wait_until(lambda times=times: quiet.log().count("told late: 1") == times)
        assert quiet.log().count("told late: 0") == times
    assert "told in vain" not in quiet.log()


THREADED = ["gunicorn-gthread", "flask", "wsgiref"]


@pytest.mark.parametrize("kind", THREADED)
def test_a_view_that_only_looks_up_now_and_then(kind: str) -> None:
    """Its connection is served all the same: pings go out, and the end is seen."""
    with run_server(kind) as server:
        with Peer(server) as peer:
            peer.open("/polling?ping=0.1&ping_timeout=30")
            for _ in range(3):
                assert peer.read_frame().opcode == frames.PING
                peer.send_frame(frames.PONG)
        wait_until(lambda: "it saw the end" in server.log())


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "gunicorn-gevent", "wsgiref"])
@pytest.mark.parametrize("path", PATHS)
def test_below_middleware_that_copies_the_environ(kind: str, path: str) -> None:
    with run_server(kind) as server, Peer(server) as peer:
        peer.open("/copied" + path)
        for message in MESSAGES:
            peer.send_text(message)
            assert peer.read_text() == message
        peer.finish()
        assert not ALARM.search(server.log())


def test_such_a_view_is_told_that_its_worker_stops() -> None:
    with run_server("gunicorn-gthread") as server, Peer(server) as peer:
        peer.open("/polling")
        server.signal(signal.SIGTERM)
        assert peer.read_close().close_code == 1001
        peer.send_close(1001)
        peer.read_eof()
        server.wait()


# The wrong server: the operator is told what to do.


@pytest.mark.parametrize("path", PATHS)
def test_sync_worker_is_refused(serve: Callable[..., Server], path: str) -> None:
    server = serve("gunicorn-sync")
    with Peer(server) as peer:
        assert peer.request(path).status == 500
    wait_until(lambda: "HijackError" in server.log(), what="HijackError in the log")
    said = server.log()[server.log().index("HijackError") :].lower()
    assert "gunicorn" in said and "sync" in said
    assert "gevent" in said, "the cure"
    assert server.get("/plain")[0] == 200
