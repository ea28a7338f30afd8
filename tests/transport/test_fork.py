"""A fork: the parent goes on with its connections, the child has none of them."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import gevent.socket
import pytest

from faye_wsgi import Client
from faye_wsgi.driver.base import ReadyState
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport import crossing, hubs
from faye_wsgi.wsgi import worker
from faye_wsgi.wsgi.hijack import VoidPair

from ..support import frames
from .harness import TIMEOUT, Pair, is_open, pair, turn, until

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    # Python 3.12 and later warn of it.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture
def both() -> Iterator[Pair]:
    with pair() as made:
        turn()
        yield made


def in_child(function: Callable[[], Any]) -> Any:
    """What `function` returns in a forked child. Meanwhile the parent's hub does not run."""
    ours, childs = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            result = ["returned", function()]
        except BaseException:
            result = ["raised", traceback.format_exc()]
        os.write(childs, json.dumps(result).encode())
        os._exit(0)
    os.close(childs)
    with open(ours) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    assert text, "the child did not end by itself"
    how, result = json.loads(text)
    assert how == "returned", result
    return result


def run_hub() -> None:
    """Long enough for the hub to do all that it has to do now."""
    gevent.sleep(0.1)


def closed_with(function: Callable[..., Any], *args: Any) -> str:
    try:
        function(*args)
    except ConnectionClosed as error:
        return str(error.reason)
    return "not closed"


def test_the_child_has_no_connection(both: Pair) -> None:
    def child() -> Any:
        connection = both.connection
        connection.close()
        return [
            connection.state,
            is_open(both.fd),
            closed_with(connection.inbox.receive),
            closed_with(connection.outbox.send, "hello"),
            connection.ping(b""),
            connection.outbox.buffered,
            connection.wait_closed(TIMEOUT),
            len(hubs.members(gevent.get_hub())),
        ]

    reason = "the connection belongs to the parent of this process"
    assert in_child(child) == [3, False, reason, reason, False, 0, None, 0]
    assert both.connection.state == ReadyState.OPEN


def test_the_parent_receives_what_comes_while_the_child_runs_its_hub(both: Pair) -> None:
    """The child's hub has the parent's watchers; its epoll set must not be the parent's."""
    both.peer.send_text("before")

    def child() -> None:
        run_hub()
        gc.collect()
        run_hub()

    for _ in range(3):
        in_child(child)
        both.peer.send_text("after")
        assert both.connection.inbox.receive(TIMEOUT) in ("before", "after")
        assert both.connection.inbox.receive(TIMEOUT) == "after"
        both.peer.send_text("before")
    both.connection.inbox.receive(TIMEOUT)
    both.connection.outbox.send("answer")
    assert both.peer.read_text() == "answer"


def test_the_end_of_the_child_ends_nothing(both: Pair) -> None:
    in_child(worker._at_exit)
    in_child(gc.collect)
    both.connection.outbox.send("still here")
    assert both.peer.read_text() == "still here"


def test_what_waits_to_be_written_is_the_parents(both: Pair) -> None:
    message = os.urandom(4_000_000)
    both.connection.outbox._high_water = len(message) + 100
    both.connection.outbox.send(message)
    waiting = both.connection.outbox.buffered
    data = b""
    both.peer.sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            data += both.peer.sock.recv(65536)
    both.peer.sock.settimeout(TIMEOUT)  # the kernel has room now, and the hub has not run
    assert in_child(run_hub) is None
    assert both.connection.outbox.buffered == waiting
    expected = frames.frame(frames.BINARY, message, mask=None)
    while len(data) < len(expected):
        data += both.peer.sock.recv(65536)
    assert data == expected


def test_a_greenlet_that_waits_goes_on_in_the_parent_only(both: Pair) -> None:
    woken: list[Any] = []

    def wait(timeout: float | None) -> None:
        try:
            woken.append(both.connection.inbox.receive(timeout))
        except BaseException as error:
            woken.append(type(error).__name__)

    gevent.spawn(wait, None)
    gevent.spawn(wait, 0.05)
    closing = gevent.spawn(both.connection.wait_closed)
    gevent.sleep(0)
    both.peer.send_text("one")

    def child() -> list[Any]:
        run_hub()
        gc.collect()
        run_hub()
        return [*woken, closing.dead]

    assert in_child(child) == [False]
    until(lambda: len(woken) == 2)
    assert sorted(woken) == ["TimeoutError", "one"]


def test_no_listener_runs_in_the_child(both: Pair) -> None:
    """Neither for what has arrived, nor for the end, nor where one is set later."""
    both.sink.record("message", "close", "error")
    both.peer.send(frames.text("one") + frames.text("two"))

    def child() -> list[str]:
        both.sink.record("close")
        both.connection.connection_lost("torn")
        run_hub()
        both.sink.record("close")
        run_hub()
        return both.sink.names

    assert in_child(child) == []
    until(lambda: both.sink.names == ["message", "message"])


def test_a_listener_that_forks_and_goes_on_in_the_child(both: Pair) -> None:
    """What follows in the queue is not told there."""
    ours, childs = os.pipe()
    pids: list[int] = []
    heard: list[str] = []

    def listen(event: Any) -> None:
        heard.append(event.data)
        if event.data == "fork":
            pids.append(os.fork())

    both.sink.on("message", listen)
    both.peer.send(b"".join(map(frames.text, ["fork", "next", "last"])))
    until(lambda: bool(pids))
    if pids[0] == 0:
        signal.alarm(20)
        with contextlib.suppress(BaseException):
            run_hub()
        os.write(childs, json.dumps(heard).encode())
        os._exit(0)
    os.close(childs)
    with open(ours) as pipe:
        assert json.load(pipe) == ["fork"]
    os.waitpid(pids[0], 0)
    until(lambda: len(heard) == 3)


def test_the_child_has_connections_of_its_own(both: Pair) -> None:
    def child() -> str:
        with pair() as own:
            own.sink.on("message", lambda event: own.connection.outbox.send(event.data + "!"))
            own.peer.send_text("hello")
            answer = own.peer.read_text()
        return answer

    assert in_child(child) == "hello!"
    assert in_child(lambda: in_child(child)) == "hello!"
    both.peer.send_text("and the parent")
    assert both.connection.inbox.receive(TIMEOUT) == "and the parent"


def test_a_client_that_connects_goes_on_in_the_parent_only() -> None:
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = Client(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(TIMEOUT)
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += accepted.recv(65536)
            key = data.partition(b"Sec-WebSocket-Key: ")[2].split()[0].decode()
            accepted.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
                + frames.accept(key).encode()
                + b"\r\n\r\n"
            )

            def child() -> int:
                run_hub()
                return client.ready_state

            assert in_child(child) == 3
            client.wait_open(TIMEOUT)
            client.send("hello")
            assert frames.read_frame(accepted).text == "hello"
            client.close()
        client.wait_closed(TIMEOUT)


def test_a_fork_in_another_thread(both: Pair) -> None:
    results: list[Any] = []

    def child() -> Any:
        with pair() as own:
            own.peer.send_text("own")
            got = own.connection.inbox.receive(TIMEOUT)
        return [both.connection.state, closed_with(both.connection.inbox.receive), got]

    thread = threading.Thread(target=lambda: results.append(in_child(child)))
    thread.start()
    thread.join(TIMEOUT)
    assert results == [[3, "the connection belongs to the parent of this process", "own"]]
    both.peer.send_text("hello")
    assert both.connection.inbox.receive(TIMEOUT) == "hello"


def test_connections_of_another_thread() -> None:
    """The child has no such thread, which does not mean that it has ended."""
    forked, opened = threading.Event(), threading.Event()
    answers: list[Any] = []
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def connect() -> None:
            client = Client(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
            client.wait_open(TIMEOUT)
            opened.set()
            forked.wait(TIMEOUT)
            answers.append(client.receive(TIMEOUT))
            client.close()
            client.wait_closed(TIMEOUT)

        thread = threading.Thread(target=connect)
        thread.start()
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(TIMEOUT)
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += accepted.recv(65536)
            key = data.partition(b"Sec-WebSocket-Key: ")[2].split()[0].decode()
            accepted.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
                + frames.accept(key).encode()
                + b"\r\n\r\n"
            )
            assert opened.wait(TIMEOUT)
            in_child(gc.collect)
            accepted.sendall(frames.frame(frames.TEXT, "hello", mask=None))
            forked.set()
            assert frames.read_frame(accepted).opcode == frames.CLOSE
        thread.join(TIMEOUT)
    assert answers == ["hello"]


def test_a_lock_that_another_thread_holds_at_the_fork() -> None:
    with crossing._counting:
        assert in_child(lambda: crossing._counting.acquire(False))


def test_what_a_server_writes_to_the_void_is_the_parents() -> None:
    void = VoidPair()
    server = socket.socket(fileno=void.give())
    server.sendall(b"HTTP/1.1 503 Busy\r\n\r\n")
    assert in_child(void.finish) is None
    assert void.finish() == 503
    server.close()


STREAM = """
from gevent import monkey
monkey.patch_all()
import gevent, json, os, sys
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport.iterable import Body, IterableStream
from faye_wsgi.transport.settings import Settings
from tests.transport.harness import Sink

def send(what):
    try:
        stream.send(what)
    except ConnectionClosed:
        return "closed"

def serve():
    for piece in Body(stream):
        pieces.append(piece.decode())

sink, pieces = Sink(), []
stream = IterableStream(sink, Settings(ping=0.05), b":")
sink.connection = stream
server = gevent.spawn(serve)
stream.send(b"one")
gevent.sleep(0)
pid = os.fork()
if pid == 0:
    stream.close()
    sink.record("close")
    closed = send(b"two")
    gevent.sleep(0.3)
    print(json.dumps([stream.state, closed, sink.names, pieces, server.dead]), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
stream.send(b"two")
stream.close()
server.join(5)
print(json.dumps([piece for piece in pieces if piece != ":"]), flush=True)
"""


def test_a_stream_through_an_iterable() -> None:
    """The greenlet of the server that sends it is in the child, too, and must not go on."""
    done = subprocess.run(
        [sys.executable, "-c", STREAM], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    child, parent = map(json.loads, done.stdout.splitlines())
    assert child == [3, "closed", [], ["one"], False]
    assert parent == ["one", "two"]


def test_descriptors_are_not_inherited_by_another_program(both: Pair) -> None:
    before = descriptors()
    void = VoidPair()
    with pair(), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = Client(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
        until(lambda: len(descriptors() - before) >= 6)
        ours = {both.fd, *(descriptors() - before)}
        assert [fd for fd in ours if os.get_inheritable(fd)] == []
        client.close()
        client.wait_closed(TIMEOUT)
    void.finish()
    os.close(void.give())


def descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if is_open(int(name))}
