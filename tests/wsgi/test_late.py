"""Close listeners that come after the end, where it matters who runs the hub by then."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import pytest

from faye_wsgi import Client, ConnectionClosed, WebSocket

from ..support.peer import Peer
from ..support.servers import KINDS, Server
from ..support.servers import serve as run_server
from ..support.waiting import wait_until

APP = "tests.wsgi.test_late:application"
SERVED = [kind for kind in KINDS if kind not in ("gunicorn-sync", "django")]

MEMBERS: set[WebSocket] = set()
TOLD: list[int | None] = []


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/stay` waits for the end; `/leave` returns another response than its WebSocket's."""
    path = environ["PATH_INFO"]
    if path == "/listen":  # in another request, to those whose requests are over
        for ws in MEMBERS:
            ws.on("close", tell)
    elif path in ("/stay", "/leave", "/raise"):
        ws = WebSocket(environ)
        MEMBERS.add(ws)
        with contextlib.suppress(ConnectionClosed):
            ws.receive()
        ws.wait_closed()
        if path == "/stay":
            return ws.response(environ, start_response)
        ws.on("close", tell)
        if path == "/raise":
            raise RuntimeError("raised by a view")
    gc.collect()  # Flask leaves the environ of a view that raises to it, where threads serve
    body = f"{len(MEMBERS)} {len(TOLD)}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def tell(event: Any) -> None:
    MEMBERS.discard(event.target)
    TOLD.append(event.code)


def counts(server: Server) -> list[int]:
    return [int(number) for number in server.get("/")[1].split()]


@pytest.fixture(scope="module", params=SERVED)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(request.param, APP) as running:
        yield running


@pytest.mark.parametrize("path", ["/leave", "/raise"])
def test_the_view_returns_something_else(server: Server, path: str) -> None:
    _, before = counts(server)
    for _ in range(3):
        with Peer(server) as peer:
            peer.open(path)
            peer.finish()
    wait_until(lambda: counts(server) == [0, before + 3], what="the close listeners")


def test_the_request_is_over(server: Server) -> None:
    _, before = counts(server)
    for _ in range(3):
        with Peer(server) as peer:
            peer.open("/stay")
            peer.finish()
    wait_until(lambda: counts(server)[0] == 3 and server.access_log().count("/stay") == 3)
    server.get("/listen")
    wait_until(lambda: counts(server) == [0, before + 3], what="the close listeners")


def test_the_thread_of_the_hub_has_ended() -> None:
    """A client that a thread made and left."""
    heard = threading.Event()
    clients: list[Client] = []

    def connect() -> None:
        with Client(f"ws://127.0.0.1:{running.port}/stay") as client:
            clients.append(client)

    with run_server("wsgiref", APP) as running:
        thread = threading.Thread(target=connect)
        thread.start()
        thread.join(10)
        (client,) = clients
        client.on("close", lambda event: heard.set())
        assert heard.wait(10)
