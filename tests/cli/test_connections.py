"""`connections` on the command line: the table, once and on a terminal."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from faye_wsgi.cli.connections import _page, table

from ..conftest import find_program
from ..support.redis import RedisServer
from ..support.servers import Server, serve
from ..support.waiting import wait_until
from ..test_channels_workers import APP, BOUND, Visitor
from ..test_main import Terminal
from .test_channels import run


def row(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "websocket",
        "user": "7",
        "channels": ["room:42", "news"],
        "path": "ws://example.com/chat",
        "age": 12.3,
        "latency": 0.0124,
        "waiting": 0,
        **changes,
    }


def test_a_table_has_a_row_for_each() -> None:
    stream = row(kind="eventsource", user=None, path=None, latency=None, waiting=512, age=7300)
    lines = [re.sub(" {2,}", "|", line) for line in table([row(), stream])]
    assert lines == [
        "2 connections, 1 user: 1 eventsource, 1 websocket",
        "",
        "KIND|USER|PATH|AGE|LATENCY|WAITING|CHANNELS",
        "eventsource|-|-|2 h|-|512|room:42 news",
        "websocket|7|ws://example.com/chat|12 s|12 ms|0|room:42 news",
    ]


def test_a_table_without_rows() -> None:
    assert table([]) == ["0 connections, 0 users"]


def test_no_connection_sends_commands_to_the_terminal() -> None:
    hostile = row(user="\x1b[2Jevil", path="ws://x/\x1b]0;x\x07", channels=["\u202eroom"])
    text = "\n".join(table([hostile]))
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert "\\x1b[2Jevil" in text


def test_a_page_is_no_larger_than_the_terminal() -> None:
    page = _page(["x" * 100] * 50, 80, 24)
    shown = re.sub(r"\x1b\[\w*", "", page).splitlines()
    assert len(shown) == 23 and max(map(len, shown)) == 80
    assert shown[-1] == "... and 28 more"
    assert "more" not in _page(["x"] * 23, 80, 24)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer(find_program("redis-server")) as running:
        yield running


@pytest.fixture(scope="module")
def servers(redis: RedisServer) -> Iterator[list[Server]]:
    """Two, so that each process is met for certain."""
    with contextlib.ExitStack() as stack:
        env = {"CHANNELS": redis.url}
        yield [stack.enter_context(serve("gunicorn-gevent", APP, env=env)) for _ in range(2)]


@pytest.fixture
def visitors(servers: list[Server]) -> Iterator[list[Visitor]]:
    """One in each process."""
    made = [Visitor(server, "room", f"user-{n}") for n, server in enumerate(servers)]
    yield made
    for one in made:
        leave(one)


def leave(visitor: Visitor) -> None:
    visitor.ws.close()
    visitor.ws.wait_closed(BOUND)  # the hub of this thread runs only while it waits


def test_all_processes_in_a_pipe(redis: RedisServer, visitors: list[Visitor]) -> None:
    def asked() -> str:
        result = run("connections", redis.url)
        assert result.returncode == 0 and "\x1b" not in result.stdout, result.stderr
        return result.stdout

    # A process that has just come to the broker is not counted yet.
    users = {one.id for one in visitors}
    wait_until(lambda: users == set(re.findall(r"\buser-\d+", asked())))
    text = asked()
    assert text.startswith("2 connections, 2 users: 2 websocket\n") and " room\n" in text


def test_it_is_drawn_again_on_a_terminal(redis: RedisServer, visitors: list[Visitor]) -> None:
    terminal = Terminal("connections", redis.url)
    try:
        terminal.expect("\x1b[H2 connections, 2 users: ")
        leave(visitors.pop())
        terminal.expect("\x1b[H1 connection, 1 user: ")
        terminal.process.send_signal(signal.SIGINT)
    finally:
        assert terminal.end() == 130
    assert terminal.text.startswith("\x1b[2J\x1b[H") and "Traceback" not in terminal.text


def test_once_on_a_terminal(redis: RedisServer) -> None:
    terminal = Terminal("connections", redis.url, "--once")
    try:
        terminal.expect("connections, ")
    finally:
        assert terminal.end() == 0
    assert "\x1b" not in terminal.text


@pytest.mark.parametrize(
    "url, status, text",
    [
        ("memory://", 64, "channels.connections()"),
        ("https://example.com/", 64, "https"),
        ("redis://127.0.0.1:1/0", 1, "refused"),
    ],
)
def test_no_such_broker(url: str, status: int, text: str) -> None:
    result = run("connections", url)
    assert result.returncode == status and text in result.stderr and not result.stdout
