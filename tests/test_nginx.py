"""Behind nginx, with the configuration that docs/proxies.md shows, word for word."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from .conftest import find_program
from .support import frames
from .support.nginx import Nginx, nginx
from .support.peer import Peer
from .support.servers import Server
from .support.servers import serve as run_server
from .support.sse import Acknowledgements, EventReader, notes, read_one_by_one
from .support.waiting import wait_until
from .test_drafts import ANSWER, BODY, DraftPeer, text
from .wsgi.test_echo import ALARM

KINDS = ["gunicorn-gevent", "gunicorn-gthread", "pywsgi"]
ORIGIN = {"Origin": "http://chat.example"}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    find_program("nginx")
    with run_server(request.param) as running:
        yield running
        assert not ALARM.search(running.log()), running.log()


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[Nginx]:
    with nginx(find_program("nginx"), server) as running:
        yield running
        assert running.log() == ""


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


MakePeer = Callable[..., Peer]


@pytest.mark.parametrize("path", ["/echo", "/events"])
def test_websocket(proxy: Any, peer: MakePeer, path: str) -> None:
    client = peer(proxy).open(path)
    for message in ["hello", "", "grüße, 世界 🎉", "x" * 200_000]:
        client.send_text(message)
        assert client.read_text() == message
    client.send_frame(frames.PING, "there?")
    assert client.read_frame()[:2] == (frames.PONG, b"there?")
    client.finish()


def test_websocket_first_frames_in_the_handshakes_segment(proxy: Any, peer: MakePeer) -> None:
    client = peer(proxy).open("/echo", first=frames.text("one") + frames.text("two"))
    assert [client.read_text(), client.read_text()] == ["one", "two"]
    client.finish()


def test_websocket_the_server_closes(proxy: Any, peer: MakePeer) -> None:
    client = peer(proxy).open("/push?n=100&size=10000")
    assert all(client.read_text() == "x" * 10_000 for _ in range(100))
    assert client.read_close().close_code == 1000
    client.send_close()
    client.read_eof()


def test_websocket_refused(proxy: Any, peer: MakePeer) -> None:
    client = peer(proxy)
    assert client.request("/echo", {"Sec-WebSocket-Version": "12"}).status == 426


def test_origin(proxy: Any, peer: MakePeer) -> None:
    """The host that the browser asked for is the one that the server sees."""
    same = {"Origin": "http://chat.example", "Host": "chat.example"}
    peer(proxy).open("/echo", same).finish()
    assert peer(proxy).request("/echo", ORIGIN).status == 403
    # What a client says of itself does not count, with trust_forwarded either.
    told = {**ORIGIN, "X-Forwarded-Host": "chat.example"}
    assert peer(proxy).request("/echo?trust_forwarded=1", told).status == 403


def test_a_plain_page(proxy: Any, peer: MakePeer) -> None:
    """The headers of an upgrade are not sent along with every request."""
    client = peer(proxy)
    client.send(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.read_head().status == 200
    assert client.read_body() == b"an ordinary page\n"


def test_events_one_by_one(proxy: Any) -> None:
    with Acknowledgements() as acks:
        with EventReader(proxy, "/es/step", n=5, ack=acks.path) as reader:
            assert reader.head.status == 200
            assert reader.head.get("Content-Type") == "text/event-stream; charset=utf-8"
            assert reader.head.get("Cache-Control") == "no-cache, no-store, no-transform"
            read_one_by_one(reader, acks, 5)
            assert list(reader) == []


def test_events_at_http_1_0(proxy: Any) -> None:
    with Acknowledgements() as acks:
        with EventReader(proxy, "/es/step", version="HTTP/1.0", n=3, ack=acks.path) as reader:
            read_one_by_one(reader, acks, 3)


def test_the_disconnect_is_noticed(proxy: Any, server: Server, key: str) -> None:
    """nginx ends its connection to us as soon as its client has gone."""
    with EventReader(proxy, "/es/listening", key=key, ping="none") as reader:
        assert reader.next().data == "ready"
        cut = time.time()
    wait_until(lambda: len(notes(server, key)) == 2, 5, "the close event")
    what, when, _ = notes(server, key)[1]
    assert what == "close" and when - cut < 1


def test_pings_reach_the_client(proxy: Any) -> None:
    with EventReader(proxy, "/es/blank", ping="0.1", seconds=0.6) as reader:
        data, pieces = b"", reader.pieces()
        while data.count(b":\r\n\r\n") < 3:
            data += next(pieces)


def test_hixie_76(proxy: Any, server: Server) -> None:
    """nginx forwards the head first, and the eight bytes when it has been answered."""
    with DraftPeer(proxy, "/echo?allow_drafts=1") as peer:
        peer.peer.send(peer.head_of(76) + BODY + text("one"))
        assert peer.peer.read_head().status == 101
        assert peer.read(16) == ANSWER
        assert peer.read_text() == "one"
        peer.peer.send(b"\xff\x00")
        assert peer.read(2) == b"\xff\x00"
        peer.peer.read_eof()
