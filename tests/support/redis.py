"""A Redis server of the test's own: on a free port, in a folder of its own, without a disk."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from .servers import STOP_TIMEOUT
from .waiting import wait_until


def find_redis() -> str | None:
    """The server to test with: `REDIS_SERVER=FILE` names another Redis, or a Valkey."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return shutil.which(os.environ.get("REDIS_SERVER", "redis-server"), path=places)


@functools.cache
def version_of(program: str) -> tuple[str, int]:
    """The name and the major version of a server: ('Redis', 7)."""
    text = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30).stdout
    match = re.match(r"(\w+) server v=(\d+)", text)
    assert match, text
    return match[1], int(match[2])


def is_old(program: str) -> bool:
    """Whether it is a Redis before 7, which has no sharded Pub/Sub."""
    return version_of(program)[1] < 7


@functools.cache
def has_tls(program: str) -> bool:
    """Whether a server was built with TLS: one without it does not know the option, or ends."""
    command = [program, "--port", "0", "--tls-port", str(free_port()), "--save", ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return "tls-cert-file" in done.stdout + done.stderr  # it misses the certificate


def may_debug(program: str) -> tuple[str, ...]:
    """The options that allow DEBUG to the tests."""
    return () if is_old(program) else ("--enable-debug-command", "local")


def free_port(*, bus: bool = False) -> int:
    """A port that was free just now: Redis takes no listening socket.

    With `bus` it is one for a node of a Cluster, which has its bus 10,000 ports above.
    """
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        if not bus:
            return port
        with contextlib.suppress(OSError, OverflowError):
            socket.create_server(("127.0.0.1", port - 10_000)).close()
            return port - 10_000


class RedisServer:
    """`redis-server` with options; as a context manager it is started, and ends."""

    def __init__(self, program: str, *arguments: str, port: int = 0, tls: bool = False) -> None:
        self.program, self.arguments = program, arguments
        self.port = port or free_port()
        self.tls = tls
        self._folder = tempfile.TemporaryDirectory(prefix="faye_wsgi-redis-")
        self.folder = Path(self._folder.name)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._folder.cleanup()

    def command_line(self) -> list[str]:
        return [
            self.program,
            *self.ports(),
            *("--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""),
            *self.arguments,
        ]

    def ports(self) -> list[str]:
        if self.tls:
            return ["--port", "0", "--tls-port", str(self.port)]
        return ["--port", str(self.port)]

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command_line(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self.answers, what=f"Redis answers: {self.log()}")

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                return self.tls or self.exchange(connection, "PING")[:1] in b"+-"
        return False

    def exchange(self, connection: socket.socket, *words: Any) -> bytes:
        parts = [str(word).encode() for word in words]
        lines = [b"*%d" % len(parts)]
        for part in parts:
            lines += [b"$%d" % len(part), part]
        connection.sendall(b"\r\n".join([*lines, b""]))
        return connection.recv(65536)

    def ask(self, *words: Any) -> str:
        """A short answer to a command, on a connection of its own, as it is on the wire."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            return self.exchange(connection, *words).decode("utf-8", "replace")

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @contextlib.contextmanager
    def paused(self) -> Any:
        """As if its machine were frozen: connections stay, nothing answers."""
        self.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send_signal(signal.SIGCONT)

    def stop(self, number: int = signal.SIGKILL) -> None:
        process, self.process = self.process, None
        if process is not None:
            if process.poll() is None:
                os.kill(process.pid, number)
            process.wait(STOP_TIMEOUT)

    def restart(self, number: int = signal.SIGKILL) -> None:
        self.stop(number)
        self.start()


class Meddler:
    """A proxy before a Redis that does harm to calls of scripts, one after the other."""

    sign = b"EVAL"  # what a call has

    def __init__(self, server: Any) -> None:
        self.target = server.port
        self.answers: list[bytes] = []  # given in the place of the server's; it is not asked
        self.cuts = 0  # so many answers of the server are lost, and their connections
        self.calls = 0  # how many the server has got
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> Meddler:
        self._run(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in [self._listener, *self._sockets]:
            sock.close()

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                far = socket.create_connection(("127.0.0.1", self.target))
                self._sockets.append(far)
                cut = threading.Event()
                self._run(self._forward, near, far, cut)
                self._run(self._return, far, near, cut)

    def _forward(self, near: socket.socket, far: socket.socket, cut: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                if self.sign in data and self.answers:
                    near.sendall(self.answers.pop(0))
                    continue
                if self.sign in data:
                    self.calls += 1
                if self.sign in data and self.cuts:
                    self.cuts -= 1
                    cut.set()
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)

    def _return(self, far: socket.socket, near: socket.socket, cut: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                if cut.is_set():
                    break
                near.sendall(data)
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def sentinels(program: str, primary: RedisServer, count: int = 3) -> Iterator[list[RedisServer]]:
    """Sentinels that watch over a primary as `main`, and fail over within a second or two."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Sentinel(program, primary.port)) for _ in range(count)]
        known = f"sentinels={count}"
        wait_until(lambda: all(known in one.ask("INFO", "sentinel") for one in made))
        yield made


class Sentinel(RedisServer):
    """One that watches over the primary at a port; `lines` are more of its configuration."""

    def __init__(
        self, program: str, port: int, *lines: str, quorum: int = 2, tls: bool = False
    ) -> None:
        super().__init__(program, tls=tls)
        monitor = f"sentinel monitor main 127.0.0.1 {port} {quorum}"
        timing = "sentinel down-after-milliseconds main 500", "sentinel failover-timeout main 3000"
        (self.folder / "conf").write_text("\n".join([monitor, *timing, *lines, ""]))

    def command_line(self) -> list[str]:
        configuration = str(self.folder / "conf")
        return [
            *(self.program, configuration, "--sentinel", *self.ports()),
            *("--bind", "127.0.0.1", "--dir", str(self.folder)),
        ]


class ClusterNode(RedisServer):
    """One of the nodes of a Cluster; alone it owns nothing."""

    def __init__(self, program: str, *arguments: str, tls: bool = False) -> None:
        port = free_port(bus=True)
        self.bus = port + 10_000
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        super().__init__(program, *options, *arguments, port=port, tls=tls)

    @property
    def id(self) -> str:
        return self.ask("CLUSTER", "MYID").splitlines()[1]

    def meet(self, other: ClusterNode) -> None:
        answer = self.ask("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus)
        assert answer == "+OK\r\n", answer

    def follow(self, primary: ClusterNode) -> None:
        wait_until(lambda: self.ask("CLUSTER", "REPLICATE", primary.id) == "+OK\r\n")
        wait_until(lambda: "master_link_status:up" in self.ask("INFO", "replication"))


SLOTS = 16_384


@contextlib.contextmanager
def cluster(
    program: str, primaries: int = 3, replicas: int = 0, *arguments: str
) -> Iterator[list[ClusterNode]]:
    """A Cluster, ready: its primaries, each with an equal share of the slots, then replicas of
    the first one."""
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(ClusterNode(program, *arguments))
            for _ in range(primaries + replicas)
        ]
        for number, node in enumerate(nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < primaries:
                first, last = (SLOTS * part // primaries for part in (number, number + 1))
                answer = node.ask("CLUSTER", "ADDSLOTS", *range(first, last))
                assert answer == "+OK\r\n", answer
            if number:
                node.meet(nodes[0])
        wait_until(lambda: all(knows(node, len(nodes)) for node in nodes))
        for node in nodes[primaries:]:
            node.follow(nodes[0])
        yield nodes


def knows(node: ClusterNode, count: int) -> bool:
    info = node.ask("CLUSTER", "INFO")
    return "cluster_state:ok" in info and f"cluster_known_nodes:{count}" in info
