"""nginx in front of a server, with the configuration that docs/proxies.md shows."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .servers import ROOT, STOP_TIMEOUT, Server

BLOCK = re.compile(r"^```nginx\s*\n(.*?)^```", re.MULTILINE | re.DOTALL)

TIMEOUT = "proxy_read_timeout 60s;"

# What a test needs around it: no daemon, and all files in a folder of its own.
FRAME = """
daemon off;
worker_processes 1;
{user}
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{block}
}}
"""


class Nginx:
    """A running nginx; it stands where a Server stands for a Peer or an EventReader."""

    tls = unix = False
    kind = "nginx"

    def __init__(
        self,
        address: tuple[str, int],
        process: subprocess.Popen[bytes],
        folder: Path,
        upstream: Server,
    ) -> None:
        self.address, self.process, self.folder = address, process, folder
        self.upstream = upstream
        self.host, self.port = address
        self.host_header = f"{self.host}:{self.port}"

    def connect(self, timeout: float = 10.0) -> socket.socket:
        return socket.create_connection(self.address, timeout)

    def let_upgrades_pass(self) -> None:
        """From now on; connections that are there stay as they are."""
        text = configuration(self.port, self.upstream, self.folder, strips_upgrade=False)
        (self.folder / "nginx.conf").write_text(text)
        self.process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        lines = (self.folder / "stderr").read_text().splitlines(True)
        return "".join(line for line in lines if "using inherited sockets" not in line)


def handbook_block() -> str:
    """The handbook's configuration, as it stands there."""
    found = BLOCK.findall((ROOT / "docs/proxies.md").read_text("utf-8"))
    assert len(found) == 1, "docs/proxies.md shows one configuration for nginx"
    return str(found[0])


def configuration(
    port: int, upstream: Server, folder: Path, strips_upgrade: bool, timeout: str = TIMEOUT
) -> str:
    """The handbook's configuration with our two addresses put in, and nothing else.

    With `strips_upgrade` it lets no WebSocket pass, as a proxy that does not know them. `timeout`
    stands in the place of its time limit.
    """
    block = handbook_block()
    for theirs, ours in (
        (r"listen 80;", f"listen 127.0.0.1:{port};"),
        (r"http://127\.0\.0\.1:8000;", f"http://127.0.0.1:{upstream.port};"),
        (TIMEOUT, timeout),
    ):
        block, count = re.subn(theirs, ours, block)
        assert count == 1, f"its configuration has {theirs} once"
    if strips_upgrade:
        block, count = re.subn(r"proxy_set_header (Upgrade|Connection) [^;]*;", "", block)
        assert count == 2, "its configuration passes an upgrade on"
    return framed(block, folder)


def framed(block: str, folder: Path) -> str:
    """A whole configuration around some servers."""
    # Its worker would be another user, who may not write to the folder.
    user = "user root;" if os.getuid() == 0 else ""
    return FRAME.format(folder=folder, block=block, user=user)


@contextlib.contextmanager
def nginx(
    program: str, upstream: Server, strips_upgrade: bool = False, timeout: str = TIMEOUT
) -> Iterator[Nginx]:
    folder = Path(tempfile.mkdtemp(prefix="faye_wsgi-nginx-"))
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    process = None
    try:
        address = listener.getsockname()
        (folder / "nginx.conf").write_text(
            configuration(address[1], upstream, folder, strips_upgrade, timeout)
        )
        process = start(program, folder, listener)
        listener.close()
        yield Nginx(address, process, folder, upstream)
    finally:
        listener.close()
        if process is not None:
            stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def start(program: str, folder: Path, listener: socket.socket) -> subprocess.Popen[bytes]:
    listener.set_inheritable(True)
    # nginx takes over the listening sockets that this names, so no port is guessed.
    environment = {**os.environ, "NGINX": f"{listener.fileno()};"}
    with open(folder / "stderr", "wb") as log:
        return subprocess.Popen(
            [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT)
    # Its own session, with its worker: nobody else is in that group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_TIMEOUT)
