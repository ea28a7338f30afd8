"""Real WSGI servers as processes of their own, on 127.0.0.1 or a Unix socket.

The listening socket is made here and handed over, so no port is ever guessed, and a
connection made too early waits in the kernel's queue. A server counts as ready when it has
answered one request, for READY_PATH; the lines about that request are left out of its logs.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from .certs import certificates

ROOT = Path(__file__).resolve().parents[2]
READY_PATH = "/__ready__"
MAY_START = True  # `make check` starts none: see conftest.py
START_TIMEOUT = 30.0
STOP_TIMEOUT = 8.0


class Kind(NamedTuple):
    """What a kind of server can do."""

    tls: bool = False
    unix: bool = False
    # gevent serves it: a view may return while its connection lives on with the hub.
    gevent: bool = False
    gunicorn: str = ""
    workers: bool = False
    app: str = "wsgi"


KINDS: dict[str, Kind] = {
    "gunicorn-gevent": Kind(True, True, True, "gevent", True),
    "gunicorn-gevent_pywsgi": Kind(True, True, True, "gevent_pywsgi", True),
    "gunicorn-gthread": Kind(True, True, False, "gthread", True),
    "gunicorn-sync": Kind(True, True, False, "sync", True),
    "pywsgi": Kind(True, True, True),
    "pywsgi-unpatched": Kind(True, True, True),
    "flask": Kind(True, True, app="flask"),
    "wsgiref": Kind(True),
    "wsgiref-single": Kind(True),
    "django": Kind(app="django"),
}

APPS = {
    "wsgi": "tests.support.apps.wsgi_app:application",
    "flask": "tests.support.apps.flask_app:application",
    "django": "tests.support.apps.django_app:application",
}


class ServerError(AssertionError):
    """A server that did not start."""


class Server:
    """A running server. Everything about it may be asked after its end as well."""

    def __init__(
        self,
        kind: str,
        address: tuple[str, int] | str,
        tls: bool,
        process: subprocess.Popen[bytes],
        folder: Path,
    ) -> None:
        self.kind, self.address, self.tls = kind, address, tls
        self.process, self.folder = process, folder
        self.host = address[0] if isinstance(address, tuple) else "localhost"
        self.port = address[1] if isinstance(address, tuple) else 0
        self.unix = isinstance(address, str)
        self.pid = process.pid
        self._kept: dict[str, str] = {}

    @property
    def host_header(self) -> str:
        return "localhost" if self.unix else f"{self.host}:{self.port}"

    def url(self, path: str = "/", scheme: str = "http") -> str:
        """`scheme` is 'http' or 'ws'; TLS adds its s."""
        return f"{scheme}{'s' if self.tls else ''}://{self.host_header}{path}"

    def connect(self, timeout: float = 10.0) -> socket.socket:
        """A connected socket, with TLS where the server has it."""
        family = socket.AF_UNIX if self.unix else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(self.address)
            if not self.tls:
                return sock
            context = certificates().client_context()
            return context.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise

    def get(self, path: str = "/", timeout: float = 10.0) -> tuple[int, bytes]:
        """An ordinary request: its status and its body, read up to the end of the stream."""
        with self.connect(timeout) as sock:
            head = f"GET {path} HTTP/1.0\r\nHost: {self.host_header}\r\n\r\n"
            sock.sendall(head.encode("latin-1"))
            data = b""
            # A server may end TLS without its goodbye.
            with contextlib.suppress(ssl.SSLEOFError):
                while chunk := sock.recv(65536):
                    data += chunk
        head_bytes, _, body = data.partition(b"\r\n\r\n")
        if not head_bytes.startswith(b"HTTP/"):
            raise ConnectionError(f"not a response: {data[:200]!r}")
        return int(head_bytes.split(None, 2)[1]), body

    # Its logs

    def log(self) -> str:
        """What it and the application have written as errors and messages so far."""
        return self._read("stderr")

    def access_log(self) -> str:
        # gunicorn 20.1's gevent_pywsgi has the whole status, as bytes: b'200 OK'
        return re.sub(r"b'(\d{3})[^']*'", r"\1", self._read("access"))

    def _read(self, name: str) -> str:
        if name in self._kept:
            return self._kept[name]
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / name).read_text("utf-8", "replace").splitlines(True)
            return "".join(line for line in lines if READY_PATH not in line)
        return ""

    def _keep_logs(self) -> None:
        self._kept = {name: self._read(name) for name in ("stderr", "access")}

    # Its life

    def worker_pids(self) -> list[int]:
        """The processes that serve: gunicorn's workers, or the server itself."""
        if not KINDS[self.kind].workers:
            return [self.pid]
        return children(self.pid)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """The exit status. subprocess.TimeoutExpired when the time is up."""
        return self.process.wait(timeout)

    def stop(self) -> None:
        """Ends it, gently at first, and whatever is left of its session then."""
        if self.process.poll() is None:
            # On SIGTERM, a worker of gunicorn with gevent looks up once a second only.
            self.signal(signal.SIGQUIT if self.kind.startswith("gunicorn") else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT)
        # Its own session: nobody else is in that group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT)


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(number) for number in text.split()]


@contextlib.contextmanager
def serve(
    kind: str,
    app: str | None = None,
    *,
    tls: bool = False,
    unix: bool = False,
    workers: int = 1,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    cwd: str | Path | None = None,
    python: str = sys.executable,
) -> Iterator[Server]:
    """Runs a server of KINDS. `app` is a name of APPS or 'module:attribute' (with `cwd` put
    first on the import path); `options` are added to its command line."""
    what = KINDS[kind]
    assert what.tls or not tls, f"{kind} has no TLS"
    assert what.unix or not unix, f"{kind} has no Unix sockets"
    raise_descriptor_limit()
    target = APPS.get(app or what.app, app or what.app)
    folder = Path(tempfile.mkdtemp(prefix="faye_wsgi-"))
    listener = _listen(folder, unix, port, host)
    address = listener.getsockname()
    command = [python, "-u"]
    command += _gunicorn(what, workers) if what.gunicorn else _launch(kind)
    command += _listening_options(what, listener, folder, tls) + [*options, target]
    server = None
    try:
        process = _start(command, listener, folder, env, cwd)
        server = Server(kind, address, tls, process, folder)
        listener.close()
        _wait_ready(server)
        yield server
    finally:
        listener.close()
        if server is not None:
            server.stop()
            server._keep_logs()
        shutil.rmtree(folder, ignore_errors=True)


def _listen(folder: Path, unix: bool, port: int, host: str = "127.0.0.1") -> socket.socket:
    listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM)
    if unix:
        listener.bind(str(folder / "sock"))
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    listener.listen(1024)
    listener.set_inheritable(True)
    return listener


def _gunicorn(what: Kind, workers: int) -> list[str]:
    command = ["-m", "gunicorn", "-k", what.gunicorn, "-w", str(workers)]
    command += ["--graceful-timeout", "2", "--error-logfile", "-"]
    return command + (["--threads", "16"] if what.gunicorn == "gthread" else [])


def _launch(kind: str) -> list[str]:
    return ["-m", "tests.support.launch", kind]


def _listening_options(what: Kind, listener: socket.socket, folder: Path, tls: bool) -> list[str]:
    bind = "--bind=fd://" if what.gunicorn else "--fd="
    command = [f"{bind}{listener.fileno()}", f"--access-logfile={folder / 'access'}"]
    if tls:
        command += [f"--certfile={certificates().cert}", f"--keyfile={certificates().key}"]
    return command


def _start(
    command: list[str],
    listener: socket.socket,
    folder: Path,
    env: Mapping[str, str] | None,
    cwd: str | Path | None,
) -> subprocess.Popen[bytes]:
    if not MAY_START:
        pytest.skip("it starts a server")
    path = [str(place) for place in (cwd, ROOT) if place]
    # gunicorn 25 and later put a control socket there, which all runs would share otherwise.
    ours = {"PYTHONPATH": os.pathsep.join(path), "XDG_RUNTIME_DIR": str(folder)}
    environment = {**os.environ, **ours, **(env or {})}
    log: IO[bytes]
    with open(folder / "stderr", "wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=str(cwd or ROOT),
            env=environment,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )


def _wait_ready(server: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    failure: Exception | None = None
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            server.get(READY_PATH, timeout=max(0.1, deadline - time.monotonic()))
            return
        except OSError as error:
            failure = error
            time.sleep(0.02)
    raise ServerError(f"{server.kind} did not start ({failure}):\n{server.log()}")


def raise_descriptor_limit() -> None:
    """Lets this process, and the servers it starts, open as many files as is allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
