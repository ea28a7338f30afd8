"""docs/proxies.md: HAProxy and Caddy with its configurations. Those of nginx: test_nginx.py."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import find_program
from .support import nginx
from .support.peer import Peer
from .support.redis import free_port
from .support.servers import ROOT, Server
from .support.servers import serve as run_server
from .support.sse import Acknowledgements, EventReader, read_one_by_one
from .support.waiting import wait_until

PAGE = (ROOT / "docs/proxies.md").read_text("utf-8")
ECHO = "/echo?trust_forwarded=1"


class Proxy:
    """A running proxy, where a Server stands for a Peer or an EventReader."""

    tls = unix = False

    def __init__(self, port: int) -> None:
        self.address = ("127.0.0.1", port)
        self.host_header = f"127.0.0.1:{port}"

    def connect(self, timeout: float = 10.0) -> socket.socket:
        return socket.create_connection(self.address, timeout)

    def answers(self) -> bool:
        try:
            self.connect(1).close()
        except OSError:
            return False
        return True


def configuration(language: str, *changes: tuple[str, str]) -> str:
    """The page's, with our addresses put in, and nothing else."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for theirs, ours in changes:
        assert block.count(theirs) == 1, theirs
        block = block.replace(theirs, ours)
    return str(block)


def haproxy(folder: Path, port: int, server: Server) -> list[str]:
    """The command that runs it, after it has accepted the file."""
    file = folder / "haproxy.cfg"
    file.write_text(
        configuration(
            "text",
            ("bind :80", f"bind 127.0.0.1:{port}"),
            ("127.0.0.1:8000", f"127.0.0.1:{server.port}"),
        )
    )
    command = [find_program("haproxy"), "-f", str(file)]
    checked = subprocess.run([*command, "-c"], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0 and "[WARNING]" not in checked.stderr, checked.stderr
    return [*command, "-db"]


def caddy(folder: Path, port: int, server: Server) -> list[str]:
    """The same. It gets no certificate here, and no port for its administration."""
    file = folder / "Caddyfile"
    block = configuration(
        "caddy",
        ("example.com {", f"http://127.0.0.1:{port} {{"),
        ("127.0.0.1:8000", f"127.0.0.1:{server.port}"),
    )
    file.write_text("{\n\tadmin off\n}\n" + block)
    return [find_program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with run_server("gunicorn-gevent") as running:
        yield running


@pytest.fixture(scope="module", params=["haproxy", "caddy"])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    find_program(request.param)
    server: Server = request.getfixturevalue("server")
    folder, made = tmp_path_factory.mktemp(request.param), Proxy(free_port())
    command = {"haproxy": haproxy, "caddy": caddy}[request.param](folder, made.address[1], server)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
            start_new_session=True,
        )
    try:
        wait_until(lambda: made.answers() or process.poll() is not None, 30, "the proxy")
        assert process.poll() is None, (folder / "log").read_text()
        yield made
    finally:
        nginx.stop(process)


def test_a_websocket(proxy: Proxy) -> None:
    with Peer(proxy) as peer:  # type: ignore[arg-type]
        peer.open(ECHO, {"Origin": f"http://{proxy.host_header}"})
        for text in ("hello", "grüße", "x" * 200_000):
            peer.send_text(text)
            assert peer.read_text() == text
        peer.finish()


def test_a_page_of_another_site_may_not_connect(proxy: Proxy) -> None:
    """What a client says of itself does not count."""
    told = {"X-Forwarded-Host": "chat.example", "X-Forwarded-Proto": "http"}
    with Peer(proxy) as peer:  # type: ignore[arg-type]
        head = peer.request(ECHO, {"Origin": "http://chat.example", **told})
        assert head.status == 403


def test_what_a_client_says_of_tls_does_not_count(proxy: Proxy) -> None:
    """Else this page of http:// would be of another origin."""
    told = {"X-Forwarded-Proto": "https"}
    with Peer(proxy) as peer:  # type: ignore[arg-type]
        peer.open(ECHO, {"Origin": f"http://{proxy.host_header}", **told}).finish()


def test_events_one_by_one(proxy: Proxy) -> None:
    with Acknowledgements() as acks:
        with EventReader(proxy, "/es/step", n=5, ack=acks.path) as reader:
            assert reader.head.status == 200
            read_one_by_one(reader, acks, 5)
            assert list(reader) == []
