"""Peers that do not read, do not answer, or send nonsense: they harm themselves alone."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import gevent
import gevent.socket
import pytest

from ..support import frames
from ..support.servers import Server
from ..support.waiting import wait_until
from .harness import Client, ends, huge_frame, run_all, stats

MEGABYTE = 1 << 20


@pytest.fixture
def bystanders(clean: Server) -> Iterator[list[Client]]:
    """Connections that must not notice anything."""
    paths = ["/echo", "/events"] * 5
    clients = [Client(clean).open(path) for path in paths]
    yield clients
    check(clients)
    for client in clients:
        client.finish()


def check(clients: list[Client], seconds: float = 2.0) -> None:
    """All of them are answered, soon."""
    started = time.monotonic()
    run_all([client.echo for client in clients])
    assert time.monotonic() - started < seconds


# Peers that do not read


@pytest.mark.parametrize("path", ["/push_in_view", "/push_in_listener"])
def test_a_peer_that_does_not_read(clean: Server, bystanders: list[Client], path: str) -> None:
    """A gigabyte is meant for it; the sender blocks, and the rest goes on."""
    before, ended = stats(clean)["rss"], ends(clean)
    client = Client(clean).open(f"{path}?n=10000&size=100000")
    client.text("go")
    for _ in range(5):
        gevent.sleep(0.1)
        check(bystanders)
    assert stats(clean)["rss"] - before < 4 * MEGABYTE
    client.close()
    wait_until(lambda: count(ends(clean), "1006") == count(ended, "1006") + 1)


def count(ended: dict[str, int], code: str) -> int:
    return ended.get(code, 0)


@pytest.mark.parametrize("path", ["/counted_echo", "/counted_events"])
def test_a_peer_that_sends_and_does_not_read(
    clean: Server, bystanders: list[Client], path: str
) -> None:
    """Its echoes have nowhere to go, so it is held back itself."""
    before, ended = stats(clean)["rss"], ends(clean)
    client = Client(clean, timeout=0.5).open(path)
    with pytest.raises(socket.timeout):
        for _ in range(1000):
            client.send(huge_frame(frames.BINARY, b"x" * 100_000))
    check(bystanders)
    assert stats(clean)["rss"] - before < 24 * MEGABYTE, "64 messages may wait in its queue"
    client.close()
    wait_until(lambda: count(ends(clean), "1006") == count(ended, "1006") + 1)


def test_a_peer_that_reads_again_gets_everything(clean: Server) -> None:
    with Client(clean) as client:
        client.open("/push_in_listener?n=300&size=100000")
        client.text("go")
        gevent.sleep(0.3)
        assert all(len(client.read().payload) == 100_000 for _ in range(300))
        client.finish()


# Views that do not read


def test_a_view_that_does_not_read_holds_its_peer_back(
    clean: Server, bystanders: list[Client]
) -> None:
    before = stats(clean)["rss"]
    with Client(clean) as client:
        client.open("/tardy?delay=1.0&max_queue=8")
        sender = gevent.spawn(client.send, huge_frame(frames.BINARY, b"x" * 65536) * 400)
        gevent.sleep(0.6)
        assert not sender.ready(), "TCP pushes back"
        assert stats(clean)["rss"] - before < 6 * MEGABYTE
        check(bystanders)
        sender.get(timeout=10)
        client.text("count")
        assert client.read().text == "400"
        client.finish()


# Pings


@pytest.mark.parametrize("path", ["/counted_echo", "/counted_events"])
def test_a_flood_of_pings_that_does_not_read(
    clean: Server, bystanders: list[Client], path: str
) -> None:
    before = stats(clean)["rss"]
    flood = frames.frame(frames.PING, b"p" * 125) * 1000
    client = Client(clean).open(path)
    for _ in range(150):
        client.send(flood)
    check(bystanders)
    assert stats(clean)["rss"] - before < 4 * MEGABYTE
    client.reset()


@pytest.mark.parametrize("path", ["/echo", "/events"])
def test_each_ping_has_its_own_pong(clean: Server, path: str) -> None:
    with Client(clean) as client:
        client.open(path)
        for start in range(0, 1000, 100):
            pings = [frames.frame(frames.PING, b"%d" % n) for n in range(start, start + 100)]
            client.send(b"".join(pings))
            for n in range(start, start + 100):
                assert client.read()[:2] == (frames.PONG, b"%d" % n)
        client.echo("still here")
        client.finish()


def test_a_flood_of_pings_that_reads(clean: Server, bystanders: list[Client]) -> None:
    total = 100_000
    with Client(clean) as client:
        client.open("/events")
        block = 1000
        data = [
            b"".join(frames.frame(frames.PING, b"%08d" % n, mask=None) for n in range(a, a + block))
            for a in range(0, total, block)
        ]
        masked = [masked_pings(block_of) for block_of in data]
        sender = gevent.spawn(lambda: [client.send(piece) for piece in masked])
        # It may read too slowly now and then; what is answered then is the latest ping.
        latest = -1
        while latest < total - 1:
            frame = client.read()
            assert frame.opcode == frames.PONG and int(frame.payload) > latest
            latest = int(frame.payload)
        sender.get(timeout=10)
        client.echo("still here")
        client.finish()


def masked_pings(block: bytes) -> bytes:
    """The same frames of 8 bytes, with a key of zeros."""
    return b"".join(
        b"\x89\x88\0\0\0\0" + block[start + 2 : start + 10] for start in range(0, len(block), 10)
    )


# Peers that vanish


@pytest.mark.parametrize("path", ["/counted_echo", "/counted_events"])
def test_a_peer_that_vanishes_without_fin(clean: Server, path: str) -> None:
    """It stays connected, reads nothing and says nothing."""
    ended = ends(clean)
    clients = [Client(clean).open(f"{path}?ping=0.2&ping_timeout=0.3") for _ in range(20)]
    wait_until(lambda: count(ends(clean), "1006") == count(ended, "1006") + 20, 3, "all given up")
    for client in clients:
        client.close()


def test_a_peer_that_vanishes_in_the_middle_of_a_push(clean: Server) -> None:
    """The send that blocks on it ends too."""
    ended = ends(clean)
    path = "/push_in_view?n=10000&size=100000&ping=0.2&ping_timeout=0.3"
    client = Client(clean).open(path)
    wait_until(lambda: count(ends(clean), "1006") == count(ended, "1006") + 1, 3)
    client.close()


@pytest.mark.parametrize("path", ["/close_in_view", "/close_in_listener"])
def test_a_close_that_is_never_answered(clean: Server, path: str) -> None:
    ended = ends(clean)
    client = Client(clean).open(f"{path}?close_timeout=0.3")
    client.text("go")
    assert client.read_close() == 4000
    wait_until(lambda: count(ends(clean), "1006") == count(ended, "1006") + 1, 3)
    client.close()


def test_half_closed(clean: Server) -> None:
    """FIN with the answers still to come: they come."""
    with Client(clean) as client:
        client.open("/echo")
        client.send(b"".join(frames.text(str(n)) for n in range(50)) + frames.close(1000))
        client.sock.shutdown(1)
        assert [client.read().text for _ in range(50)] == [str(n) for n in range(50)]
        assert client.read_close() == 1000
        client.read_eof()


# Nonsense

HEADER = b"\x82\xff"
NONSENSE = [
    ("unmasked", frames.text("hello", mask=None), 1002),
    ("rsv", frames.text("hello", rsv=4), 1002),
    ("opcode", frames.frame(3, b""), 1002),
    ("control opcode", frames.frame(11, b""), 1002),
    ("long ping", frames.frame(frames.PING, b"x" * 126), 1002),
    ("fragmented close", frames.frame(frames.CLOSE, b"", fin=False), 1002),
    ("stray continuation", frames.frame(frames.CONTINUATION, b"x"), 1002),
    ("text in text", frames.text("a", fin=False) + frames.text("b"), 1002),
    ("bad utf-8", frames.frame(frames.TEXT, b"\xc3\x28"), 1007),
    ("bad utf-8, unfinished", frames.frame(frames.TEXT, b"\xf5", fin=False), 1007),
    ("too long", HEADER + (1 << 40).to_bytes(8, "big") + b"abcd", 1009),
    ("length with its top bit", HEADER + b"\xff" * 8 + b"abcd", 1002),
    ("length badly encoded", frames.frame(frames.TEXT, b"x", length_form=64), 1002),
    ("close of one byte", frames.frame(frames.CLOSE, b"\x03"), 1002),
    ("close 1006", frames.close(1006), 1002),
    ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    ("noise", b"\xff" + os.urandom(5000), 1002),
]


@pytest.mark.parametrize("path", ["/echo", "/events"])
def test_nonsense(clean: Server, bystanders: list[Client], path: str) -> None:
    for name, bad, code in NONSENSE:
        with Client(clean) as client:
            client.open(path)
            client.echo("before")
            client.send(bad)
            assert client.read_close() == code, name
            client.read_eof()


def test_a_megabyte_after_the_mistake_does_not_hide_the_close_frame(clean: Server) -> None:
    """TCP resets a connection that is closed with bytes unread; the peer would see only that."""
    with Client(clean) as client:
        client.open("/events")
        sender = gevent.spawn(send_quietly, client, frames.frame(3) + b"x" * MEGABYTE)
        assert client.read_close() == 1002
        sender.join(10)


def send_quietly(client: Client, data: bytes) -> None:
    try:
        client.send(data)
    except OSError:
        pass


def test_too_many_fragments(clean: Server) -> None:
    with Client(clean) as client:
        client.open("/echo?max_fragments=100")
        pieces = [frames.text("", fin=False)] + [frames.frame(0, b"", fin=False)] * 200
        client.send(b"".join(pieces))
        assert client.read_close() == 1009
        client.read_eof()
