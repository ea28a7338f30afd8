"""`listen` and `publish` on the command line, as processes of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import pytest

from faye_wsgi import Channels, WebSocket

from ..conftest import find_program
from ..support.redis import RedisServer
from ..support.servers import ROOT, Server, serve
from ..test_main import command

TIMEOUT = 20.0
channels = Channels(history=100)
application = channels.view(lambda environ, action, channel: not channel.startswith("secret"))


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/cut":
        return cut(environ)(environ, start_response)  # type: ignore[no-any-return]
    return application(environ, start_response)  # type: ignore[no-any-return]


# What a server says to each connection, before it sends the client away. The last one shows what
# was asked for.
CUTS = [[(["a"], "10-e"), (["b"], "11-e")], [(["a"], "20-e")], []]


def cut(environ: dict[str, Any]) -> Any:
    ws = WebSocket(environ)
    asked = ws.receive_json(TIMEOUT)
    confirmed = CUTS.pop(0)
    for names, id in confirmed:
        ws.send_json({"subscribed": names, "id": id, "recovered": True})
    if not confirmed:
        ws.send_json({"channel": "a", "id": "30-e", "data": asked["since"]})
    ws.close(1001)
    return ws.response


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("gunicorn-gevent", "tests.cli.test_channels:app") as running:
        yield running


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT
    )


def listen(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command("listen", *arguments), stdout=pipe, stderr=pipe, text=True, cwd=ROOT
    )


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=TIMEOUT)


def test_publish_and_listen(server: Server) -> None:
    url = server.url("/channels")
    result = run("publish", url, "a", '{"text": "hellö"}')
    assert result.returncode == 0, result.stderr
    first = result.stdout.strip()
    listener = listen(url, "a", "b", "--last", "1")
    try:
        assert listener.stdout is not None
        line = json.loads(listener.stdout.readline())
        assert line == {"channel": "a", "id": first, "data": {"text": "hellö"}}
        second = run("publish", server.url("/channels", "ws"), "a", "no json").stdout.strip()
        line = json.loads(listener.stdout.readline())
        assert line == {"channel": "a", "id": second, "data": "no json"}
    finally:
        end(listener)
    listener = listen(url, "a", "--since", first)
    try:
        assert listener.stdout is not None
        assert json.loads(listener.stdout.readline())["id"] == second
    finally:
        end(listener)


def test_a_resume_that_is_cut_loses_nothing(server: Server) -> None:
    """Where one channel is confirmed, and another is not, both begin again where they were."""
    listener = listen(server.url("/cut"), "a", "b")
    try:
        assert listener.stdout is not None
        assert json.loads(listener.stdout.readline())["data"] == "11-e"
    finally:
        end(listener)


def test_a_key_publishes_once(server: Server) -> None:
    url = server.url("/")
    ids = {run("publish", url, "c", "1", "--key", "k").stdout for _ in range(2)}
    assert len(ids) == 1 and ids != {""}


@pytest.mark.parametrize(("action", "more"), [("publish", ["1"]), ("listen", [])])
def test_what_is_refused(server: Server, action: str, more: list[str]) -> None:
    result = run(action, server.url("/"), "secret", *more)
    assert result.returncode == 1 and "forbidden" in result.stderr and not result.stdout


def test_a_broker_is_asked_directly() -> None:
    result = run("publish", "memory://", "a", "1")
    assert result.returncode == 0 and "-" in result.stdout


def test_publishing_to_a_broker_leaves_the_history_there() -> None:
    with RedisServer(find_program("redis-server")) as redis:
        channels = Channels(redis.url, history=5)
        for number in range(3):
            channels.publish("a", number)
        assert run("publish", redis.url, "a", "3").returncode == 0
        assert [message.data for message in channels.history("a")] == [0, 1, 2, 3]
        assert run("publish", redis.url, "a", "4", "--history", "2").returncode == 0
        assert [message.data for message in channels.history("a")] == [3, 4]


@pytest.mark.parametrize(
    "arguments",
    [
        ["publish", "nonsense://", "a", "1"],
        ["listen", "memory://"],
        ["publish", "memory://", "$a", "1"],
    ],
)
def test_mistakes(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 64 and result.stderr
