"""permessage-deflate between Chromium and our server, in every combination of its parameters.

Chromium offers `client_max_window_bits`, and leaves the rest to the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from faye_wsgi.http.headers import parse_extensions

from ..support.browser import Page, page
from ..support.servers import Server, serve

APP = "tests.support.apps.deflate:application"

# Sends all messages at once, checks their echoes, closes; the result is what was agreed on,
# what was wrong, and the close code.
SCRIPT = """
const [url, done] = arguments;
const rows = [];
for (let id = 0; id < 1500; id++) rows.push({ id, name: 'name ' + id * 7919 % 1000, ok: true });
const json = JSON.stringify(rows).padEnd(65536, ' ');
const binary = new Uint8Array(1 << 20);
for (let at = 0, seed = 1; at < binary.length; at++) {
  seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
  binary[at] = at & 0x8000 ? seed >> 16 : 7 * at;  // noise and order in turns
}
const messages = ['', 'hello', json, binary, 'grüße 🎉', new Uint8Array(0), json, 'hello'];
const expected = [...messages];
const result = { faults: [] };

function same(got, sent) {
  if (typeof sent === 'string') return got === sent;
  const bytes = new Uint8Array(got);
  return bytes.length === sent.length && bytes.every((byte, at) => byte === sent[at]);
}

const ws = new WebSocket(url);
ws.binaryType = 'arraybuffer';
ws.onopen = () => {
  result.extensions = ws.extensions;
  for (const message of messages) ws.send(message);
};
ws.onmessage = ({ data }) => {
  const sent = expected.shift();
  if (!same(data, sent)) result.faults.push('not what was sent: ' + sent.slice(0, 20));
  if (!expected.length) ws.close(1000);
};
ws.onerror = () => result.faults.push('error');
ws.onclose = ({ code }) => done({ ...result, code, missing: expected.length });
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("gunicorn-gevent", APP) as running:
        yield running
    assert "Traceback" not in running.log()


@pytest.fixture(scope="module")
def window(server: Server) -> Iterator[Page]:
    with page() as browser:
        yield browser.open(server.url("/"))


@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("client_no", [False, True])
@pytest.mark.parametrize("server_no", [False, True])
@pytest.mark.parametrize("threshold", [0, 6])
def test_chromium(
    server: Server, window: Page, server_no: bool, client_no: bool, bits: int, threshold: int
) -> None:
    values: dict[str, Any] = {"bits": bits, "threshold": threshold}
    values.update(server_no=int(server_no), client_no=int(client_no), ping=0.05, ping_timeout=20)
    result = window.run_async(SCRIPT, server.url("/echo?" + urlencode(values), "ws"))
    assert result["faults"] == [] and result["missing"] == 0, result
    assert result["code"] == 1000
    ((name, params),) = parse_extensions(result["extensions"])
    assert name == "permessage-deflate"
    assert ("server_no_context_takeover" in params) == server_no
    assert ("client_no_context_takeover" in params) == client_no
    assert params.get("client_max_window_bits", "15") == str(bits)


def test_nothing_is_logged(window: Page) -> None:
    assert window.console() == []
