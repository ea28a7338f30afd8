"""permessage-deflate between us and others, in every combination of its parameters.

Our server and our client, each with Node's ws, Node's faye-websocket (with its package
permessage-deflate) and Python's websockets. `asker` says whose options lead to the parameters:
a client can ask for them in its offer, a server in its response.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from faye_wsgi import Client
from faye_wsgi.extensions.permessage_deflate import permessage_deflate
from faye_wsgi.http.headers import parse_extensions

from ..extensions.fakes import Reverse
from ..support.servers import Server, serve
from .test_client_interop import NODE, TIMEOUT

APP = "tests.support.apps.deflate:application"
DEFLATE = "permessage-deflate"
KINDS = ["ws", "faye-websocket", "websockets"]
TAKEOVERS = ["", "server_no", "client_no", "server_no client_no"]
Parameters = dict[str, Any]


def text(size: int) -> str:
    rows: list[dict[str, Any]] = []
    length = 0
    while length < size:
        number = len(rows)
        price = number * 104729 % 10007 / 100
        rows.append({"id": number, "name": f"name {number * 7919 % 1000}", "price": price})
        length += len(json.dumps(rows[-1]))
    return json.dumps(rows)


def binary(size: int) -> bytes:
    """Noise and order in turns."""
    block = bytes(number * number * 31 % 251 for number in range(32768))
    return b"".join(bytes([n & 255]) * 32768 + block[n:] + block[:n] for n in range(size >> 16))


MESSAGES: list[Any] = [
    "",
    "hello",
    text(1 << 16),
    binary(1 << 20),
    "grüße 🎉",
    b"",
    text(1 << 16),
    "hello",
]


# ---------------------------------------------------------------- the others


class Node:
    """Node's libraries: a server of both, and a client of either at our command."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.port = int(self.read())

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def run(self, **job: Any) -> Parameters:
        """Lets it be a client; what happened."""
        assert self.process.stdin is not None
        killer = threading.Timer(TIMEOUT, self.process.kill)
        killer.start()
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            return dict(json.loads(self.read() or '{"faults": ["no answer in time"]}'))
        finally:
            killer.cancel()


def install() -> None:
    """Fetch what node/package.json names, once."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    if (NODE / "node_modules" / DEFLATE).exists():
        return
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
    try:
        result = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install in time")
    if result.returncode:
        pytest.skip(f"npm could not install: {result.stderr[-200:]}")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    install()
    with subprocess.Popen(
        ["node", str(NODE / "deflate.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Node(process)
        finally:
            process.kill()


@contextlib.contextmanager
def websockets_server(options: Parameters) -> Iterator[str]:
    """A server of the websockets library in a thread; its URL."""
    sync = pytest.importorskip("websockets.sync.server")
    deflate = pytest.importorskip("websockets.extensions.permessage_deflate")

    def handle(connection: Any) -> None:
        for message in connection:
            if message != "fragments":
                connection.send(message)
                continue
            connection.send(between(connection, ["one ", "one " * 5000, "two"]))

    factory = deflate.ServerPerMessageDeflateFactory(**options)
    with sync.serve(handle, "127.0.0.1", 0, extensions=[factory], max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(TIMEOUT)


def between(connection: Any, pieces: list[str]) -> Iterator[str]:
    """The pieces of a message, with a ping after each."""
    for piece in pieces:
        yield piece
        connection.ping()


# ---------------------------------------------------------------- parameters

# Each library's words for the same four parameters.


def ws_options(takeover: str, bits: int, role: str, asks: bool) -> Parameters:
    if not asks:
        return {}
    options: Parameters = {}
    if "server_no" in takeover:
        options["serverNoContextTakeover"] = True
    if "client_no" in takeover:
        options["clientNoContextTakeover"] = True
    return {**options, "serverMaxWindowBits": bits, "clientMaxWindowBits": bits}


def faye_options(takeover: str, bits: int, role: str, asks: bool) -> Parameters:
    if not asks:
        return {}
    other = "client" if role == "server" else "server"
    return {
        "noContextTakeover": f"{role}_no" in takeover,
        "requestNoContextTakeover": f"{other}_no" in takeover,
        "maxWindowBits": bits,
        "requestMaxWindowBits": bits,
    }


def websockets_options(takeover: str, bits: int, role: str, asks: bool) -> Parameters:
    if not asks:
        return {}
    return {
        "server_no_context_takeover": "server_no" in takeover,
        "client_no_context_takeover": "client_no" in takeover,
        "server_max_window_bits": bits,
        "client_max_window_bits": bits,
    }


OPTIONS = {
    "ws": ws_options,
    "faye-websocket": faye_options,
    "websockets": websockets_options,
}


def server_path(takeover: str, bits: int, asks: bool) -> str:
    """Where our server agrees to that."""
    values: Parameters = {"threshold": 6}  # 'hello' goes as it is
    if asks:
        values.update(dict.fromkeys(takeover.split(), 1), bits=bits)
    return "/echo?" + urlencode(values)


def check_agreement(header: str, takeover: str, bits: int) -> None:
    """What was agreed on is what was asked for. A server need not say its own window."""
    ((name, params),) = parse_extensions(header)
    assert name == DEFLATE
    for role in ("server", "client"):
        assert (f"{role}_no_context_takeover" in params) == (f"{role}_no" in takeover), header
    assert params.get("client_max_window_bits", "15") == str(bits), header
    assert params.get("server_max_window_bits", str(bits)) == str(bits), header


combinations = pytest.mark.parametrize(
    ("takeover", "bits"),
    [(takeover, bits) for takeover in TAKEOVERS for bits in (9, 12, 15)],
    ids=lambda value: str(value).replace(" ", "-") or "takeover",
)
askers = pytest.mark.parametrize("asker", ["client", "server"])


# ---------------------------------------------------------------- our server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("gunicorn-gevent", APP) as running:
        yield running
    assert "Traceback" not in running.log()


@askers
@combinations
@pytest.mark.parametrize("kind", ["ws", "faye-websocket"])
def test_our_server_with_node(
    server: Server, node: Node, kind: str, takeover: str, bits: int, asker: str
) -> None:
    url = server.url(server_path(takeover, bits, asker == "server"), "ws")
    options = OPTIONS[kind](takeover, bits, "client", asker == "client")
    result = node.run(kind=kind, url=url, options=options)
    assert result["faults"] == [] and result["missing"] == 0, result
    assert result["code"] == 1000
    assert result["pongs"] >= 1
    if kind == "faye-websocket":
        check_agreement(result["extensions"], takeover, bits)
    else:
        assert result["extensions"] == DEFLATE


@askers
@combinations
def test_our_server_with_websockets(server: Server, takeover: str, bits: int, asker: str) -> None:
    sync = pytest.importorskip("websockets.sync.client")
    deflate = pytest.importorskip("websockets.extensions.permessage_deflate")
    url = server.url(server_path(takeover, bits, asker == "server"), "ws")
    options = websockets_options(takeover, bits, "client", asker == "client")
    factory = deflate.ClientPerMessageDeflateFactory(**options)
    with sync.connect(url, extensions=[factory], compression=None, max_size=None) as ws:
        check_agreement(ws.response.headers["Sec-WebSocket-Extensions"], takeover, bits)
        for message in MESSAGES:
            ws.send(message)
            assert ws.recv(TIMEOUT) == message
        ws.send(between(ws, ["one ", "one " * 5000, "two"]))
        assert ws.recv(TIMEOUT) == "one " * 5001 + "two"
    assert ws.close_code == 1000


# ---------------------------------------------------------------- our client


@contextlib.contextmanager
def their_server(kind: str, options: Parameters, request: pytest.FixtureRequest) -> Iterator[str]:
    if kind == "websockets":
        with websockets_server(options) as url:
            yield url
    else:
        path = "ws" if kind == "ws" else "faye"
        port = request.getfixturevalue("node").port
        yield f"ws://127.0.0.1:{port}/{path}?{quote(json.dumps(options))}"


@askers
@combinations
@pytest.mark.parametrize("kind", KINDS)
def test_our_client(
    kind: str, takeover: str, bits: int, asker: str, request: pytest.FixtureRequest
) -> None:
    ours = permessage_deflate.configure(threshold=6)
    if asker == "client":
        ours = ours.configure(
            no_context_takeover="client_no" in takeover,
            request_no_context_takeover="server_no" in takeover,
            max_window_bits=bits,
            request_max_window_bits=bits,
        )
    theirs = OPTIONS[kind](takeover, bits, "server", asker == "server")
    with their_server(kind, theirs, request) as url:
        with Client(url, extensions=ours) as ws:
            ws.wait_open(TIMEOUT)
            check_client_agreement(ws, takeover, bits, asker)
            for message in MESSAGES:
                ws.ping("between")
                ws.send(message)
            for message in MESSAGES:
                assert ws.receive(TIMEOUT) == message
            if kind != "faye-websocket":  # which sends no fragments
                ws.send("fragments")
                assert ws.receive(TIMEOUT) == "one " * 5001 + "two"
        ws.wait_closed(TIMEOUT)
        assert ws.close_code == 1000


def check_client_agreement(ws: Client, takeover: str, bits: int, asker: str) -> None:
    header = ws.headers["Sec-WebSocket-Extensions"]
    if asker == "server":
        check_agreement(header, takeover, bits)
        return
    # A server need not repeat what a client says of itself.
    ((name, params),) = parse_extensions(header)
    assert name == DEFLATE
    assert ("server_no_context_takeover" in params) == ("server_no" in takeover), header
    assert params.get("server_max_window_bits", "15") == str(bits), header


# ---------------------------------------------------------------- both


@combinations
def test_with_another_extension(server: Server, takeover: str, bits: int) -> None:
    """One of a third party on RSV2, which turns messages around before they are compressed."""
    ours = [Reverse(), permessage_deflate.configure(threshold=6)]
    url = server.url(server_path(takeover, bits, True) + "&reverse=1", "ws")
    with Client(url, extensions=ours) as ws:
        ws.wait_open(TIMEOUT)
        header = ws.headers["Sec-WebSocket-Extensions"]
        assert [name for name, _ in parse_extensions(header)] == ["permessage-x", DEFLATE]
        for message in (*MESSAGES, "a" * 100, b"\0\1" * 100):
            ws.send(message)
            assert ws.receive(TIMEOUT) == message
    ws.wait_closed(TIMEOUT)
    assert ws.close_code == 1000
