"""channels.js in Chromium under gunicorn: pages that lose their connection, and lose no message.

The application is this file: a page, its script, and the endpoint. Its Content-Security-Policy lets
nothing in that does not come from itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterable, Iterator
from typing import Any, Callable
from urllib.parse import urlencode

import pytest

from faye_wsgi import Channels, WebSocket

from ..conftest import find_program
from ..support.browser import Page, page
from ..support.nginx import nginx
from ..support.redis import RedisServer
from ..support.servers import Server, serve
from ..support.waiting import wait_until

APP = "tests.browser.test_channels:application"
POLICY = "default-src 'self'"
PAGE = """<!doctype html><meta charset=utf-8><title>channels</title>
<link rel=icon href="data:,"><script type=module src=/page.js></script>"""
SCRIPT = """
import { connect, ChannelsError } from '/channels';
window.got = [];
window.states = [];
window.faults = [];
window.ChannelsError = ChannelsError;
addEventListener('unhandledrejection', ({ reason }) => faults.push('rejection ' + reason));
addEventListener('error', ({ message }) => faults.push('error ' + message));
addEventListener('securitypolicyviolation', ({ blockedURI }) => faults.push('CSP ' + blockedURI));
const options = new URLSearchParams(location.search);
window.delays = [];
window.connectTo = (url) => {
  const times = JSON.parse(options.get('times') ?? '{}');
  window.channels = connect(url, { since: options.get('since'), times });
  channels.onState((state) => {
    states.push(state);
    if (state === 'waiting') delays.push(channels.retryAt - Date.now());
  });
};
connectTo('/channels');
window.joined = {};
window.join = (channel, options) => {
  const listener = (data) => got.push([channel, data]);
  const one = joined[channel] = channels.subscribe(channel, listener, options);
  one.onReset(() => got.push([channel, 'reset']));
  one.onError((error) => got.push([channel, error.code]));
  return one;
};
"""

channels = Channels(os.environ.get("CHANNELS_URL", "memory://"), history=1000)


def authorize(environ: dict[str, Any], action: str, channel: str) -> Any:
    if channel.startswith("secret"):
        return False
    if channel.startswith("people"):
        return {"presence": {"id": environ["HTTP_USER_AGENT"][-3:], "name": "Ada"}}
    return True


endpoint = channels.view(authorize)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/channels":
        return endpoint(environ, start_response)  # type: ignore[no-any-return]
    if path == "/busy":
        busy = WebSocket(environ)
        busy.close(1013, "too slow")
        return busy.response(environ, start_response)  # type: ignore[no-any-return]
    kind, body = {
        "/page.js": ("text/javascript", SCRIPT),
        "/cursor": ("text/plain", channels.cursor("a", "b")),
    }.get(path, ("text/html", PAGE))
    policy = POLICY + "; img-src data:" if kind == "text/html" else POLICY
    start_response("200 OK", [("Content-Type", kind), ("Content-Security-Policy", policy)])
    return [body.encode()]


# The tests


@pytest.fixture
def server() -> Iterator[Server]:
    with serve("gunicorn-gevent", APP) as running:
        yield running


@pytest.fixture
def new_page() -> Iterator[Callable[..., Page]]:
    """Opens pages, which have no faults at the end."""
    with contextlib.ExitStack() as stack:
        pages: list[Page] = []

        def make(url: str) -> Page:
            window = stack.enter_context(page())
            window.open(url)
            window.wait(lambda w: w.run("return !!window.channels"))
            pages.append(window)
            return window

        yield make
        for window in pages:
            assert window.run("return faults") == []


def join(window: Page, *names: str, **options: Any) -> None:
    for name in names:
        window.run("join(arguments[0], arguments[1])", name, options)
    script = "return arguments[0].every((name) => joined[name].isConfirmed)"
    allowed = [name for name in names if name != "secret"]
    window.wait(lambda w: w.run(script, allowed), 20, f"{names} to be subscribed")


def publish(window: Page, channel: str, data: Any) -> str:
    result = window.run_async(
        "const [channel, data, done] = arguments;"
        "channels.publish(channel, data).then(done, (error) => done('failed ' + error.code));",
        channel,
        data,
    )
    return str(result)


def got(window: Page) -> list[Any]:
    return list(window.run("return got"))


def wait_got(window: Page, *expected: list[Any], timeout: float = 20) -> None:
    window.wait(lambda w: got(w) == list(expected), timeout, f"{expected}")


def wait_online(window: Page, transport: str = "websocket", timeout: float = 30) -> None:
    window.wait(lambda w: w.run("return channels.transport") == transport, timeout, transport)


def test_two_pages(server: Server, new_page: Any) -> None:
    ada, ben = new_page(server.url("/")), new_page(server.url("/"))
    for window in (ada, ben):
        join(window, "a", "b", "secret")
        wait_online(window)
        wait_got(window, ["secret", "forbidden"])
    for number in range(3):
        assert "-" in publish(ada, "ab"[number % 2], number)
    assert publish(ada, "secret", 1) == "failed forbidden"
    expected = [["secret", "forbidden"], ["a", 0], ["b", 1], ["a", 2]]
    for window in (ada, ben):
        wait_got(window, *expected)
    history = ada.run("return channels.history('a', {limit: 1})")
    assert history[0]["data"] == 2


def test_the_cursor_of_the_page(server: Server, new_page: Any) -> None:
    ada = new_page(server.url("/"))
    cursor = server.get("/cursor")[1].decode()
    publish(ada, "a", 1)
    publish(ada, "b", 2)
    ben = new_page(server.url(f"/?since={cursor}"))
    join(ben, "a", "b")  # in this order, also where each is asked for by itself
    wait_got(ben, ["a", 1], ["b", 2])
    join(ben, "c", last=5)
    publish(ada, "c", 3)
    wait_got(ben, ["a", 1], ["b", 2], ["c", 3])


def test_who_is_there(server: Server, new_page: Any) -> None:
    ada = new_page(server.url("/"))
    ada.run("window.seen = []; join('people').onPresence(({ count }) => seen.push(count))")
    ada.wait(lambda w: w.run("return seen") == [1])
    members = ada.run("return channels.presence('people')")
    assert members["count"] == 1 and next(iter(members["members"].values())) == [{"name": "Ada"}]


def test_a_worker_that_restarts(server: Server, new_page: Any) -> None:
    """It loses what is in memory: that is said, and the page goes on."""
    ada = new_page(server.url("/"))
    join(ada, "a")
    wait_online(ada)
    publish(ada, "a", 1)
    wait_got(ada, ["a", 1])
    (worker,) = server.worker_pids()
    server.signal(signal.SIGHUP)
    wait_until(lambda: worker not in server.worker_pids(), 20, "another worker")
    wait_got(ada, ["a", 1], ["a", "reset"])
    publish(ada, "a", 2)
    wait_got(ada, ["a", 1], ["a", "reset"], ["a", 2])


def test_two_workers_and_redis_restart(new_page: Any) -> None:
    """All workers restart, later Redis with its data: the pages show each number, in order."""
    program = find_program("redis-server")
    with RedisServer(program, "--appendonly", "yes", "--appendfsync", "always") as redis:
        env = {"CHANNELS_URL": f"{redis.url}?durable=1"}
        with serve("gunicorn-gevent", APP, workers=2, env=env) as server:
            ada, ben = new_page(server.url("/")), new_page(server.url("/"))
            for window in (ada, ben):
                join(window, "a", "b")
            ada.run(
                "window.count = 0; window.timer = setInterval(() => {"
                "channels.publish('ab'[count % 2], count++).catch((e) => faults.push(e.code))"
                "}, 20)"
            )
            old = set(server.worker_pids())
            server.signal(signal.SIGHUP)
            wait_until(lambda: not old & set(server.worker_pids()), 20, "other workers")
            for window in (ada, ben):
                wait_more(window)
            redis.restart()
            for window in (ada, ben):
                wait_more(window)
            count = ada.run("clearInterval(timer); return count")
            for window in (ada, ben):
                wait_numbers(window, "a", range(0, count, 2))
                wait_numbers(window, "b", range(1, count, 2))


def wait_numbers(window: Page, channel: str, expected: range) -> None:
    window.wait(lambda w: numbers(w, channel) == list(expected), 30, f"{channel}: {expected}")


def numbers(window: Page, channel: str) -> list[Any]:
    """What the page has got of a channel, resets included."""
    return [data for name, data in got(window) if name == channel]


def wait_more(window: Page) -> None:
    """Wait until the page has got messages that were published from now on."""
    start = len(got(window))
    window.wait(lambda w: len(got(w)) > start + 50, 40, "more messages")


def test_offline_and_online(server: Server, new_page: Any) -> None:
    ada, ben = new_page(server.url("/")), new_page(server.url("/"))
    join(ada, "a")
    join(ben, "a")
    wait_online(ada)
    wait_online(ben)
    publish(ada, "a", 1)
    wait_got(ben, ["a", 1])
    ben.offline(True)
    ben.wait(lambda w: w.run("return channels.state") == "offline")
    ben.run("window.sent = channels.publish('a', 'from offline')")
    for number in range(2, 20):
        publish(ada, "a", number)
    ben.offline(False)
    wait_online(ben)
    assert ben.run("return sent.then((id) => id.includes('-'))")
    expected = [["a", number] for number in range(1, 20)] + [["a", "from offline"]]
    wait_got(ben, *expected)
    wait_got(ada, *expected)


def with_times(**times: int) -> str:
    """The path of the page, with other times of channels.js, in milliseconds."""
    return "/?" + urlencode({"times": json.dumps(times)})


def test_a_proxy_that_strips_upgrade(server: Server, new_page: Any, tmp_path: Any) -> None:
    """It changes to an event stream, and back when WebSockets pass; it misses nothing."""
    with nginx(find_program("nginx"), server, strips_upgrade=True) as proxy:
        ada = new_page(f"http://{proxy.host_header}" + with_times(webSocketAgain=500))
        join(ada, "a", "secret")
        wait_online(ada, "eventsource")
        assert publish(ada, "a", 1).count("-") == 1
        join(ada, "b")  # another stream takes the place of the first
        publish(ada, "a", 2)
        publish(ada, "b", 3)
        ada.wait(lambda w: len(got(w)) >= 3)
        assert sorted(map(json.dumps, got(ada)))[:2] == ['["a", 1]', '["a", 2]']
        assert publish(ada, "secret", 1) == "failed forbidden"
        ada.run("window.sent = Promise.all([...Array(60)].map((_, n) => channels.publish('n', n)))")
        join(ada, "n", last=100)
        proxy.let_upgrades_pass()
        wait_online(ada, "websocket")
        assert ada.run("return sent.then((ids) => ids.length)") == 60
        publish(ada, "n", 60)
        wait_numbers(ada, "n", range(61))


def test_an_event_stream_whose_worker_stops(server: Server, new_page: Any, tmp_path: Any) -> None:
    """It knows that all others are sent away, too, and takes more time to come back."""
    with nginx(find_program("nginx"), server, strips_upgrade=True) as proxy:
        ada = new_page(f"http://{proxy.host_header}" + with_times(spread=200))
        ada.run("window.codes = []; channels.onState((state) => codes.push(channels.closed.code))")
        join(ada, "a")
        wait_online(ada, "eventsource")
        server.signal(signal.SIGHUP)
        ada.wait(lambda w: 1012 in w.run("return codes"))
        wait_online(ada, "eventsource")
        publish(ada, "a", 1)
        ada.wait(lambda w: ["a", 1] in got(w))


def test_a_connection_that_is_silent(server: Server, new_page: Any) -> None:
    """Nothing closes it, and nothing comes: the page notices, and comes back when it can."""
    ada = new_page(server.url(with_times(quiet=300, answerTimeout=300, openTimeout=1000)))
    join(ada, "a")
    publish(ada, "a", 1)
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    try:
        ada.wait(lambda w: w.run("return channels.state") == "waiting", 10, "the loss")
        # It is the ping that found it, and not the end of the test's patience.
        ada.run("window.sent = channels.publish('a', 2)")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert ada.run("return sent.then((id) => id.includes('-'))")
    wait_got(ada, ["a", 1], ["a", 2])


def test_a_server_that_is_busy_is_not_hammered(server: Server, new_page: Any) -> None:
    """1013, again and again: the longest delay doubles, up to a bound, and is cut at random."""
    ada = new_page(server.url(with_times(spread=100, longestDelay=500)))
    ada.run("const now = Date.now(); Date.now = () => now")  # or a delay would be shown as shorter
    for random in (0.25, 1.0):
        ada.run(
            "const random = arguments[0]; Math.random = () => random;"
            "channels.close(); window.delays = []; connectTo('/busy')",
            random,
        )
        ada.wait(lambda w: w.run("return delays.length") >= 5, 20, "five attempts")
        delays = ada.run("channels.close(); return delays.slice(0, 5)")
        assert delays == [longest * random for longest in (100, 200, 400, 500, 500)]


# A server that says what the test wants, and keeps what the page says.
SCRIPTED = """
window.sockets = [];
window.WebSocket = class {
  static OPEN = 1;
  readyState = 1;
  asked = [];
  constructor() {
    sockets.push(this);
    setTimeout(() => { this.onopen(); this.say({ pong: 1 }); });
  }
  send(text) { this.asked.push(JSON.parse(text)); }
  say(message) { this.onmessage({ data: JSON.stringify(message) }); }
  close() {}
};
connectTo('/channels');
"""


def test_a_resume_that_is_cut_loses_nothing(server: Server, new_page: Any) -> None:
    """What one channel has got since does not move the place of one that waits for its turn."""
    ada = new_page(server.url(with_times(spread=1)))
    ada.run("channels.close();" + SCRIPTED)
    ada.run("join('a', {presence: true}); join('b')")
    for ended in (["10-e", "10-e"], ["20-e"]):
        ada.wait(lambda w: w.run("return sockets.at(-1)?.asked.length") == 3, what="both asked for")
        for channel, id in zip("ab", ended):
            confirm = {"subscribed": channel, "id": id, "recovered": True}
            ada.run("sockets.at(-1).say(arguments[0])", confirm)
        ada.run("sockets.at(-1).say({channel: 'a', id: arguments[0], data: 1})", ended[0])
        count = ada.run(
            "const it = sockets.at(-1); it.onclose({code: 1001, reason: ''}); return sockets.length"
        )
        ada.wait(lambda w: w.run("return sockets.length") > count, what="another one")  # noqa: B023
    ada.wait(lambda w: w.run("return sockets.at(-1).asked.length") == 3)
    asked = ada.run("return sockets.at(-1).asked")
    places = {name: one["since"] for one in asked for name in one.get("subscribe", ())}
    assert places == {"a": "20-e", "b": "10-e"}


def test_what_comes_again_is_left_out(server: Server, new_page: Any) -> None:
    """Where a replay was cut, in a Cluster too: the ids are those of the place before it."""
    ada = new_page(server.url("/"))
    ada.run("channels.close();" + SCRIPTED + "join('a')")
    ada.wait(lambda w: w.run("return sockets.at(-1)?.asked.length") == 2)
    for number in (11, 12, 11, 12, 13):
        message = {"channel": "a", "id": f"{number}-e_0.1-e_1.3-f", "data": number}
        ada.run("sockets.at(-1).say(arguments[0])", message)
    ada.run("sockets.at(-1).say({channel: 'a', id: '5-f_0_1.3-f', data: 14})")  # a new life
    assert numbers(ada, "a") == [11, 12, 13, 14]


def test_a_page_that_is_left_and_comes_back(server: Server, new_page: Any) -> None:
    ada, ben = new_page(server.url("/")), new_page(server.url("/"))
    join(ada, "a")
    wait_online(ada)
    publish(ben, "a", 1)
    wait_got(ada, ["a", 1])
    ada.driver.get(server.url("/page.js"))
    publish(ben, "a", 2)
    ada.driver.back()
    if not ada.run("return !!window.got && got.length"):
        pytest.skip("this browser has not kept the page")
    wait_got(ada, ["a", 1], ["a", 2])


def test_closing(server: Server, new_page: Any) -> None:
    ada = new_page(server.url("/"))
    join(ada, "a")
    ada.run("channels.close()")
    assert ada.run("return channels.state") == "closed"
    assert publish(ada, "a", 1) == "failed closed"
