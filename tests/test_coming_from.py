"""docs/coming-from.md is true: both sides of a comparison hold the same conversation, old code
fails as the page says, and the names in its tables exist.

The other libraries' side runs where they are installed.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from flask import Flask

from faye_wsgi import Client, ConnectionClosed, WebSocket
from faye_wsgi.flask import route, websocket
from faye_wsgi.testing import connect

from .support.servers import serve
from .support.waiting import wait_until
from .test_layers import fresh_python
from .test_readme import ROOT, Block, blocks

PAGE = ROOT / "docs/coming-from.md"
TEXT = PAGE.read_text("utf-8")
BLOCKS = blocks(PAGE)
GEVENT_WEBSOCKET = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"

Talk = Callable[[Any], None]


def greet(ws: Any) -> None:
    assert ws.receive(timeout=5) == "welcome to tea"
    echo(ws)


def echo(ws: Any) -> None:
    for text in ("one", "two"):
        ws.send(text)
        assert ws.receive(timeout=5) == text


# The other library, a part of the code for it, the path, and the conversation.
PAIRS = [
    pytest.param("flask_sock", "from flask_sock import", "/rooms/tea", greet, id="flask-sock"),
    pytest.param("geventwebsocket", "wsgi.websocket", "/", echo, id="gevent-websocket"),
]


def pair(part: str) -> tuple[Block, Block]:
    """The block of the other library with this part, and ours beside it."""
    (place,) = (n for n, block in enumerate(BLOCKS) if part in block.code)
    return BLOCKS[place], BLOCKS[place + 1]


def run(block: Block) -> dict[str, Any]:
    """The names that a block defines."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile("\n" * (block.line - 1) + block.code, block.page, "exec"), names)
    return names


def application(names: dict[str, Any]) -> Any:
    return names["app"].test_client() if "app" in names else names["application"]


@pytest.mark.parametrize("library, part, path, talk", PAIRS)
def test_our_side(library: str, part: str, path: str, talk: Talk) -> None:
    with connect(application(run(pair(part)[1])), path) as ws:
        talk(ws)
    assert ws.close_code == 1000


@pytest.mark.parametrize("library, part, path, talk", PAIRS)
def test_their_side(library: str, part: str, path: str, talk: Talk, tmp_path: Path) -> None:
    pytest.importorskip(library)
    code = pair(part)[0].code
    (tmp_path / "theirs.py").write_text(code, "utf-8")
    name = "app" if library == "flask_sock" else "application"
    options = [] if library == "flask_sock" else ["-k", GEVENT_WEBSOCKET]
    with serve("gunicorn-gevent", f"theirs:{name}", cwd=tmp_path, options=options) as server:
        # A page of another site: neither of them looks at the origin.
        headers = {"Origin": "https://elsewhere.example"}
        with Client(server.url(path, "ws"), headers=headers) as ws:
            talk(ws)


def test_events_on_our_side() -> None:
    names = run(pair("flask_socketio")[1])
    client = names["app"].test_client()
    with connect(client, "/chat") as ada, connect(client, "/chat") as ben:
        wait_until(lambda: len(names["members"]) == 2)
        ada.send_json({"event": "say", "data": {"text": "hi"}})
        for ws in (ada, ben):
            assert ws.receive_json() == {"event": "said", "data": {"text": "hi"}}
    assert names["members"] == set()


def test_events_on_their_side() -> None:
    pytest.importorskip("flask_socketio")
    names = run(pair("flask_socketio")[0])
    ada, ben = (names["socketio"].test_client(names["app"]) for _ in range(2))
    ada.emit("say", {"text": "hi"})
    for person in (ada, ben):
        (event,) = person.get_received()
        assert event["name"] == "said" and event["args"] == [{"text": "hi"}]


def test_the_background_task() -> None:
    (block,) = (block for block in BLOCKS if "def tick" in block.code)
    test = """
from faye_wsgi.testing import connect

with connect(app.test_client(), "/clock", keeps=["threads"]) as ws:
    print(ws.receive())
"""
    assert fresh_python(block.code + test).count(":") == 2  # its thread ends with the process


# Old code


def outcome(view: Callable[[Any], object], leave: bool = True) -> Exception | None:
    """What a view raises while its peer sends one message, and then leaves or waits."""
    app = Flask(__name__)
    raised: list[Exception] = []

    @route(app, "/")
    def outer(ws: WebSocket) -> None:
        try:
            view(ws)
        except Exception as error:
            raised.append(error)

    with connect(app.test_client(), "/") as ws:
        with contextlib.suppress(ConnectionClosed):  # the view may have ended before
            ws.send("a message")
        if not leave:
            ws.wait_closed(5)
    return raised[0] if raised else None


def wait_for_none(ws: Any) -> None:
    while ws.receive() is not None:
        pass


@pytest.mark.parametrize(
    "view, error",
    [
        (wait_for_none, ConnectionClosed),
        (lambda ws: ws.closed, AttributeError),
        (lambda ws: ws.connected, AttributeError),
        (lambda ws: ws.send(7), TypeError),
        (lambda ws: ws.send(b"x", binary=True), TypeError),
        (lambda ws: ws.close(reason=1008, message="go away"), TypeError),
    ],
)
def test_what_old_code_gets(view: Callable[[Any], object], error: type[Exception]) -> None:
    assert isinstance(outcome(view), error)


def test_a_receive_that_is_too_late_raises() -> None:
    raised = outcome(lambda ws: (ws.receive(), ws.receive(timeout=0)), leave=False)
    assert isinstance(raised, TimeoutError)


def test_bad_json_closes_with_1011() -> None:
    client = run(pair("flask_socketio")[1])["app"].test_client()
    with connect(client, "/chat") as ws:
        ws.send("no JSON")
        with pytest.raises(ConnectionClosed) as caught:
            ws.receive()
    assert caught.value.code == 1011


# The tables


def rows(head: str) -> list[list[str]]:
    """The rows of the table with this head."""
    _, _, rest = TEXT.partition(head + "\n")
    body = rest.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def quoted(cells: Iterator[str]) -> list[str]:
    return [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]


OPTIONS = rows("| there | option of | here |")
TABLES = {
    name: rows(f"| {name} | faye_wsgi |")
    for name in ("flask-sock", "gevent-websocket", "Flask-SocketIO")
}


def test_the_options() -> None:
    assert len(OPTIONS) == 6
    for there, _, here in OPTIONS:
        theirs, our = there.strip("`"), re.findall(r"`(\w+)`", here)[0]
        assert our in inspect.signature(WebSocket).parameters
        if theirs != our:
            with pytest.raises(TypeError, match=f"did you mean '{our}'"):
                websocket(**{theirs: None})(lambda ws: None)


@pytest.mark.parametrize("table", TABLES)
def test_our_names_exist(table: str) -> None:
    assert len(TABLES[table]) > 8
    code = " ".join(quoted(row[1] for row in TABLES[table]))
    names = set(re.findall(r"\bws\.(\w+)", code))
    assert names and not [name for name in names if not hasattr(WebSocket, name)]


@pytest.mark.parametrize(
    "package, table, owner",
    [
        ("simple_websocket", "flask-sock", "Server"),
        ("geventwebsocket", "gevent-websocket", "WebSocket"),
        ("flask_socketio", "Flask-SocketIO", "SocketIO"),
    ],
)
def test_their_names_exist(package: str, table: str, owner: str) -> None:
    module: Any = pytest.importorskip(package)
    if package == "geventwebsocket":
        module = pytest.importorskip("geventwebsocket.websocket")
    source = inspect.getsource(sys.modules[getattr(module, owner).__module__])
    code = " ".join(quoted(row[0] for row in TABLES[table]))
    names = set(re.findall(r"\b(?:ws|socketio)\.(\w+)", code))
    assert names and not [name for name in names if not re.search(rf"\b{name}\b", source)]


def test_their_options_exist() -> None:
    engineio: Any = pytest.importorskip("engineio")
    simple_websocket: Any = pytest.importorskip("simple_websocket")
    there = {
        "flask-sock": inspect.signature(simple_websocket.Server).parameters,
        "Flask-SocketIO": inspect.signature(engineio.base_server.BaseServer).parameters,
    }
    for name, libraries, _ in OPTIONS:
        for library, parameters in there.items():
            if library in libraries:
                assert name.strip("`") in parameters
    defaults = {name: one.default for name, one in there["Flask-SocketIO"].items()}
    assert defaults["ping_interval"] == 25 and defaults["max_http_buffer_size"] == 1_000_000
    assert there["flask-sock"]["ping_interval"].default is None
    assert there["flask-sock"]["max_message_size"].default is None
