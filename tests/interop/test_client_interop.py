"""Our client against the servers of others: Python's websockets, Node's ws and faye-websocket."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent.event
import pytest

from faye_wsgi import Client, HandshakeError
from faye_wsgi.extensions.permessage_deflate import PermessageDeflate

from ..support.servers import ROOT

NODE = Path(__file__).parent / "node"
TIMEOUT = 10.0


@functools.cache
def install_node_servers() -> str:
    """Fetch them once; what is missing, '' if nothing is."""
    for name in ("node", "npm"):
        if not shutil.which(name):
            return f"{name} is not installed"
    if (NODE / "node_modules" / "ws").exists():
        return ""
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        result = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=90)
        return "" if result.returncode == 0 else f"npm could not install: {result.stderr[-200:]}"
    return "npm did not install in time"


def command(kind: str) -> list[str]:
    if kind == "websockets":
        if importlib.util.find_spec("websockets.sync") is None:
            pytest.skip("the websockets library is not installed, or too old")
        return [sys.executable, "-m", "tests.interop.python_server"]
    missing = install_node_servers()
    if missing:
        pytest.skip(missing)
    return ["node", str(NODE / "server.js"), kind]


@pytest.fixture(scope="module", params=["websockets", "ws", "faye-websocket"])
def server(request: Any) -> Iterator[str]:
    """The URL of a server of each kind, without a path."""
    with subprocess.Popen(
        command(request.param), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield f"ws://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def finish(ws: Client, code: int = 1000) -> None:
    ws.wait_closed(TIMEOUT)
    assert ws.close_code == code


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "é€😀" * 100,
        "x" * 125,
        "x" * 126,
        "x" * 65536,
        "x" * 900_000,
        b"",
        b"\0\xff",
        bytes(range(256)) * 300,
    ],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_echo(server: str, message: Any) -> None:
    with Client(f"{server}/echo") as ws:
        ws.send(message)
        assert ws.receive(TIMEOUT) == message
    finish(ws)


def test_many_messages(server: str) -> None:
    messages = [f"{number}" * (number % 50) for number in range(2000)]
    with Client(f"{server}/echo") as ws:
        for message in messages:
            ws.send(message)
        assert [ws.receive(TIMEOUT) for _ in messages] == messages
    finish(ws)


def test_deflate(server: str, request: pytest.FixtureRequest) -> None:
    if "faye-websocket" in request.node.name:
        pytest.skip("faye-websocket compresses with a further package only")
    with Client(f"{server}/echo", extensions=PermessageDeflate()) as ws:
        assert "permessage-deflate" in ws.headers["Sec-WebSocket-Extensions"]
        for message in ("x", "hello " * 10_000, b"\0\xff" * 50_000, "", "hello " * 10):
            ws.send(message)
            assert ws.receive(TIMEOUT) == message
    finish(ws)


def test_fragments_of_ours(server: str) -> None:
    with Client(f"{server}/echo") as ws:
        ws.send(iter(["one ", "two ", "three"]))
        assert ws.receive(TIMEOUT) == "one two three"
    finish(ws)


def test_fragments_of_theirs(server: str, request: pytest.FixtureRequest) -> None:
    if "faye-websocket" in request.node.name:
        pytest.skip("faye-websocket sends no fragments")
    with Client(f"{server}/fragments") as ws:
        assert ws.receive(TIMEOUT) == "one two three"
    finish(ws)


def test_subprotocols(server: str) -> None:
    with Client(f"{server}/echo", ["mqtt", "amqp"]) as ws:
        assert ws.protocol == "amqp"
    finish(ws)


def test_our_ping(server: str) -> None:
    with Client(f"{server}/echo") as ws:
        pong = gevent.event.Event()
        assert ws.ping("hello", pong.set)
        assert pong.wait(TIMEOUT)
    finish(ws)


def test_their_ping(server: str) -> None:
    with Client(f"{server}/ping") as ws:
        assert ws.receive(TIMEOUT) == "pong hello"
    finish(ws)


def test_their_close(server: str) -> None:
    ws = Client(f"{server}/close")
    assert list(ws) == []
    finish(ws, 4001)
    assert ws.close_reason == "because"


def test_our_close(server: str) -> None:
    ws = Client(f"{server}/echo")
    ws.wait_open(TIMEOUT)
    ws.close(3001, "enough")
    finish(ws, 3001)


def test_their_end_without_a_close(server: str) -> None:
    ws = Client(f"{server}/terminate")
    ws.wait_open(TIMEOUT)
    finish(ws, 1006)


def test_tls_to_a_server_without_it(server: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        Client(f"{server}/echo".replace("ws:", "wss:")).receive(TIMEOUT)
    assert caught.value.code == 1006
