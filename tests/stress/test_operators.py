"""What operators do to a worker: kill it, stop it, block it, take its descriptors, fill its pool.

Restarts are in test_restart.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import pytest

from ..support import frames
from ..support.peer import Peer
from ..support.servers import Server
from ..support.servers import serve as run_server
from ..support.waiting import wait_until
from .harness import APP, TIMEOUT, Client, settled, wait_for_held

Delay = Callable[[Server], contextlib.AbstractContextManager[None]]
PING = 0.2
PING_TIMEOUT = 1.0
PAUSE = 1.5  # enough for the deadline of a ping to pass
OURS = re.compile(r"faye_wsgi/(driver|transport|wsgi)/")  # in a traceback


def serve(*options: str, **more: Any) -> Any:
    return run_server("gunicorn-gevent", APP, options=options, **more)


# A worker that is killed


def by_worker(server: Server, clients: list[Client]) -> dict[int, list[Client]]:
    """The clients of each worker, which is known by the addresses of its descriptors."""
    found: dict[int, list[Client]] = {pid: [] for pid in server.worker_pids()}
    inodes = {address: inode for address, inode in established(server.port)}
    for client in clients:
        inode = inodes[client.sock.getsockname()[1]]
        for pid in found:
            if f"socket:[{inode}]" in descriptors(pid):
                found[pid].append(client)
    return found


def descriptors(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    found = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # it has been closed meanwhile
            found.append(os.readlink(f"{folder}/{name}"))
    return found


def established(port: int) -> Iterator[tuple[int, str]]:
    """The ports of the clients of a server, and the inodes of its ends."""
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    for row in rows:
        if int(row[1].split(":")[1], 16) == port and row[9] != "0":
            yield int(row[2].split(":")[1], 16), row[9]


def test_a_worker_that_is_killed_takes_its_own_clients_alone() -> None:
    with serve(workers=2) as server:
        clients = [Client(server).open("/events") for _ in range(40)]
        groups = by_worker(server, clients)
        assert sum(map(len, groups.values())) == 40
        killed = max(groups, key=lambda pid: len(groups[pid]))
        os.kill(killed, signal.SIGKILL)
        for client in groups.pop(killed):
            client.read_eof()  # without a close frame: 1006
        for client in next(iter(groups.values())):
            client.echo()
        wait_until(lambda: len(set(server.worker_pids()) - {killed}) == 2, TIMEOUT)
        for _ in range(10):
            with Client(server) as client:
                client.open("/events").finish()
        for client in clients:
            client.close()
        assert "Traceback" not in server.log()


# A worker that is late: its peers have answered meanwhile, and must not be given up


@contextlib.contextmanager
def stopped(server: Server) -> Iterator[None]:
    (pid,) = server.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
        gevent.sleep(PAUSE)
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def blocked(server: Server) -> Iterator[None]:
    with Client(server) as client:
        client.send(f"GET /block?seconds={PAUSE} HTTP/1.0\r\n\r\n".encode())
        wait_until(lambda: "it blocks" in server.log(), TIMEOUT)
        yield
        client.read_eof()


def answer_ping(client: Client) -> None:
    frame = client.read()
    assert frame.opcode == frames.PING
    client.send(frames.frame(frames.PONG, frame.payload))


@pytest.mark.parametrize("path", ["/events", "/echo"])
@pytest.mark.parametrize("delay", [stopped, blocked])
def test_a_late_hub_holds_no_ping_against_its_peers(delay: Delay, path: str) -> None:
    with serve() as server, Client(server) as client:
        client.open(f"{path}?ping={PING}&ping_timeout={PING_TIMEOUT}")
        ping = client.read()
        assert ping.opcode == frames.PING
        with delay(server):
            client.send(frames.frame(frames.PONG, ping.payload))
        for _ in range(2):
            answer_ping(client)
        client.text("still here")
        while (frame := client.read()).opcode == frames.PING:
            pass
        assert frame.text == "still here"


@pytest.mark.parametrize("delay", [stopped, blocked])
def test_a_late_hub_gives_up_peers_that_are_dead(delay: Delay) -> None:
    with serve() as server, Client(server) as silent:
        silent.open(f"/events?ping={PING}&ping_timeout={PING_TIMEOUT}")
        assert silent.read().opcode == frames.PING
        with delay(server):
            pass
        silent.read_eof()


@pytest.mark.parametrize("delay", [stopped, blocked])
def test_a_late_hub_holds_no_half_message_against_its_peers(delay: Delay) -> None:
    with serve() as server, Client(server) as client:
        client.open("/echo?message_timeout=1.0")
        whole = frames.text("in two halves")
        client.send(whole[:-5])
        with delay(server):
            pass
        client.send(whole[-5:])
        assert client.read().text == "in two halves"
        client.finish()


# Out of descriptors


def test_a_worker_goes_on_when_descriptors_come_back() -> None:
    with serve() as server:
        (pid,) = server.worker_pids()
        with Client(server) as client:
            client.open("/events").finish()
        before = settled(server)
        held = [Client(server).open("/events") for _ in range(5)]
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        few = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 4
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, most))
        crowd = [Client(server) for _ in range(20)]
        for client in crowd:
            client.send(frames.handshake("/events", host=server.host_header))
        wait_until(lambda: "Too many open files" in server.log(), TIMEOUT)
        for client in held:
            client.echo("as ever")
        for client in crowd:
            client.close()
        with Client(server) as client:
            client.open("/events").finish()
        for client in held:
            client.finish()
        wait_for_held(server, before)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
        assert server.worker_pids() == [pid]
        assert not OURS.search(server.log())  # what is said of it is gevent's


# A full pool


def is_answered(peer: Peer, seconds: float) -> bool:
    peer.sock.settimeout(seconds)
    try:
        return bool(peer.sock.recv(1, socket.MSG_PEEK))
    except OSError:  # its timeout
        return False


def test_views_that_wait_fill_the_pool_and_listeners_do_not() -> None:
    with serve("--worker-connections", "4") as server:
        listeners = [Client(server).open("/events") for _ in range(20)]
        waiting = [Client(server).open("/echo") for _ in range(4)]
        with Peer(server) as late:
            late.send(frames.handshake("/echo", host=server.host_header))
            assert not is_answered(late, 0.5)
            for client in (*listeners, *waiting):
                client.echo()
            waiting.pop().finish()
            assert late.read_head().status == 101
        for client in (*listeners, *waiting):
            client.finish()
        assert "Traceback" not in server.log()
