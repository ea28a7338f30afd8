"""Presence and connections over the workers of gunicorn, on a real Redis."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from faye_wsgi import Channels, Client, ConnectionClosed, Message, WebSocket

from .conftest import find_program
from .support.redis import RedisServer
from .support.servers import Server, serve
from .support.waiting import wait_until

APP = "tests.test_channels_workers:application"
BOUND = 30.0  # seconds, for what comes in one or two

channels = Channels(os.environ.get("CHANNELS", "memory://"), history=100)
if "CHANNELS_OPTIONS" in os.environ:
    channels.configure(os.environ["CHANNELS"], **json.loads(os.environ["CHANNELS_OPTIONS"]))

FOUND: list[str] = []  # what the application has received before it was forked
if "PRELOAD" in os.environ:
    came = threading.Event()

    def note(message: Message) -> None:
        if message.data is not None:
            FOUND.append(message.data)
            came.set()

    subscription = channels.subscribe(note, "hall", presence={"id": "master"})
    channels.publish("hall", "from the master")
    assert came.wait(BOUND)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WebSocket for a member of a channel; a GET brings a crowd of members."""
    values = {name: one for name, (one, *_) in parse_qs(environ["QUERY_STRING"]).items()}
    if WebSocket.is_websocket(environ):
        ws = WebSocket(environ)
        ws.send(json.dumps({"worker": os.getpid(), "found": FOUND}))
        name, since = values.pop("channel"), values.pop("since", None)
        with channels.subscribe(ws, name, since=since, presence=values, user=values["id"]):
            for text in ws:
                channels.publish(name, text)
        return ws.response(environ, start_response)
    since = None
    for number in range(int(values.get("first", 0)), int(values.get("end", 0))):
        member = {"id": number}
        since = channels.subscribe(
            lambda message: None, values["channel"], since=since, presence=member
        ).cursor
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


class Visitor:
    """A member, and what it is told; the presence of others by their last announcement."""

    def __init__(self, server: Server, channel: str, id: str, **data: str) -> None:
        query = urlencode({"channel": channel, "id": id, **data})
        self.id = id
        self.ws = Client(server.url(f"/?{query}", "ws"), open_timeout=BOUND)
        hello = json.loads(self.ws.receive(BOUND))
        self.worker, self.found = hello["worker"], hello["found"]
        self.members: dict[str, Any] = {}
        self.left: list[str] = []
        self.count: int | None = None
        self.data: list[Any] = []

    def take(self, timeout: float = BOUND) -> None:
        message = json.loads(self.ws.receive(timeout))
        self.members.update(message.get("joined", {}))
        for member in message.get("left", ()):
            del self.members[member]
            self.left.append(member)
        self.count = message.get("count", self.count)
        self.data += [message["data"]] if "data" in message else []

    def until(self, condition: Callable[[], object]) -> None:
        """Read on until something is true."""
        deadline = time.monotonic() + BOUND
        while not condition():
            self.take(max(0.0, deadline - time.monotonic()))

    def until_here(self, *ids: str) -> None:
        self.until(lambda: self.members.keys() == set(ids))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer(find_program("redis-server")) as made:
        yield made


def environment(redis: RedisServer, **options: Any) -> dict[str, str]:
    return {"CHANNELS": redis.url, "CHANNELS_OPTIONS": json.dumps({"history": 100, **options})}


@pytest.fixture(scope="module")
def server(redis: RedisServer) -> Iterator[Server]:
    """Two workers, where leaves are announced soon."""
    options = {"leave_seconds": 0.3, "worker_seconds": 3, "prefix": "soon"}
    with serve("gunicorn-gevent", APP, workers=2, env=environment(redis, **options)) as made:
        yield made


@pytest.fixture
def visit() -> Iterator[Callable[..., Visitor]]:
    visitors: list[Visitor] = []

    def make(*args: Any, **data: str) -> Visitor:
        visitors.append(Visitor(*args, **data))
        return visitors[-1]

    yield make
    for one in visitors:
        one.ws.close()
    for one in visitors:
        one.ws.wait_closed(BOUND)


def visit_other_worker(visit: Callable[..., Visitor], other: Visitor, *args: Any) -> Visitor:
    """A visitor whose worker is not that of another one."""
    made = None
    while made is None or made.worker == other.worker:
        if made is not None:
            made.ws.close()
        made = visit(*args)
    return made


def test_two_windows_are_one_person(server: Server, visit: Callable[..., Visitor]) -> None:
    watcher = visit(server, "windows", "watcher")
    other = visit(server, "windows", "other")
    first = visit(server, "windows", "7", name="Ada")
    second = visit_other_worker(visit, first, server, "windows", "7")
    watcher.until(lambda: watcher.members == {"watcher": {}, "other": {}, "7": {}})
    second.until_here("watcher", "other", "7")
    first.ws.close()
    other.ws.close()
    watcher.until(lambda: watcher.left)
    assert watcher.left == ["other"]
    second.ws.close()
    watcher.until(lambda: len(watcher.left) > 1)
    assert watcher.left == ["other", "7"]


def test_the_members_of_a_killed_worker_leave(
    server: Server, visit: Callable[..., Visitor]
) -> None:
    watcher = visit(server, "killed", "watcher")
    lost = visit_other_worker(visit, watcher, server, "killed", "lost")
    both = [visit_other_worker(visit, one, server, "killed", "both") for one in (watcher, lost)]
    watcher.until_here("watcher", "lost", "both")
    assert {lost.worker, watcher.worker} == {one.worker for one in both}
    os.kill(lost.worker, signal.SIGKILL)
    watcher.until(lambda: watcher.left)
    assert watcher.left == ["lost"]
    assert watcher.members.keys() == {"watcher", "both"}


def test_a_thousand_members_are_only_counted(server: Server, visit: Callable[..., Visitor]) -> None:
    watcher = visit(server, "crowd", "watcher")
    watcher.until_here("watcher")
    for first in range(0, 1000, 250):
        assert server.get(f"/?channel=crowd&first={first}&end={first + 250}", BOUND)[0] == 200
    watcher.until(lambda: watcher.count == 1001)
    late = visit(server, "crowd", "late")
    late.until(lambda: late.count == 1002)
    assert late.members == {} and watcher.left == []
    late.ws.close()
    watcher.until(lambda: watcher.count == 1002)
    watcher.until(lambda: watcher.count == 1001)


def test_a_reload_shows_no_member_leaving(
    redis: RedisServer, visit: Callable[..., Visitor]
) -> None:
    env = environment(redis, prefix="reload")
    with serve("gunicorn-gevent", APP, workers=2, env=env) as server:
        before = {id: visit(server, "hall", id) for id in "abcdefg"}
        for one in before.values():
            one.until_here(*before)
        old, after = server.worker_pids(), dict(before)
        server.signal(signal.SIGHUP)
        while any(one.worker in old for one in after.values()):
            for id, one in list(after.items()):
                try:
                    one.take(0.02)
                except ConnectionClosed:
                    assert one.ws.close_code in (1001, 1012) and one.left == [], server.log()
                    after[id] = visit(server, "hall", id)
                except TimeoutError:
                    pass
        # Each of them sees all, also those who were on their way.
        for one in after.values():
            one.until_here(*before)
        # One that goes now is announced behind all that went before.
        after["g"].ws.close()
        for id in "abcdef":
            after[id].until(lambda one=after[id]: one.left)  # type: ignore[misc]
            assert after[id].left == ["g"]


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
def test_an_application_that_uses_channels_before_the_fork(
    kind: str, redis: RedisServer, visit: Callable[..., Visitor]
) -> None:
    """Made and used in the master (--preload). Presence and connections, in threads, too."""
    options = {"leave_seconds": 0.3, "prefix": f"preload {kind}"}
    env = {**environment(redis, **options), "PRELOAD": "1"}
    asking = Channels(redis.url, history=100, **options)
    with serve(kind, APP, workers=2, env=env, options=["--preload"]) as server:
        one = visit(server, "hall", "one", name="Ada")
        two = visit_other_worker(visit, one, server, "hall", "two")
        assert one.found == two.found == ["from the master"]
        for visitor in (one, two):
            visitor.until_here("master", "one", "two")
        one.ws.send("hello")
        for visitor in (one, two):
            visitor.until(lambda one=visitor: one.data == ["hello"])  # type: ignore[misc]
        assert {row["user"] for row in asking.connections(timeout=BOUND)} == {None, "one", "two"}
        assert asking.presence("hall")["one"].data == [{"name": "Ada"}]
        two.ws.close()
        one.until(lambda: one.left == ["two"])
        wait_until(lambda: len(asking.connections(timeout=2)) == 2)  # and the master's
        assert asking.history("hall")[0].data == "from the master"
    for relay in asking._use().relays:
        wait_until(lambda one=relay: not one._is_running)  # type: ignore[misc]
        relay.broker.close()
