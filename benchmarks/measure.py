"""Builds the C programs, runs a server and the load generator, and reads what a run has cost.

Where there are two processors, the server has one and the load generator the other.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import zlib
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from .deflate import message
from .scenarios import Scenario
from .servers import BUILD, CLIENTS, FOLDER, HERE, Server

START_TIMEOUT = 15
RUN_TIMEOUT = 120  # for the load generator, beyond the seconds it measures
WARM_CONNECTIONS = 100  # opened before memory is first read: one-time costs do not count
SETTLE = 1.0  # seconds for garbage to go before memory is read
TOO_BUSY = 0.05  # of the time the generator was idle: it may be what is measured
DISTURBED = 0.05  # of the time the server waited for its processor

Figures = dict[str, Any]


class Failed(Exception):
    """A server did not start, or a run went wrong; the text says why."""


# ---------------------------------------------------------------- the machine


def processors() -> list[int]:
    """The processors that this process may use."""
    return sorted(os.sched_getaffinity(0))


def is_shared() -> bool:
    """Whether server and load generator must share one processor."""
    return len(processors()) < 2


def build() -> None:
    """Compile the C programs that are older than their source, and make what scenarios need."""
    BUILD.mkdir(exist_ok=True)
    for source in HERE.glob("*.c"):
        program = BUILD / source.stem
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            compile_program(source, program)
    if not (BUILD / "cert.pem").exists():
        make_certificate()
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(message(1024, 0).encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
    (BUILD / "message.deflate").write_bytes(packed[:-4])  # RFC 7692, 7.2.1


def compile_program(source: Path, program: Path) -> None:
    """With OpenSSL, or without where that cannot be compiled."""
    command = [os.environ.get("CC", "cc"), "-O2", "-o", str(program), str(source)]
    with_tls = subprocess.run(
        [*command, "-DWITH_TLS", "-lssl", "-lcrypto"], stderr=subprocess.DEVNULL, check=False
    )
    if with_tls.returncode:
        subprocess.run(command, check=True)


def make_certificate() -> None:
    """A certificate for the servers that speak TLS, if openssl is here."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
        "-days 3650 -subj /CN=localhost -keyout key.pem -out cert.pem"
    )
    with contextlib.suppress(OSError):
        subprocess.run(command.split(), cwd=BUILD, stderr=subprocess.DEVNULL, check=False)


def raise_limits() -> None:
    """Let the servers that we start have as many descriptors as the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---------------------------------------------------------------- a server


def children(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            for child in task.read_text().split():
                found += children(int(child))
    return found


def is_redis(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("redis-server")


def memory_of(pid: int) -> int:
    """KiB of memory of one process, pages that it shares counted in part (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise Failed(f"no memory figure for process {pid}")


def environment() -> dict[str, str]:
    """Lets servers and clients find this package, and not one that is installed."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


class Running:
    """A server that runs for the length of a `with` block."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port = free_port()
        self._log = tempfile.TemporaryFile("w+")

    def __enter__(self) -> Running:
        pin = functools.partial(os.sched_setaffinity, 0, processors()[:1])
        try:
            self._process = subprocess.Popen(
                self.server.command(self.port),
                cwd=FOLDER,
                env={**environment(), **dict(self.server.environment)},
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
                preexec_fn=pin,
            )
        except OSError as error:
            raise Failed(str(error)) from None
        try:
            self._wait_until_it_answers()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def pids(self) -> list[int]:
        return children(self._process.pid)

    def memory(self) -> int:
        """KiB of memory of all its processes."""
        time.sleep(SETTLE)
        return sum(memory_of(pid) for pid in self.pids())

    def waited(self) -> float:
        """Seconds for which its main threads could have run, and other programs did."""
        delays = [Path(f"/proc/{pid}/schedstat").read_text().split()[1] for pid in self.pids()]
        return sum(int(delay) for delay in delays) / 1e9

    def last_words(self) -> str:
        """The last error that it wrote, or else its last line."""
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        return (errors or lines or ["it said nothing"])[-1]

    def _wait_until_it_answers(self) -> None:
        # An open port is not enough: a master listens long before its worker can answer.
        deadline = time.monotonic() + START_TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    break
            except OSError:
                time.sleep(0.05)
        one = [*self.server.check, "--messages", "1", "--timeout", str(START_TIMEOUT), "--no-spin"]
        try:
            read_line(generator(self, one))
        except Failed as error:
            raise Failed(f"did not start: {error}; {self.last_words()}") from None

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # the session that we made for it
        except ProcessLookupError:
            pass
        self._process.wait()
        self._log.close()


# ---------------------------------------------------------------- the load generator


def generator(running: Running, arguments: list[str]) -> subprocess.Popen[str]:
    """Start the load generator against a server."""
    server = running.server
    command = [str(BUILD / "loadgen"), "--port", str(running.port), "--path", server.path]
    command += ["--cpu", str(processors()[-1])] + arguments
    command += ["--raw"] if server.raw else []
    command += ["--tls"] if server.tls else []
    command += ["--socketio"] if server.socketio else []
    command += ["--no-spin"] if is_shared() else []
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def read_line(process: subprocess.Popen[str], timeout: float = RUN_TIMEOUT) -> Figures:
    """Wait for the generator to end, and take its figures."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed("the load generator did not end") from None
    figures: Figures = json.loads(output or '{"error": "the load generator, or the client, died"}')
    if "error" in figures:
        raise Failed(str(figures["error"]))
    return figures


def traffic(running: Running, scenario: Scenario, seconds: float) -> Figures:
    """Measure messages for some seconds; the processor time of a Redis is counted apart."""
    arguments = scenario.arguments() + ["--seconds", str(seconds)]
    if scenario.load:
        whole = traffic(running, replace(scenario, load=0), seconds)
        capacity = 1e6 / (whole["cpu_us"] + whole["redis_us"])  # they share one processor
        arguments += ["--rate", str(scenario.load * capacity / scenario.connections)]
    for option, redis in (("--pids", False), ("--broker", True)):
        pids = [str(pid) for pid in running.pids() if is_redis(pid) is redis]
        arguments += [option, ",".join(pids)]
    waited, started = running.waited(), time.monotonic()
    figures = read_line(generator(running, arguments), RUN_TIMEOUT + seconds)
    figures["waited"] = (running.waited() - waited) / (time.monotonic() - started)
    if not figures["messages"]:
        raise Failed("no message came back")
    figures["cpu_us"] = figures["cpu_seconds"] * 1e6 / figures["messages"]
    figures["redis_us"] = figures["broker_seconds"] * 1e6 / figures["messages"]
    return figures


def client_traffic(running: Running, scenario: Scenario, seconds: float) -> Figures:
    """Measure a client, a program of its own, that echoes with the running server."""
    figures = run_client(running, [scenario.window, scenario.size, seconds], seconds)
    figures["cpu_us"] = figures["cpu_seconds"] * 1e6 / figures["messages"]
    figures["rate"] = figures["messages"] / figures["seconds"]
    return {**figures, "p50_us": 0, "p99_us": 0}


def deploy(running: Running, scenario: Scenario, seconds: float) -> Figures:
    """Replace the workers of a server under its clients; the clients measure it."""
    return run_client(running, [scenario.connections], 2 * RUN_TIMEOUT)


def run_client(running: Running, arguments: list[Any], seconds: float) -> Figures:
    """The figures of a client that runs for so many seconds."""
    command = running.server.client_command(running.port) + [str(one) for one in arguments]
    pin = functools.partial(os.sched_setaffinity, 0, processors()[-1:])
    process = subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.PIPE,
        cwd=CLIENTS,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=pin,
    )
    return read_line(process, RUN_TIMEOUT + seconds)


class Held:
    """Idle connections, open for the length of a `with` block."""

    def __init__(self, running: Running, arguments: list[str]) -> None:
        self._process = generator(running, arguments + ["--timeout", "60"])

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        try:
            figures = json.loads(self._process.stdout.readline() or '{"error": "died"}')
            if "error" in figures:
                raise Failed(str(figures["error"]))
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate("\n", timeout=20)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()


def idle_memory(running: Running, scenario: Scenario, seconds: float = 0) -> Figures:
    """Measure how much memory each open connection takes."""
    warm = Scenario("", "", "idle", connections=WARM_CONNECTIONS)
    with Held(running, warm.arguments()):
        before = running.memory()
        with Held(running, scenario.arguments()):
            after = running.memory()
    return {
        "memory_kib": (after - before) / scenario.connections,
        "before_kib": before,
        "after_kib": after,
        "connections": scenario.connections,
    }


def measure(running: Running, scenario: Scenario, seconds: float) -> Figures:
    """One round of one scenario against one server."""
    modes = {"idle": idle_memory, "client": client_traffic, "deploy": deploy}
    run = modes.get(scenario.mode, traffic)
    return run(running, scenario, seconds)


def notes(rounds: list[Figures]) -> str:
    """What a reader must know about these figures."""
    starved = max(figures.get("starved", 0) for figures in rounds)
    busy = min(figures.get("generator_idle", 1) for figures in rounds) < TOO_BUSY
    found = [f"{starved} connections got nothing"] if starved else []
    found += ["limited by the load generator"] if busy else []
    redis = statistics.median(figures.get("redis_us", 0) for figures in rounds)
    found += [f"and Redis {redis:.2f} µs"] if redis else []
    waited = statistics.median(figures.get("waited", 0) for figures in rounds)
    if waited > DISTURBED:
        found += [f"its threads waited for their processor {waited:.0%} of the time"]
    return "; ".join(found)
