"""The endpoint under real servers, and what one client's attack costs the others."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import pytest

from faye_wsgi import Channels, Client, ConnectionClosed

from ..support.servers import Server, serve

channels = Channels(history=100)
view = channels.view(lambda environ, action, channel: not channel.startswith("secret"))


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return view(environ, start_response)  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=["gunicorn-gevent", "gunicorn-gthread", "pywsgi"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(request.param, "tests.gateway.test_servers:application") as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@contextlib.contextmanager
def post(server: Server, message: Any, accept: str = "*/*") -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    headers = {"Content-Type": "application/json", "Accept": accept}
    with contextlib.closing(connection):
        connection.request("POST", "/", json.dumps(message), headers)
        with connection.getresponse() as response:
            yield response


def subscribe(ws: Client, channel: str) -> None:
    ws.send_json({"subscribe": channel})
    assert ws.receive_json(10)["subscribed"] == channel


def test_a_stream_that_is_asked_for_by_post(server: Server) -> None:
    """The body is read, and the socket is taken after that."""
    with post(server, [{"subscribe": ["a"]}, {"subscribe": "secret"}], "text/event-stream") as es:
        assert es.status == 200
        assert next_data(es)["subscribed"] == ["a"]
        assert next_data(es)["error"] == "forbidden"
        with post(server, {"publish": "a", "data": "ü"}) as answer:
            published = json.load(answer)["published"]
        assert next_data(es) == {"channel": "a", "id": published, "data": "ü"}


def next_data(stream: http.client.HTTPResponse) -> Any:
    while True:
        line = stream.readline()
        assert line, "the stream has ended"
        if line.startswith(b"data:"):
            return json.loads(line[5:])


def test_an_empty_stream_stays_open(server: Server) -> None:
    with post(server, [], "text/event-stream") as es:
        assert es.status == 200
        assert es.readline().startswith(b"retry:")


def flood(url: str, stop: threading.Event) -> None:
    """Subscribe and unsubscribe as fast as it goes, until that is closed."""
    with Client(url) as ws:
        try:
            while not stop.is_set():
                for number in range(100):
                    ws.send_json({"subscribe": f"flood:{number}"}, timeout=0.5)
                    ws.send_json({"unsubscribe": f"flood:{number}"}, timeout=0.5)
        except (ConnectionClosed, TimeoutError):
            pass


def test_a_flood_costs_the_others_nothing(server: Server) -> None:
    """The messages of the others arrive while it goes on, soon, and each of them."""
    stop = threading.Event()
    attackers = [
        threading.Thread(target=flood, args=(server.url("/", "ws"), stop), daemon=True)
        for _ in range(3)
    ]
    with Client(server.url("/", "ws")) as ws:
        subscribe(ws, "quiet")
        for attacker in attackers:
            attacker.start()
        try:
            slowest = max(round_trip(ws, number) for number in range(50))
        finally:
            stop.set()
            for attacker in attackers:
                attacker.join(20)
        assert slowest < 2.0, slowest  # the timeout of a broker


def round_trip(ws: Client, number: int) -> float:
    started = time.monotonic()
    ws.send_json({"publish": "quiet", "data": number})
    for _ in range(2):  # the message and the answer
        message = ws.receive_json(10)
        assert message.get("data", number) == number
    return time.monotonic() - started
