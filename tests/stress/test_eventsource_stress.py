"""After 5,000 event streams that ended in every way, nothing is left of them."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator
from typing import Callable

import pytest

from ..support.servers import Server
from ..support.servers import serve as run_server
from .harness import Client, held, run_all, stats, wait_for_held
from .test_leaks import settled

TOTAL = 5000
MEGABYTE = 1 << 20
KEYS = itertools.count()


def ask(client: Client, target: str) -> None:
    head = f"GET /es/{target} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
    client.send(head.encode())


def read_to(client: Client, text: bytes) -> None:
    data = b""
    while text not in data:
        piece = client.recv(65536)
        if not piece:
            raise EOFError(f"the stream ended before {text!r}: {data!r}")
        data += piece


def cut_detached(client: Client) -> None:
    ask(client, "listening?ping=30")
    read_to(client, b"ready")


def cut_blocking(client: Client) -> None:
    ask(client, "waiting?ping=30")
    read_to(client, b"ready")


def cut_at_once(client: Client) -> None:
    ask(client, "listening")


def reset_detached(client: Client) -> None:
    cut_detached(client)
    client.reset()


def reset_blocking(client: Client) -> None:
    cut_blocking(client)
    client.reset()


def reset_at_once(client: Client) -> None:
    ask(client, "waiting")
    client.reset()


def half_closed(client: Client) -> None:
    cut_detached(client)
    client.sock.shutdown(socket.SHUT_WR)
    client.read_eof()


def chatty_client(client: Client) -> None:
    """What a client says meanwhile is nothing to us."""
    cut_detached(client)
    client.send(b"x" * 50_000)


def cut_while_the_sender_is_blocked(client: Client) -> None:
    ask(client, "amount?n=200&size=50000")
    client.recv(100)


def reset_while_the_sender_is_blocked(client: Client) -> None:
    cut_while_the_sender_is_blocked(client)
    client.reset()


def cut_in_a_loop(client: Client) -> None:
    ask(client, "looping?ping=0.02")
    read_to(client, b"tick 2")


def closed_by_the_view(client: Client) -> None:
    ask(client, "close_twice")
    client.read_eof()


def held_by_nobody(client: Client) -> None:
    ask(client, "dropped")
    client.read_eof()


def held_and_cut(client: Client) -> None:
    """The application still holds a stream that was cut; it lets go later."""
    key = next(KEYS)
    ask(client, f"held?key={key}")
    read_to(client, b"held")
    client.close()
    tell(client.server, f"/es/drop?key={key}")


def held_and_closed(client: Client) -> None:
    key = next(KEYS)
    ask(client, f"held?key={key}")
    read_to(client, b"held")
    tell(client.server, f"/es/close?key={key}")
    client.read_eof()


def tell(server: Server, target: str) -> None:
    with Client(server) as other:
        other.send(f"GET {target} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        other.read_eof()


def raised(client: Client) -> None:
    ask(client, "raise")
    client.read_eof()


ENDINGS: list[Callable[[Client], None]] = [
    cut_detached,
    cut_blocking,
    cut_at_once,
    reset_detached,
    reset_blocking,
    reset_at_once,
    half_closed,
    chatty_client,
    cut_while_the_sender_is_blocked,
    reset_while_the_sender_is_blocked,
    cut_in_a_loop,
    closed_by_the_view,
    held_by_nobody,
    held_and_cut,
    held_and_closed,
    raised,
]
BLOCKED = [cut_while_the_sender_is_blocked, reset_while_the_sender_is_blocked]


@pytest.fixture(params=["gunicorn-gevent", "pywsgi-unpatched"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    # gunicorn ends a connection that sends no request within its keep-alive: a busy machine's do.
    options = ["--worker-connections", "4000", "--keep-alive", "60"]
    options = options if "gunicorn" in request.param else []
    with run_server(request.param, options=options) as running:
        yield running


def job(server: Server, ending: Callable[[Client], None]) -> None:
    with Client(server) as client:
        try:
            ending(client)
        except Exception as error:
            raise AssertionError(f"{ending.__name__}: {error!r}") from error


def test_nothing_is_left_of_five_thousand_streams(server: Server) -> None:
    run_all([lambda ending=ending: job(server, ending) for ending in ENDINGS * 4])
    wait_for_held(server, settled(server))
    before, resident = held(server), stats(server)["rss"]
    # Filling the kernel's buffers takes long: the others are more.
    mixed = [ending for ending in ENDINGS if ending not in BLOCKED] * 8 + BLOCKED
    load = [mixed[number % len(mixed)] for number in range(TOTAL)]
    random.Random(1).shuffle(load)
    run_all([lambda ending=ending: job(server, ending) for ending in load], at_once=100)
    wait_for_held(server, before)
    assert stats(server)["rss"] - resident < 16 * MEGABYTE
    if "gunicorn" in server.kind:  # pywsgi logs a client that resets before its request is over
        complaints = server.log().count("Traceback")
        assert complaints == load.count(raised) + 4, "those of the views that raise"


def test_streams_of_threads() -> None:
    """A thread has a hub of its own, which must go with it."""
    with run_server("gunicorn-gthread") as server:
        run_all([lambda ending=ending: job(server, ending) for ending in ENDINGS], at_once=8)
        before = settled(server)
        load = ENDINGS * 12
        run_all([lambda ending=ending: job(server, ending) for ending in load], at_once=8)
        # The pool of threads grows up to its size, and stays.
        wait_for_held(server, {**before, "threads": held(server)["threads"]})
