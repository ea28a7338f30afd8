"""docs/deployment.md: its nginx, word for word, in front of a small worker."""

from __future__ import annotations

import ast
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import find_program
from .support import frames
from .support.certs import Certificates, certificates
from .support.nginx import BLOCK, framed, start, stop
from .support.peer import Peer
from .support.redis import free_port
from .support.servers import ROOT, Server
from .support.servers import serve as run_server
from .support.waiting import wait_until

GUIDE = ROOT / "docs/deployment.md"
POOL = 10
ECHO = "/echo?trust_forwarded=1"


class Front:
    """Where nginx listens; `peer` is a connection over TLS."""

    def __init__(self, plain: int, secure: int) -> None:
        self.plain, self.secure = plain, secure

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.secure), 10)

    def peer(self) -> Peer:
        context: ssl.SSLContext = certificates().client_context()
        return Peer(sock=context.wrap_socket(self.connect(), server_hostname="localhost"))


def configuration(front: Front, worker: Server, certificates: Certificates) -> str:
    """The guide's, with our addresses, name and files put in, and nothing else."""
    (block,) = BLOCK.findall(GUIDE.read_text("utf-8"))
    for theirs, ours, times in (
        ("listen 80;", f"listen 127.0.0.1:{front.plain};", 1),
        ("listen 443 ", f"listen 127.0.0.1:{front.secure} ", 2),
        ("server_name example.com;", "server_name localhost;", 2),
        ("/etc/ssl/example.com.pem", certificates.cert, 2),
        ("/etc/ssl/example.com.key", certificates.key, 2),
        ("http://127.0.0.1:8000;", f"http://127.0.0.1:{worker.port};", 1),
    ):
        assert block.count(theirs) == times, theirs
        block = block.replace(theirs, ours)
    return str(block)


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    find_program("nginx")
    with run_server("gunicorn-gevent", options=[f"--worker-connections={POOL}"]) as running:
        yield running


@pytest.fixture(scope="module")
def front(worker: Server) -> Iterator[Front]:
    folder = Path(tempfile.mkdtemp(prefix="faye_wsgi-nginx-"))
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    made = Front(free_port(), listener.getsockname()[1])
    block = configuration(made, worker, certificates())
    (folder / "nginx.conf").write_text(framed(block, folder))
    process = start(find_program("nginx"), folder, listener)
    listener.close()
    try:
        wait_until(lambda: answers(made.plain), what=(folder / "stderr").read_text())
        yield made
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_a_websocket(front: Front) -> None:
    with front.peer() as peer:
        peer.open(ECHO, {"Origin": "https://localhost"}, host="localhost")
        peer.send_text("hello")
        assert peer.read_text() == "hello"
        peer.finish()


def test_a_page_without_tls_may_not_connect(front: Front) -> None:
    with front.peer() as peer:
        assert peer.request(ECHO, {"Origin": "http://localhost"}, host="localhost").status == 403


def test_another_host_gets_no_answer(front: Front) -> None:
    with front.peer() as peer:
        peer.send(frames.handshake(ECHO, "evil.example"))
        assert peer.read_available() == b""


def test_without_tls_it_redirects(front: Front) -> None:
    with Peer(sock=socket.create_connection(("127.0.0.1", front.plain))) as peer:
        peer.send(b"GET /page?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = peer.read_head()
        assert (head.status, head.get("Location")) == (301, "https://localhost/page?a=b")


def test_handshakes_that_stall_take_no_place_of_the_worker(front: Front) -> None:
    stalled = [front.connect() for _ in range(3 * POOL)]
    for number, sock in enumerate(stalled):
        sock.sendall(b"\x16\x03\x01" if number % 2 else b"")
    with front.peer() as peer:
        peer.open(ECHO, host="localhost").finish()
    for sock in stalled:
        sock.close()


def test_without_a_proxy_they_take_all() -> None:
    """Which is why the guide wants one. When gunicorn has a deadline, this will tell."""
    options = [f"--worker-connections={POOL}"]
    with run_server("gunicorn-gevent", tls=True, options=options) as server:
        stalled = [socket.create_connection(server.address) for _ in range(POOL)]  # type: ignore[arg-type]
        for sock in stalled:
            sock.sendall(b"\x16\x03\x01")
        with pytest.raises(OSError):
            server.get("/plain", timeout=1)
        for sock in stalled:
            sock.close()
        wait_until(lambda: server.get("/plain")[0] == 200)


def test_its_options_are_gunicorns() -> None:
    # In another process: old releases import what warns.
    names = "from gunicorn.config import KNOWN_SETTINGS; print(*[s.name for s in KNOWN_SETTINGS])"
    known = subprocess.run(
        [sys.executable, "-c", names], capture_output=True, text=True, timeout=60
    )
    code = re.findall(r"^```python\n(# gunicorn.conf.py\n.*?)^```", GUIDE.read_text(), re.M | re.S)
    used = [node.targets[0].id for node in ast.parse(code[0]).body]  # type: ignore[attr-defined]
    assert len(used) > 5 and set(used) <= set(known.stdout.split())
