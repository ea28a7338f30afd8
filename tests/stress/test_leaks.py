"""After 5,000 connections of every kind of ending, nothing is left of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Callable

import pytest

from ..support import frames
from ..support.servers import Server
from ..support.servers import serve as run_server
from .harness import APP, Client, ends, run_all, settled, stats, wait_for_held

TOTAL = 5000
MEGABYTE = 1 << 20
BLOCKING, DETACHED = "/counted_echo", "/counted_events"
STYLES = (BLOCKING, DETACHED)


def clean_close(client: Client, style: str) -> None:
    client.open(style)
    client.echo()
    client.finish()


def servers_close(client: Client, style: str) -> None:
    client.open("/close_in_view" if style == BLOCKING else "/close_in_listener")
    client.text("go")
    assert client.read_close() == 4000
    client.send(frames.close(4000))
    client.read_eof()


def reset(client: Client, style: str) -> None:
    client.open(style)
    client.echo()
    client.reset()


def reset_in_the_middle(client: Client, style: str) -> None:
    """With a message on its way, and half of another sent."""
    client.open(style)
    client.send(frames.text("one") + frames.text("x" * 200)[:50])
    client.reset()


def fin(client: Client, style: str) -> None:
    client.open(style)
    client.echo()
    client.close()


def protocol_error(client: Client, style: str) -> None:
    client.open(style)
    client.send(frames.frame(3))
    assert client.read_close() == 1002
    client.read_eof()


def too_big(client: Client, style: str) -> None:
    client.open(style + "?max_length=100")
    client.send(frames.text("x" * 101))
    assert client.read_close() == 1009
    client.read_eof()


def bad_request(client: Client, style: str) -> None:
    assert client.request(style, {"Sec-WebSocket-Key": "short"}) == 400


def bad_version(client: Client, style: str) -> None:
    assert client.request(style, {"Sec-WebSocket-Version": "12"}) == 426


def bad_origin(client: Client, style: str) -> None:
    assert client.request(style, {"Origin": "http://elsewhere.example"}) == 403


def exception(client: Client, style: str) -> None:
    client.open("/raise_in_view" if style == BLOCKING else "/raise")
    client.text("go")
    assert client.read_close() == 1011
    client.send(frames.close(1011))
    client.read_eof()


def early_return(client: Client, style: str) -> None:
    client.open("/early")
    assert client.read_close() == 1000
    client.send(frames.close(1000))
    client.read_eof()


def silent(client: Client, style: str) -> None:
    client.open(style + "?ping=0.2&ping_timeout=0.2")
    client.read_eof()


def never_answered(client: Client, style: str) -> None:
    view = "/close_in_view" if style == BLOCKING else "/close_in_listener"
    client.open(view + "?close_timeout=0.2")
    client.text("go")
    client.read_eof()


def blocked(client: Client, style: str) -> None:
    """The end finds the sender blocked."""
    view = "/push_in_view" if style == BLOCKING else "/push_in_listener"
    client.open(view + "?n=100&size=100000")
    client.text("go")
    client.recv(10)
    client.close()


# Those that come to a close event, which the views count.
COUNTED = [clean_close, servers_close, reset, reset_in_the_middle, fin, protocol_error, too_big]
COUNTED += [silent, never_answered, blocked, bad_request, bad_version, bad_origin]
OTHERS = [exception, early_return]
ENDINGS = COUNTED + OTHERS


@pytest.fixture
def server() -> Iterator[Server]:
    options = ["--worker-connections", "4000"]
    with run_server("gunicorn-gevent", APP, options=options) as running:
        yield running


def job(server: Server, ending: Callable[[Client, str], None], style: str) -> None:
    with Client(server) as client:
        try:
            ending(client, style)
        except Exception as error:
            raise AssertionError(f"{ending.__name__} of {style}: {error!r}") from error


def test_nothing_is_left_of_five_thousand_connections(server: Server) -> None:
    warm_up = [(ending, style) for ending in ENDINGS for style in STYLES]
    run_all([lambda e=e, s=s: job(server, e, s) for e, s in warm_up])
    before, counted = settled(server), sum(ends(server).values())

    load = [warm_up[n % len(warm_up)] for n in range(TOTAL)]
    random.Random(1).shuffle(load)
    sizes = []
    for part in (load[: TOTAL // 2], load[TOTAL // 2 :]):
        run_all([lambda e=e, s=s: job(server, e, s) for e, s in part], at_once=200)
        wait_for_held(server, before)
        sizes.append(stats(server)["rss"])
    assert sizes[1] - sizes[0] < 4 * MEGABYTE, "what it holds that nothing counts"
    expected = sum(ending in COUNTED for ending, _ in load)
    assert sum(ends(server).values()) - counted == expected, "one close event for each"
