"""Chromium's own WebSocket against every kind of server, with and without TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.browser import Page, page
from ..support.certs import certificates
from ..support.servers import KINDS, serve

# The sync worker is refused, and a browser wants more than one connection at a time.
SERVED = [kind for kind in KINDS if kind not in ("gunicorn-sync", "wsgiref-single")]
WAYS = [(kind, tls) for kind in SERVED for tls in ([False, True] if KINDS[kind].tls else [False])]

# Sends text and bytes, waits for the echoes, closes with a code of its own.
SCRIPT = """
const [url, done] = arguments;
const ws = new WebSocket(url), got = [];
ws.binaryType = 'arraybuffer';
ws.onopen = () => {
  for (const message of ['grüße 🎉', 'x'.repeat(70000), new Uint8Array(300)]) ws.send(message);
};
ws.onmessage = ({ data }) => {
  got.push(typeof data === 'string' ? data.length : data.byteLength);
  if (got.length === 3) ws.close(4001);
};
ws.onclose = ({ code, wasClean }) => done([got, code, wasClean]);
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with page(ca=certificates().ca) as window:
        yield window


@pytest.mark.parametrize("kind, tls", WAYS)
def test_echo(browser: Page, kind: str, tls: bool) -> None:
    with serve(kind, tls=tls) as server:
        browser.open(server.url("/plain"))
        for path in ("/echo", "/events"):
            url = server.url(path, "ws")
            assert browser.run_async(SCRIPT, url) == [[8, 70000, 300], 4001, True]
        assert "Traceback" not in server.log()
