"""Peers that stop in the middle of a message, or stop reading: what they hold comes back.

``clean`` looks at the descriptors, greenlets and timers of the server, and at its log. What is late
exactly is tested in tests/transport/test_keepalive.py.
"""

from __future__ import annotations

import pytest

from ..support import frames
from ..support.servers import Server
from ..support.waiting import wait_until
from .harness import TIMEOUT, Client, ends

TIMEOUTS = "message_timeout=0.5&send_timeout=0.5"


def wait_for_ends(server: Server, before: dict[str, int], *expected: str) -> None:
    """One of each of ``expected``, and nothing else."""
    after = {**before, **{name: before.get(name, 0) + 1 for name in expected}}
    wait_until(lambda: ends(server) == after, TIMEOUT, what=f"{expected}")


@pytest.mark.parametrize("path", ["/careful_echo", "/counted_events"])
@pytest.mark.parametrize(
    "half",
    [frames.text("half")[:1], frames.text("half" * 20_000)[:-1], frames.text("half", fin=False)],
    ids=["header", "frame", "message"],
)
def test_a_message_that_does_not_end(clean: Server, path: str, half: bytes) -> None:
    before = ends(clean)
    with Client(clean) as client:
        client.open(f"{path}?{TIMEOUTS}")
        client.echo("whole")
        client.send(half)
        assert client.read_close() == 1008
        client.read_eof()
    wait_for_ends(clean, before, "1008")


def test_a_message_that_does_not_end_while_its_sender_does_not_read(clean: Server) -> None:
    """Our close frame waits behind what it does not read, for ``close_timeout``."""
    before = ends(clean)
    with Client(clean) as client:
        client.open("/flood_in_view?message_timeout=0.5&close_timeout=0.5")
        client.send(frames.text("half")[:-1])
        wait_for_ends(clean, before, "1008", "sender: 1008")
        client.read_eof()


@pytest.mark.parametrize("path", ["/flood_in_view", "/flood_in_listener"])
def test_a_peer_that_does_not_read(clean: Server, path: str) -> None:
    before = ends(clean)
    with Client(clean) as client:
        client.open(f"{path}?{TIMEOUTS}")
        client.text("go")
        wait_for_ends(clean, before, "1006", "sender: 1006")
        client.read_eof()


def test_a_peer_that_does_not_read_what_is_broadcast(clean: Server) -> None:
    before = ends(clean)
    with Client(clean) as client:
        client.open(f"/flood_by_broadcast?{TIMEOUTS}")
        wait_for_ends(clean, before, "1006")
        client.read_eof()


def test_a_reader_of_a_stream_that_does_not_read(clean: Server) -> None:
    """A stream has no codes."""
    before = ends(clean)
    with Client(clean) as client:
        client.send(b"GET /es/flood_stream?send_timeout=0.5&ping=none HTTP/1.1\r\n")
        client.send(b"Host: localhost\r\nAccept: text/event-stream\r\n\r\n")
        wait_for_ends(clean, before, "None", "sender: None")
        client.read_eof()
