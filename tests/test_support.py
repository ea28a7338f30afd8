"""The tests' own tools are right: frames by the RFC's examples, and the applications' pages."""

from __future__ import annotations

import json

import pytest

from .support import frames
from .support.servers import serve

# RFC 6455 5.7
EXAMPLES = [
    (frames.frame(frames.TEXT, "Hello", mask=None), "810548656c6c6f"),
    (frames.frame(frames.TEXT, "Hello"), "818537fa213d7f9f4d5158"),
    (frames.frame(frames.TEXT, "Hel", fin=False, mask=None), "010348656c"),
    (frames.frame(frames.CONTINUATION, "lo", mask=None), "80026c6f"),
    (frames.frame(frames.PING, "Hello", mask=None), "890548656c6c6f"),
    (frames.frame(frames.BINARY, bytes(256), mask=None)[:4], "827e0100"),
    (frames.frame(frames.BINARY, bytes(65536), mask=None)[:10], "827f0000000000010000"),
    (frames.frame(frames.TEXT, "", rsv=4, mask=None), "c100"),
    (frames.frame(frames.TEXT, "Hello", mask=None, length_form=16)[:4], "817e0005"),
    (frames.close(1001, "bye", mask=None), "880503e9627965"),
    (frames.close(None, mask=None), "8800"),
]


@pytest.mark.parametrize("built, expected", EXAMPLES)
def test_frames_by_hand(built: bytes, expected: str) -> None:
    assert built.hex() == expected


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_frames_are_read_as_they_were_built(size: int) -> None:
    payload = bytes(index & 0xFF for index in range(size))
    data = frames.frame(frames.BINARY, payload) + frames.frame(frames.PONG, b"", mask=None)
    whole, rest = frames.parse(data + b"\x81")
    assert rest == b"\x81"
    assert whole == [
        frames.Frame(frames.BINARY, payload, mask=frames.MASK),
        frames.Frame(frames.PONG, b""),
    ]


def test_accept_key() -> None:
    """RFC 6455 1.3"""
    assert frames.accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "kind, app",
    [
        ("gunicorn-gevent", "wsgi"),
        ("gunicorn-gevent", "flask"),
        ("gunicorn-gevent", "django"),
        ("pywsgi", "wsgi"),
        ("flask", "flask"),
        ("django", "django"),
    ],
)
def test_pages_of_the_applications(kind: str, app: str) -> None:
    with serve(kind, app) as server:
        assert server.get("/plain") == (200, b"an ordinary page\n")
        status, body = server.get("/stats")
        numbers = json.loads(body)
        assert status == 200
        assert numbers["pid"] in server.worker_pids()
        assert 0 < numbers["descriptors"] < 64
        assert numbers["rss"] > 1_000_000
        assert (numbers["watchers"] > 0) == server.kind.startswith(("gunicorn", "pywsgi"))
        assert server.get("/nowhere")[0] == 404
