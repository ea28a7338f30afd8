"""What the package logs: one logger, nothing above DEBUG for what a peer does, and the table.

The table is in docs/architecture.md. What is logged once, or with a cure, is tested beside it.
"""

from __future__ import annotations

import ast
import logging
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from faye_wsgi import EventSource, permessage_deflate

from .support import frames
from .test_docs import DOCUMENT, PACKAGE
from .test_websocket import BAD_HANDSHAKES, Exchange, exchange, refused
from .transport.harness import until

__all__ = ["exchange"]

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
ROW = re.compile(r"^\| (`[^|]*`) \| (DEBUG|INFO|WARNING|ERROR) \|", re.MULTILINE)


# The table


def calls(path: Path) -> Iterator[str]:
    """The levels of a file's calls; those of ``log.log`` are named in the same file."""
    tree = ast.parse(path.read_text("utf-8"))
    chooses = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if isinstance(of, ast.Name) and of.id in ("log", "logger"):
                chooses = chooses or node.func.attr == "log"
                if node.func.attr in LEVELS:
                    yield node.func.attr.upper().replace("EXCEPTION", "ERROR")
    if chooses:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.lower() in LEVELS:
                if isinstance(node.value, ast.Name) and node.value.id == "logging":
                    yield node.attr


def test_each_call_is_in_the_table() -> None:
    text = DOCUMENT.read_text("utf-8").split("\n## Logging\n")[1].split("\n## ")[0]
    shown = {
        (file, level)
        for files, level in ROW.findall(text)
        for file in re.findall(r"`([\w/.]+)`", files)
    }
    found = {
        (str(path.relative_to(PACKAGE)), level)
        for path in PACKAGE.rglob("*.py")
        for level in calls(path)
    }
    assert found == shown


def test_there_is_one_logger() -> None:
    for path in PACKAGE.rglob("*.py"):
        for name in re.findall(r"getLogger\((.*?)\)", path.read_text("utf-8")):
            assert name == '"faye_wsgi"', path
    assert not logging.getLogger("faye_wsgi").handlers, "these are the application's"


# What peers do


def reset(peer: Any) -> None:
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(b"\0" * size) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


MISDEEDS: dict[str, bytes] = {
    "nothing": b"",
    "half a frame": frames.text("x" * 100)[:20],
    "no mask": frames.frame(frames.TEXT, b"x", mask=None),
    "a reserved opcode": frames.frame(3),
    "a reserved bit": bytes([0xF1, 0x80, 0, 0, 0, 0]),
    "no UTF-8": frames.frame(frames.TEXT, b"\xff\xfe"),
    "too long": frames.text("x" * 1001),
    "too long by its word": b"\x81\xff" + b"\x7f" + b"\xff" * 7,
    "too many fragments": frames.frame(frames.TEXT, b"x", fin=False)
    + frames.frame(0, b"x", fin=False) * 20,
    "a continuation of nothing": frames.frame(0, b"x"),
    "a long ping": frames.frame(frames.PING, b"x" * 126),
    "a thousand pings": frames.frame(frames.PING, b"x") * 1000,
    "a thousand pongs": frames.frame(frames.PONG, b"x") * 1000,
    "a bad close code": frames.close(999),
    "a close frame of one byte": frames.frame(frames.CLOSE, b"x"),
    "no HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "a bomb": frames.frame(frames.BINARY, bomb(2**20), rsv=4),
    "no deflate": frames.frame(frames.TEXT, b"\xff" * 20, rsv=4),
}


def record_levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{one.levelname} {one.getMessage()}" for one in caplog.records if one.levelno > 10]


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("listens", [True, False], ids=["listener", "view"])
@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_peer_logs_nothing(
    exchange: Callable[..., Exchange],
    caplog: pytest.LogCaptureFixture,
    misdeed: str,
    listens: bool,
    end: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    made = exchange(HTTP_SEC_WEBSOCKET_EXTENSIONS="permessage-deflate")
    ws = made.accept(extensions=[permessage_deflate], max_length=1000, max_fragments=10)
    if listens:
        ws.on("message", lambda event: ws.send(event.data))
    made.peer.send(MISDEEDS[misdeed])
    (made.peer.close if end == "close" else lambda: reset(made.peer))()
    if not listens:
        assert [message for message in ws if len(message) > 1000] == []
    until(lambda: ws.ready_state == ws.CLOSED)
    assert record_levels(caplog) == []


def test_a_peer_of_an_event_stream_logs_nothing(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for end in (lambda peer: peer.close(), reset):
        made = exchange(HTTP_ACCEPT="text/event-stream")
        es = EventSource(made.environ)
        made.peer.send(b"what nothing reads")
        end(made.peer)
        until(lambda es=es: es.closed)
    assert record_levels(caplog) == []


def test_a_bad_handshake_logs_its_origin_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for changes, _ in BAD_HANDSHAKES * 10:
        refused(**changes)
    origins = [changes["HTTP_ORIGIN"] for changes, _ in BAD_HANDSHAKES if "HTTP_ORIGIN" in changes]
    assert len(record_levels(caplog)) == len(origins) == 2


# What the application does


@pytest.mark.parametrize("type, opcode", [("message", frames.TEXT), ("ping", frames.PING)])
def test_a_listener_that_raises_is_one_error_with_its_traceback(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture, type: Any, opcode: int
) -> None:
    """A hundred messages of one segment are no hundred tracebacks."""
    caplog.set_level(logging.DEBUG)
    made = exchange()
    ws = made.accept()
    ended: list[int] = []
    ws.on("close", lambda event: ended.append(event.code))

    @ws.on(type)
    def fail(event: Any) -> None:
        raise LookupError("by the application")

    many = frames.frame(opcode, b"x") * 100
    made.peer.send(many)
    while (frame := made.peer.read_frame()).opcode == frames.PONG:
        pass
    assert frame.close_code == 1011
    made.peer.send(many)
    made.peer.send_close(1011)
    until(lambda: ended == [1011])
    (record,) = (record for record in caplog.records if record.levelno > logging.DEBUG)
    assert record.levelno == logging.ERROR and record.exc_info
    assert record.exc_info[0] is LookupError
