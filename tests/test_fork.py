"""Views and scripts that fork in the middle of other conversations, under real servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from faye_wsgi import Client, ConnectionClosed, EventSource, WebSocket

from .support.certs import certificates
from .support.peer import Peer
from .support.servers import Server
from .support.servers import serve as run_server
from .support.sse import EventReader
from .support.waiting import wait_until
from .wsgi.test_echo import ALARM

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

APP = "tests.test_fork:application"
WAYS = ["multiprocessing", "fork", "exit"]
SERVED = [
    "gunicorn-gevent",
    "gunicorn-gevent+tls",
    "gunicorn-gevent_pywsgi",
    "gunicorn-gthread",
    "gunicorn-gthread+tls",
    "pywsgi",
    "pywsgi+tls",
    "wsgiref",
]
CROWD = 40

MEMBERS: list[Any] = []
CLOSED: list[Any] = []
PRELOADED = Client(os.environ["PRELOAD"]) if "PRELOAD" in os.environ else None
if PRELOADED is not None:
    PRELOADED.wait_open(10)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/talk":
        ws = WebSocket(environ)
        enter(ws)
        for message in ws:
            if message.startswith("{"):
                ws.send(fork(json.loads(message)))
            else:
                ws.send(f"{message} {os.getpid()}")
        return ws.response(environ, start_response)
    if path == "/listen":
        ws = WebSocket(environ)
        enter(ws)
        ws.on("message", lambda event: ws.send(f"{event.data} {os.getpid()}"))
        return ws.response(environ, start_response)
    if path == "/events":
        es = EventSource(environ, ping=0.05)
        enter(es)
        es.wait_closed(20)
        return es.response(environ, start_response)
    state = None if PRELOADED is None else int(PRELOADED.ready_state)
    body = json.dumps([len(MEMBERS), len(CLOSED), state]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def enter(connection: Any) -> None:
    MEMBERS.append(connection)
    connection.on("close", lambda event: CLOSED.append(os.getpid()))


def fork(order: dict[str, str]) -> str:
    """Forks, and waits for the child; what it has seen."""
    if order["way"] == "subprocess":
        command = [sys.executable, "-c", CONNECTED]
        return subprocess.run(
            command, stdout=subprocess.PIPE, close_fds=False, preexec_fn=os.getpid, check=True
        ).stdout.decode()
    folder = Path(order["folder"])
    if order["way"] == "multiprocessing":
        import multiprocessing

        process = multiprocessing.get_context("fork").Process(target=child, args=(folder,))
        process.start()
        process.join()
        code = process.exitcode
    else:
        pid = os.fork()
        if pid == 0:
            try:
                child(folder)
                if order["way"] == "exit":
                    import atexit

                    atexit._run_exitfuncs()
            finally:
                os._exit(0)
        code = os.waitpid(pid, 0)[1]
    return json.dumps([code, json.loads((folder / "seen").read_text())])


# Prints how many connected sockets a program has inherited.
CONNECTED = """
import os, socket
count = 0
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        sock = socket.socket(fileno=fd)
        sock.getpeername()
        count += 1
    except OSError:
        pass
print(count, end="")
"""


def child(folder: Path) -> None:
    """Lets its hub run until it may end, and looks at what it has inherited."""
    import gevent

    # The loop of gunicorn's gevent worker is in the child, too. It would stop it within a
    # second, since another process than gunicorn's master is its parent.
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if hasattr(worker, "ppid"):
        worker.ppid = os.getppid()
    (folder / "begun").touch()
    deadline = time.monotonic() + 20
    while not (folder / "end").exists() and time.monotonic() < deadline:
        gevent.sleep(0.005)
    seen = [[int(one.ready_state), sends(one), len(CLOSED)] for one in MEMBERS]
    (folder / "seen").write_text(json.dumps(seen))


def sends(connection: Any) -> bool:
    try:
        connection.send("from the child")
    except ConnectionClosed:
        return False
    return True


@pytest.fixture(scope="module", params=SERVED)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind, _, way = request.param.partition("+")
    # One thread for each of a crowd, where threads serve.
    threads = ["--threads", "60"] if kind == "gunicorn-gthread" else []
    with run_server(kind, APP, tls=way == "tls", options=threads) as running:
        yield running
        assert not ALARM.search(running.log()), running.log()


@pytest.mark.parametrize("way", WAYS)
def test_a_view_that_forks(server: Server, way: str, tmp_path: Path) -> None:
    """While the child lives, and after its end, the parent answers all."""
    before = json.loads(server.get("/")[1])[0]
    peers: list[Peer] = []
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(EventReader(server, "/events"))
        pieces = stream.pieces()
        next(pieces)
        for number in range(CROWD):
            peer = stack.enter_context(Peer(server))
            peers.append(peer.open("/talk" if number % 2 == 0 else "/listen"))
        parents = {ask(peer, "hello") for peer in peers}
        peers[0].send_text(json.dumps({"way": way, "folder": str(tmp_path)}))
        wait_until((tmp_path / "begun").exists, what="the child")
        for times in range(3):
            assert {ask(peer, f"meanwhile {times}") for peer in peers[1:]} == parents
        (tmp_path / "end").touch()
        code, seen = json.loads(peers[0].read_text())
        # In a thread of a ThreadPoolExecutor's (gthread), multiprocessing ends with 1 always.
        assert code == 0 or way == "multiprocessing" and "gthread" in server.kind
        assert [state for state, *_ in seen[-CROWD:]] == [3] * CROWD
        assert not any(sent for _, sent, _ in seen), "nothing can be sent there"
        assert len(seen) == before + CROWD + 1
        assert len({told for _, _, told in seen}) == 1
        assert {ask(peer, "after") for peer in peers} == parents
        assert next(pieces), "the stream goes on, too"
        for peer in peers:
            peer.finish()


def test_another_program(server: Server) -> None:
    """It inherits no connection, even where it inherits what it can."""
    with Peer(server).open("/talk") as asking, Peer(server).open("/listen") as other:
        asking.send_text(json.dumps({"way": "subprocess"}))
        assert asking.read_text() == "0"
        for peer in (asking, other):
            ask(peer, "still here")
            peer.finish()


def ask(peer: Peer, message: str) -> int:
    """Who has answered."""
    peer.send_text(message)
    text, _, pid = peer.read_text().rpartition(" ")
    assert text == message
    return int(pid)


def test_the_peers_end_is_told_while_a_child_lives(server: Server, tmp_path: Path) -> None:
    """No copy of a descriptor keeps a connection from its end."""
    with Peer(server).open("/talk") as forking, Peer(server).open("/talk") as leaving:
        forking.send_text(json.dumps({"way": "fork", "folder": str(tmp_path)}))
        wait_until((tmp_path / "begun").exists, what="the child")
        leaving.finish()
        (tmp_path / "end").touch()
        forking.read_text()
        forking.finish()


SCRIPT = """
import sys
if sys.argv[3] == "patched":
    from gevent import monkey
    monkey.patch_all()
import os
from faye_wsgi import Client, ConnectionClosed

def ask(ws, text):
    ws.send(text)
    answer = ws.receive(10)
    assert answer.startswith(text + " "), answer

options = {"ca": sys.argv[2]} if sys.argv[2] else {}
client = Client(sys.argv[1], **options)
ask(client, "before")
for number in range(3):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        assert client.ready_state == 3
        with client:
            try:
                client.send("from the child")
            except ConnectionClosed as error:
                print(error.reason)
        with Client(sys.argv[1], **options) as own:
            ask(own, "own")
        sys.exit(0)  # through atexit
    assert os.waitpid(pid, 0)[1] == 0
    ask(client, f"after {number}")
client.close()
client.wait_closed(10)
print("done", client.close_code)
"""


@pytest.mark.parametrize("patched", ["patched", "unpatched"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_script_with_a_client_that_forks(patched: str, tls: bool) -> None:
    with run_server("wsgiref", APP, tls=tls) as server:
        url = server.url("/talk", "ws").replace("127.0.0.1", "localhost" if tls else "127.0.0.1")
        ca = certificates().ca if tls else ""
        # Python 3.12 and later warn of forks where there are threads, as gevent's resolver has.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT]
        command += [url, str(ca), patched]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    lost = "the connection belongs to the parent of this process\n"
    assert done.stdout == 3 * lost + "done 1000\n"


def answer_of_a_worker(server: Server) -> object:
    """What a worker tells about the client; None from one that stops in the middle of it."""
    try:
        return json.loads(server.get("/")[1])[2]
    except (ConnectionError, ValueError):
        return None


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
def test_a_client_from_before_the_workers(kind: str) -> None:
    """Made by the application in gunicorn's master, with --preload: the workers lack it."""
    with run_server("wsgiref", APP) as target:
        url = target.url("/talk", "ws")
        options = {"options": ["--preload"], "env": {"PRELOAD": url}, "workers": 2}
        with run_server(kind, APP, **options) as server:  # type: ignore[arg-type]
            assert {json.loads(server.get("/")[1])[2] for _ in range(6)} == {3}
            for pid in server.worker_pids():
                os.kill(pid, signal.SIGTERM)
            wait_until(lambda: "Worker exiting" in server.log())
            wait_until(lambda: answer_of_a_worker(server) == 3)
            assert json.loads(target.get("/")[1])[:2] == [1, 0], "the master has it still"
        wait_until(lambda: json.loads(target.get("/")[1])[1] == 1)
