"""A Postgres server of the test's own, and PgBouncer before it: on free ports, in a folder."""

from __future__ import annotations

import atexit
import contextlib
import functools
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import servers
from .redis import Meddler, free_port
from .servers import STOP_TIMEOUT
from .waiting import wait_until

START_TIMEOUT = 60.0


def programs() -> Path:
    """Where Postgres's programs are: Debian keeps them out of the way. Skips the test."""
    if not servers.MAY_START:
        pytest.skip("it starts Postgres")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    newest = sorted(
        glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4])
    )
    places = os.pathsep.join([os.environ.get("PATH", ""), *newest[::-1]])
    found = shutil.which("initdb", path=places)
    if found is None:
        pytest.skip("Postgres is not installed")
    return Path(found).resolve().parent


def owner() -> dict[str, Any]:
    """Options of a subprocess: Postgres and PgBouncer refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def make_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder of the server's user."""
    folder = tempfile.TemporaryDirectory(prefix="faye_wsgi-postgres-")
    options = owner()
    if options:
        os.chown(folder.name, options["user"], options["group"])
    return folder


def run(*command: Any) -> None:
    done = subprocess.run(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=START_TIMEOUT,
        cwd="/",
        **owner(),
    )
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")


@functools.cache
def pristine(bin: Path) -> Path:
    """A folder with a new cluster, to be copied: making one takes seconds."""
    folder = make_folder()
    atexit.register(folder.cleanup)
    data = Path(folder.name) / "data"
    run(
        *(bin / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"),
        *("--locale=C", "--no-sync", "--no-instructions"),
    )
    return data


class Process:
    """A program that runs in a folder of its own; as a context manager it is started, and ends."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = make_folder()
        self.folder = Path(self._folder.name)
        self.process: subprocess.Popen[bytes] | None = None

    def __exit__(self, *exc: object) -> None:
        self.stop(signal.SIGKILL)
        self._folder.cleanup()

    def run(self, *command: Any) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                **owner(),
            )

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def stop(self, number: int) -> None:
        process, self.process = self.process, None
        if process is not None:
            if process.poll() is None:
                process.send_signal(number)
            process.wait(STOP_TIMEOUT)


class PostgresServer(Process):
    """`postgres` with settings (name=value), as a new cluster or a replica of another server."""

    def __init__(self, bin: Path, *settings: str, primary: PostgresServer | None = None) -> None:
        super().__init__()
        self.bin, self.settings, self.primary = bin, settings, primary
        self.data = self.folder / "data"

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> PostgresServer:
        try:
            self.make()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def make(self) -> None:
        """Fill the folder."""
        shutil.rmtree(self.data, ignore_errors=True)
        if self.primary is None:
            run("cp", "-a", pristine(self.bin), self.data)
        else:
            place = ("-h", "127.0.0.1", "-p", self.primary.port, "-U", "postgres")
            run(self.bin / "pg_basebackup", *place, "-D", self.data, "-R", "--no-sync", "-cfast")

    def start(self) -> None:
        settings = (
            *("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"),
            *("shared_buffers=16MB", "max_wal_size=256MB", *self.settings),
        )
        options = [word for setting in settings for word in ("-c", setting)]
        self.run(self.bin / "postgres", "-D", self.data, "-p", self.port, *options)
        wait_until(self.answers, START_TIMEOUT, "Postgres answers")

    def answers(self) -> bool:
        import psycopg

        assert self.process is not None and self.process.poll() is None, self.log()
        with contextlib.suppress(psycopg.OperationalError):
            self.ask("SELECT 1")
            return True
        return False

    def ask(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement, on a connection of its own."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def crash(self) -> None:
        """End it without a word: what was not on the disk is lost."""
        self.stop(signal.SIGQUIT)

    def restart(self) -> None:
        """End it properly, and start it."""
        self.stop(signal.SIGINT)
        self.start()

    def send_signal(self, number: int) -> None:
        """To all of its processes."""
        assert self.process is not None
        for pid in [self.process.pid, *self.children()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def children(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """As if its machine were frozen: connections stay, nothing answers."""
        self.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send_signal(signal.SIGCONT)

    def catch_up(self) -> None:
        """Let a replica have all that its primary has."""
        assert self.primary is not None
        [[place]] = self.primary.ask("SELECT pg_current_wal_insert_lsn()::text")
        reached = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        wait_until(lambda: self.ask(reached, place) == [(True,)], START_TIMEOUT)

    def promote(self) -> None:
        """Let a replica be a primary."""
        assert self.ask("SELECT pg_promote()") == [(True,)]


class PgBouncer(Process):
    """PgBouncer before a server; each transaction may get another one of its connections."""

    def __init__(self, program: str, server: PostgresServer, mode: str = "transaction") -> None:
        super().__init__()
        self.program = program
        (self.folder / "ini").write_text(
            "[databases]\n"
            f"postgres = host=127.0.0.1 port={server.port} dbname=postgres user=postgres\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = 3\n"
            "server_login_retry = 0.1\n"
        )

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> PgBouncer:
        try:
            self.run(self.program, self.folder / "ini")
            wait_until(self.listens, START_TIMEOUT, f"PgBouncer listens: {self.log()}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def listens(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()
        return "process up" in self.log()


class PostgresMeddler(Meddler):
    """A proxy that does harm to calls of functions."""

    sign = b".v1_"

    def __init__(self, server: PostgresServer) -> None:
        super().__init__(server)
        self.url = self.url.replace("redis://", "postgres://postgres@").replace("/0", "/postgres")
