"""Taking a request's connection: who serves it from then on, and when its view has ended.

The server here is a thread of the test with a native socket, as of gunicorn's gthread worker;
what gevent's servers do is tested in tests/test_websocket.py, all real ones in test_endings.py.
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import pytest

from faye_wsgi import ConnectionClosed, HijackError, WebSocket
from faye_wsgi.wsgi import handover

from ..support import frames
from ..support.peer import Peer
from ..support.scripted import descriptors
from ..test_websocket import Exchange, Untouchable, exchange, make_environ
from ..transport.harness import TIMEOUT, until

__all__ = ["exchange"]

View = Callable[[dict[str, Any], Callable[..., Any]], Any]


class ThreadedServer:
    """A server of one request: it runs the view in a thread, and iterates what that returns."""

    def __init__(self, view: View, read_ahead: bytes = b"") -> None:
        self.socket, theirs = socket.socketpair()
        self.peer = Peer(sock=theirs, timeout=TIMEOUT)
        self.status = ""
        self.failures: list[BaseException] = []
        self.hub: Callable[[], Any] = lambda: None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(view, read_ahead), daemon=True)
        self._thread.start()

    def _run(self, view: View, read_ahead: bytes) -> None:
        try:
            self._serve(view, make_environ(self.socket, read_ahead))
        except BaseException as error:
            self.failures.append(error)
        finally:
            self.socket.close()
            self._ended.set()

    def _serve(self, view: View, environ: dict[str, Any]) -> None:
        def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
            self.status = status

        body = view(environ, start_response)
        self.hub = weakref.ref(gevent.get_hub())
        pieces = b"".join(body)
        self.socket.sendall(f"HTTP/1.1 {self.status}\r\n\r\n".encode() + pieces)

    def wait(self) -> None:
        assert self._ended.wait(TIMEOUT), "the server's thread does not end"
        self._thread.join(TIMEOUT)

    def close(self) -> None:
        self.peer.close()
        self.wait()


@pytest.fixture
def threaded() -> Iterator[Callable[..., ThreadedServer]]:
    made: list[ThreadedServer] = []

    def start(*args: Any) -> ThreadedServer:
        made.append(ThreadedServer(*args))
        return made[-1]

    yield start
    for server in made:
        server.close()


def echo(environ: dict[str, Any], start_response: Any) -> Any:
    ws = WebSocket(environ)
    ws.on("message", lambda event: ws.send(event.data))
    return ws.response(environ, start_response)


def test_the_response_serves_the_connection_in_the_servers_thread(
    threaded: Callable[..., ThreadedServer],
) -> None:
    server = threaded(echo, frames.text("read ahead"))
    assert server.peer.read_head().status == 101
    assert server.peer.read_text() == "read ahead"
    server.peer.send_text("later")
    assert server.peer.read_text() == "later"
    assert not server.failures and server.status == "101 Switching Protocols"
    server.peer.finish()
    server.close()


def test_a_served_connection_leaves_nothing_behind(
    threaded: Callable[..., ThreadedServer],
) -> None:
    """gevent would leave the hub of each thread, with its descriptors, for ever."""
    hubs: list[Any] = []

    def one() -> None:
        server = threaded(echo)
        server.peer.read_head()
        server.peer.finish()
        server.close()
        hubs.append(server.hub)

    one()
    gc.collect()
    before = descriptors()
    for _ in range(3):
        one()
    gc.collect()
    assert descriptors() == before
    assert [hub() for hub in hubs] == [None] * 4


@pytest.mark.parametrize("status, code", [("200 OK", 1000), ("302 Found", 1000), ("500 Oh", 1011)])
def test_a_thread_whose_view_returns_something_else(
    threaded: Callable[..., ThreadedServer], status: str, code: int
) -> None:
    """The server lets go of the environ: that is all that tells of the request's end."""

    def view(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        WebSocket(environ)
        start_response(status, [])
        return [b"a page"]

    server = threaded(view)
    assert server.peer.read_head().status == 101
    assert server.peer.read_close().close_code == code
    server.wait()
    gc.collect()
    assert not server.failures and server.hub() is None


def test_a_view_that_blocks_is_served_meanwhile(threaded: Callable[..., ThreadedServer]) -> None:
    def view(environ: dict[str, Any], start_response: Any) -> Any:
        with WebSocket(environ) as ws:
            for message in ws:
                ws.send(message)
        return ws.response(environ, start_response)

    server = threaded(view)
    server.peer.read_head()
    for text in ("a", "b"):
        server.peer.send_text(text)
        assert server.peer.read_text() == text
    server.peer.finish()
    server.close()
    assert not server.failures


def test_a_view_whose_block_ends_with_its_connection_goes_on(
    threaded: Callable[..., ThreadedServer],
) -> None:
    def view(environ: dict[str, Any], start_response: Any) -> Any:
        with WebSocket(environ) as ws:
            while True:
                ws.receive()
        return ws.response(environ, start_response)

    server = threaded(view)
    server.peer.read_head()
    server.peer.finish()
    server.close()
    assert not server.failures


def test_there_is_one_connection_for_a_request(exchange: Callable[..., Exchange]) -> None:
    made = exchange()
    first = made.accept()
    with pytest.raises(RuntimeError):
        WebSocket(made.environ)
    first.send("still open")
    assert made.peer.read_text() == "still open"


def test_a_socket_that_cannot_be_taken_leaves_nothing_in_the_hub() -> None:
    environ = make_environ(object())
    with pytest.raises(HijackError):
        WebSocket(environ)


def test_the_view_has_ended_when_the_server_closes_its_socket(
    exchange: Callable[..., Exchange],
) -> None:
    """Until then a view without listeners may go on with its connection."""
    made = exchange()
    ws = made.accept()
    made.server.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    ws.send("after the response")
    assert made.peer.read_text() == "after the response"
    made.server.close()
    assert made.peer.read_close().close_code == 1000
    made.peer.send_close()
    made.peer.close()
    until(lambda: ws.ready_state == ws.CLOSED)
    with pytest.raises(ConnectionClosed):
        ws.send("late")


def test_a_proxy_that_drops_a_header_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    handover._warn_stripped.cache_clear()
    for lost in ("HTTP_UPGRADE", "HTTP_CONNECTION"):
        WebSocket(make_environ(Untouchable(), **{lost: None}))
    assert caplog.text.count("proxy_set_header Upgrade $http_upgrade") == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tracebacks show no notes")
def test_the_end_that_leaves_an_undecorated_view_says_how_to_end_it(
    exchange: Callable[..., Exchange],
) -> None:
    """``if message is None: break``, as on gevent-websocket: the server logs the traceback."""
    made = exchange()

    def view(environ: dict[str, Any], start_response: Any) -> None:
        ws = WebSocket(environ)
        made.peer.send_close(1000)
        while ws.receive() is not None:
            pass

    with pytest.raises(ConnectionClosed) as caught:
        view(made.environ, None)
    logged = "".join(traceback.format_exception(caught.value))
    assert "ordinary end of a connection" in logged and "'for message in ws:'" in logged
