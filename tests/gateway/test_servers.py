"""The endpoint under real servers, and what one client's attack costs the others."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import pytest

from faye_wsgi import Channels, Client, ConnectionClosed, HandshakeError

from ..support.servers import Server, serve
from ..support.waiting import wait_until

channels = Channels(history=100, secret="of the server")
EVENTS = "text/event-stream"
FOREIGN = {"Origin": "https://evil.example"}
view = channels.view(lambda environ, action, channel: not channel.startswith("secret"))
strict_view = channels.view(lambda environ, action, channel: True, rate=0.01, burst=3)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    chosen = strict_view if environ["PATH_INFO"] == "/strict" else view
    return chosen(environ, start_response)  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=["gunicorn-gevent", "gunicorn-gthread", "pywsgi"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(request.param, "tests.gateway.test_servers:application") as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@contextlib.contextmanager
def post(
    server: Server, message: Any, path: str = "/", **more: str
) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    headers = {"Content-Type": "application/json", **more}
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(message), headers)
        with connection.getresponse() as response:
            yield response


def subscribe(ws: Client, channel: str) -> None:
    ws.send_json({"subscribe": channel})
    assert ws.receive_json(10)["subscribed"] == channel


def test_a_stream_that_is_asked_for_by_post(server: Server) -> None:
    """The body is read, and the socket is taken after that."""
    with post(server, [{"subscribe": ["a"]}, {"subscribe": "secret"}], Accept=EVENTS) as es:
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
    with post(server, [], Accept=EVENTS) as es:
        assert es.status == 200
        assert es.readline().startswith(b"retry:")


# What one client does to the others


@contextlib.contextmanager
def beside_a_client(server: Server) -> Iterator[list[float]]:
    """An honest client publishes and listens meanwhile: each message comes, and soon.

    The list has the seconds that each has taken.
    """
    stop = threading.Event()
    took: list[float] = []

    def talk() -> None:
        with Client(server.url("/", "ws")) as ws:
            subscribe(ws, "quiet")
            while not stop.wait(0.03):  # below its rate
                took.append(round_trip(ws, len(took)))

    with ThreadPoolExecutor() as pool:
        talking = pool.submit(talk)
        try:
            wait_until(lambda: len(took) > 5 or talking.done())
            yield took
            count = len(took)
            wait_until(lambda: len(took) > count + 5 or talking.done())
        finally:
            stop.set()
        talking.result(20)
    assert max(took) < 5.0, took  # well below what a client waits for


def test_a_flood_costs_the_others_nothing(server: Server) -> None:
    stop = threading.Event()
    with beside_a_client(server) as took, ThreadPoolExecutor() as pool:
        flooding = [pool.submit(flood, server.url("/", "ws"), stop) for _ in range(3)]
        try:
            wait_until(lambda: len(took) > 50, 30)
        finally:
            stop.set()
        for one in flooding:
            one.result(20)


def flood(url: str, stop: threading.Event) -> None:
    """Subscribe and unsubscribe as fast as it goes, until that is closed."""
    with Client(url, close_timeout=0.1) as ws:
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            while not stop.is_set():
                for number in range(100):
                    ws.send_json({"subscribe": f"flood:{number}"}, timeout=0.5)
                    ws.send_json({"unsubscribe": f"flood:{number}"}, timeout=0.5)


def test_a_page_of_another_origin(server: Server) -> None:
    with beside_a_client(server):
        for _ in range(20):
            with pytest.raises(HandshakeError) as caught:
                Client(server.url("/", "ws"), headers=FOREIGN).wait_open(10)
            assert caught.value.status_code == 403
            for accept in ("*/*", EVENTS):
                with post(server, {"publish": "a", "data": 1}, Accept=accept, **FOREIGN) as answer:
                    assert answer.status == 403


def test_a_channel_that_is_refused_and_a_forged_signature(server: Server) -> None:
    signed = Channels(secret="of another server").sign("secret")
    with beside_a_client(server), Client(server.url("/", "ws")) as ws:
        for token in ([], [signed], [signed] * 128, ["x" * 1000]):
            for message in ({"subscribe": "secret"}, {"history": "secret"}):
                ws.send_json({**message, "token": token})
                assert ws.receive_json(10)["error"] == "forbidden"
        ws.send_json({"publish": "secret", "data": 1})
        assert ws.receive_json(10)["error"] == "forbidden"
        with post(server, {"history": "secret", "token": signed}) as answer:
            assert answer.status == 403


def test_a_publication_of_10_mb(server: Server) -> None:
    data = "x" * 10_000_000
    with beside_a_client(server):
        for _ in range(3):
            with Client(server.url("/", "ws")) as ws:
                with contextlib.suppress(ConnectionClosed):
                    ws.send_json({"publish": "a", "data": data})
                assert list(ws) == [] and ws.close_code == 1009
            with contextlib.suppress(ConnectionError):  # it may be cut before it was read
                with post(server, {"publish": "a", "data": data}) as answer:
                    assert answer.status == 413
        with Client(server.url("/", "ws")) as ws:  # within the limit of a message's frame only
            ws.send_json({"publish": "a", "data": "x" * 70_000})
            assert ws.receive_json(10)["error"] == "invalid"


def test_a_thousand_subscriptions_of_a_connection(server: Server) -> None:
    names = [f"channel {number}" for number in range(1000)]
    with beside_a_client(server), Client(server.url("/", "ws")) as ws:
        ws.send_json({"subscribe": names})
        assert ws.receive_json(10)["error"] == "limit"
        for name in names[:140]:
            ws.send_json({"subscribe": name})
        answers = [ws.receive_json(10) for _ in range(140)]
        assert sum("subscribed" in answer for answer in answers) == 128
        assert {answer["error"] for answer in answers if "error" in answer} == {"limit"}
        with post(server, {"subscribe": names}, Accept=EVENTS) as answer:
            assert answer.status == 413


def test_posts_that_come_too_fast(server: Server) -> None:
    with beside_a_client(server):
        answers = []
        for _ in range(4):
            with post(server, {"publish": "a", "data": 1}, "/strict") as answer:
                answers.append(answer.status)
        assert answers == [200, 200, 200, 429]
        assert int(answer.headers["Retry-After"]) >= 1


def round_trip(ws: Client, number: int) -> float:
    started = time.monotonic()
    ws.send_json({"publish": "quiet", "data": number})
    for _ in range(2):  # the message and the answer
        message = ws.receive_json(10)
        assert message.get("data", number) == number
    return time.monotonic() - started
