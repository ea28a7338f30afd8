"""Channels from end to end, over memory: WebSockets, EventSources and functions."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote

import pytest

from faye_wsgi import Channels, EventSource, Message, WebSocket
from faye_wsgi.errors import BrokerError
from faye_wsgi.testing import connect, connect_events

from .support import servers
from .support.waiting import wait_until

TIMEOUT = 5.0


class Got:
    """A subscriber: a function, and what it has got."""

    def __init__(self) -> None:
        self._messages: queue.Queue[Message] = queue.Queue()

    def __call__(self, message: Message) -> None:
        self._messages.put(message)

    def next(self) -> Message:
        return self._messages.get(timeout=TIMEOUT)

    def data(self, count: int) -> list[Any]:
        return [self.next().data for _ in range(count)]

    @property
    def is_empty(self) -> bool:
        return self._messages.empty()


@pytest.fixture
def channels() -> Iterator[Channels]:
    made = Channels(history=100)
    yield made
    wait_until(lambda: not relays(), what="no relay is left")


def relays() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("faye_wsgi.channels")]


def query(environ: dict[str, Any], name: str) -> str | None:
    return parse_qs(environ["QUERY_STRING"]).get(name, [None])[0]


def make_app(channels: Channels, *names: str, **options: Any) -> Any:
    """A WebSocket or an EventSource that gets channels; a WebSocket publishes what it receives."""

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if not WebSocket.is_websocket(environ):
            es = EventSource(environ)
            channels.subscribe(es, names, since=es.last_event_id, **options)
            return es.response(environ, start_response)
        ws = WebSocket(environ)
        with channels.subscribe(ws, names, since=query(environ, "since"), **options) as joined:
            if joined.recovered is not None:
                ws.send(f"recovered {joined.recovered}")
            ws.send("ready")
            for message in ws:
                channels.publish(names[0], message)
        return ws.response(environ, start_response)

    return app


def test_a_function_gets_what_is_published(channels: Channels) -> None:
    got = Got()
    with channels.subscribe(got, "a") as subscription:
        id = channels.publish("a", {"text": "hellö"})
        message = got.next()
        assert (message.channel, message.id, message.data) == ("a", id, {"text": "hellö"})
        assert subscription.recovered is None
    channels.publish("a", 2)
    assert got.is_empty


def test_a_websocket_gets_text(channels: Channels) -> None:
    with connect(make_app(channels, "a"), "/") as ws:
        assert ws.receive() == "ready"
        id = channels.publish("a", {"text": "hellö"})
        assert ws.receive() == f'{{"channel":"a","id":"{id}","data":{{"text":"hellö"}}}}'


def test_an_eventsource_gets_events_with_ids(channels: Channels) -> None:
    cursor = channels.cursor("a")
    first = channels.publish("a", 1)
    with connect_events(make_app(channels, "a"), "/", last_event_id=cursor) as es:
        event = es.receive()
        assert event.id == first
        assert json.loads(event.data) == {"channel": "a", "id": first, "data": 1}
        second = channels.publish("a", 2)
        assert es.receive().id == second


def test_a_hundred_connections_see_one_order(channels: Channels) -> None:
    app = make_app(channels, "a", "b")
    sessions = [connect(app, "/") for _ in range(100)]
    try:
        for one in sessions:
            one.__enter__()
            assert one.receive() == "ready"
        sent = [channels.publish("ab"[number % 2], number) for number in range(10)]
        for one in sessions:
            assert [one.receive_json()["id"] for _ in sent] == sent
    finally:
        for one in sessions:
            one.__exit__(None, None, None)


def test_who_comes_back_gets_what_was_missed(channels: Channels) -> None:
    cursor = channels.cursor("a", "b")
    sent = [channels.publish("ab"[number % 2], number) for number in range(10)]
    with connect(make_app(channels, "a", "b"), f"/?since={quote(cursor)}") as ws:
        assert [ws.receive_json()["id"] for _ in sent] == sent
        assert ws.receive() == "recovered True"
    with connect(make_app(channels, "a", "b"), f"/?since={sent[6]}") as ws:
        assert [ws.receive_json()["id"] for _ in range(3)] == sent[7:]


def test_what_history_has_lost_is_a_reset() -> None:
    channels = Channels(history=3)
    cursor = channels.cursor("a")
    for number in range(5):
        channels.publish("a", number)
    got = Got()
    with channels.subscribe(got, "a", since=cursor) as subscription:
        assert subscription.recovered is False
        message = got.next()
        assert message.reset and message.data is None
        assert channels.history("a", since=message.id) == []
        channels.publish("a", "next")
        assert got.next().data == "next"


def test_the_last_messages_first(channels: Channels) -> None:
    for number in range(30):
        channels.publish("a", number)
    got = Got()
    with channels.subscribe(got, "a", last=5) as subscription:
        channels.publish("a", 30)
        assert got.data(6) == list(range(25, 31))
        assert subscription.recovered is None


def test_more_than_the_limit_is_a_reset(channels: Channels) -> None:
    cursor = channels.cursor("a", "b")
    sent = [channels.publish(name, number) for number, name in enumerate("aaab")]
    got = Got()
    with channels.subscribe(got, ["a", "b"], since=cursor, limit=2) as subscription:
        assert subscription.recovered is False
        message = got.next()
        assert message.channel == "a" and message.reset
        assert got.next().id == sent[3]
    with channels.subscribe(got, ["a", "b"], since=sent[0], limit=2) as subscription:
        assert subscription.recovered is True
        assert [got.next().id for _ in range(3)] == sent[1:]
    with pytest.raises(ValueError, match="limit"):
        channels.subscribe(got, "a", since=cursor, limit=-1)


def test_a_long_replay(channels: Channels) -> None:
    """More than a page, and more than may be handed over at once."""
    channels = Channels(history=2000)
    cursor = channels.cursor("a")
    for number in range(1500):
        channels.publish("a", [number, "x" * 1000])
    with connect(make_app(channels, "a"), f"/?since={quote(cursor)}") as ws:
        assert [ws.receive_json()["data"][0] for _ in range(1500)] == list(range(1500))
        assert ws.receive() == "recovered True"
        channels.publish("a", [1500])
        assert [ws.receive(), ws.receive_json()["data"]] == ["ready", [1500]]


# Of all processes


def test_a_user_is_disconnected(channels: Channels) -> None:
    with connect(make_app(channels, "a", user=7), "/") as ws:
        with connect(make_app(channels, "a", user="other"), "/") as other:
            assert ws.receive() == other.receive() == "ready"
            channels.disconnect(7, reason="logged out")
            assert ws.wait_closed(TIMEOUT) == 4401
            assert ws.close_reason == "logged out"
            channels.publish("a", 1)
            assert other.receive_json()["data"] == 1


def test_disconnect_checks_its_code(channels: Channels) -> None:
    with pytest.raises(ValueError):
        channels.disconnect("7", code=999)


class User:
    """As Django's, and with ``get_id`` as Flask-Login's."""

    def __init__(self, pk: int | None) -> None:
        self.pk = pk


def test_one_who_logs_out_is_disconnected(channels: Channels) -> None:
    with connect(make_app(channels, "a", user=7), "/") as ws:
        assert ws.receive() == "ready"
        channels.user_logged_out(User, user=None, request=object())
        channels.user_logged_out(User, user=User(None))
        channels.user_logged_out(User, user=User(8))
        channels.publish("a", "still there")
        assert ws.receive_json()["data"] == "still there"
        channels.user_logged_out(User, user=User(7))
        assert ws.wait_closed(TIMEOUT) == 4401


def test_a_user_may_log_out_while_the_broker_is_away(
    channels: Channels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise BrokerError("away")

    monkeypatch.setattr(channels._brokers[0], "publish", fail)
    channels.user_logged_out(User, user=User(7))
    (record,) = caplog.records
    assert record.levelname == "ERROR" and "were not closed" in record.getMessage()


def test_connections_are_told(channels: Channels) -> None:
    assert channels.connections() == []
    with connect(make_app(channels, "a", "b", user=7), "/room?token=secret") as ws:
        assert ws.receive() == "ready"
        (row,) = channels.connections()
        assert (row["kind"], row["user"], row["channels"]) == ("websocket", "7", ["a", "b"])
        assert row["path"].endswith("/room") and row["waiting"] == 0
    wait_until(lambda: channels.connections() == [])


# Presence


def test_who_comes_and_goes() -> None:
    channels = Channels(leave_seconds=0.05)
    got = Got()
    with channels.subscribe(got, "a", presence=True):
        assert got.next().joined == {}
        one, two = Got(), Got()
        first = channels.subscribe(one, "a", presence={"id": 7, "name": "Ada"})
        assert got.next().joined == {"7": {"name": "Ada"}}
        assert one.next().joined == {"7": {"name": "Ada"}}
        second = channels.subscribe(two, "a", presence={"id": 7, "name": "Ada, again"})
        assert got.next().joined == two.next().joined == {"7": {"name": "Ada, again"}}
        members = channels.presence("a")
        assert [data["name"] for data in members["7"].data] == ["Ada", "Ada, again"]
        first.close()
        wait_until(lambda: len(channels.presence("a")["7"].data) == 1)
        second.close()
        message = got.next()
        assert (message.left, message.joined) == (["7"], {})
        assert channels.presence("a") == {}


# Slow and faulty subscribers


def test_a_slow_function_holds_up_no_other(channels: Channels) -> None:
    go_on, began, got = threading.Event(), threading.Event(), Got()

    def slow(message: Message) -> None:
        began.set()
        go_on.wait(TIMEOUT)

    with channels.subscribe(slow, "a"), channels.subscribe(got, "a"):
        channels.publish("a", 1)
        assert began.wait(TIMEOUT)
        channels.publish("a", 2)
        assert got.data(2) == [1, 2]
        go_on.set()


def test_a_function_that_raises_goes_on(channels: Channels) -> None:
    got = Got()

    def faulty(message: Message) -> None:
        got(message)
        raise RuntimeError("as the test wants it")

    with channels.subscribe(faulty, "a"):
        channels.publish("a", 1)
        channels.publish("a", 2)
        assert got.data(2) == [1, 2]


@pytest.mark.parametrize("slow", ["close", "reset", "latest"])
def test_a_client_that_does_not_read(slow: Any) -> None:
    channels = Channels(history=10, high_water=100_000, slow=slow)
    got = Got()
    with connect(make_app(channels, "a"), "/") as ws, channels.subscribe(got, "a"):
        assert ws.receive() == "ready"
        ws.stall()
        for number in range(400):
            channels.publish("a", [number, "x" * 5000])
            assert got.next().data[0] == number
        waiting = [row["waiting"] for row in channels.connections() if row["kind"] == "websocket"]
        assert all(size < 400_000 for size in waiting)
        ws.resume()
        messages = []
        if slow == "close":
            assert ws.wait_closed(TIMEOUT) == 1013
            return
        while not messages or messages[-1].get("data") != "end":
            if len(messages) and (messages[-1].get("reset") or messages[-1]["data"][0] == 399):
                channels.publish("a", "end")
            messages.append(ws.receive_json())
        numbers = [one["data"][0] for one in messages if "data" in one][:-1]
        assert numbers == sorted(set(numbers)) and len(numbers) < 400
        assert any(one.get("reset") for one in messages) == (slow == "reset")
        assert (399 in numbers) == (slow == "latest")


# Arguments


@pytest.mark.parametrize("name", ["", "$control", "a\nb", "x" * 256, "\udc00"])
def test_names_that_are_none(channels: Channels, name: str) -> None:
    with pytest.raises(ValueError):
        channels.publish(name, 1)


def test_limits(channels: Channels) -> None:
    with pytest.raises(ValueError, match="65536 bytes"):
        channels.publish("a", "x" * 65_536)
    with pytest.raises(ValueError, match="128 channels"):
        channels.subscribe(print, [str(number) for number in range(129)])
    with pytest.raises(TypeError):
        channels.publish("a", object())
    with pytest.raises(ValueError):
        channels.publish("a", float("nan"))
    with pytest.raises(ValueError, match="cursor"):
        channels.subscribe(print, "a", since="damaged")
    with pytest.raises(TypeError, match="WebSocket"):
        channels.subscribe(7, "a")
    with pytest.raises(ValueError, match="'id'"):
        channels.subscribe(print, "a", presence={"name": "Ada"})
    assert channels.connections() == []


@pytest.mark.parametrize("cursor", ["1-0", "9007199254740991-{}", "1-{}"])
def test_cursors_that_nothing_vouches_for(channels: Channels, cursor: str) -> None:
    epoch = channels.cursor("a").partition("-")[2]
    got = Got()
    with channels.subscribe(got, "a", since=cursor.format(epoch)) as subscription:
        assert subscription.recovered is False
        assert got.next().reset


def test_a_key_makes_a_retry_safe(channels: Channels) -> None:
    got = Got()
    with channels.subscribe(got, "a"):
        assert channels.publish("a", 1, key="k") == channels.publish("a", 1, key="k")
        channels.publish("a", 2)
        assert got.data(2) == [1, 2]


def test_rules_by_name() -> None:
    channels = Channels(history=1, rules={"room:*": {"history": 3}})
    for number in range(5):
        channels.publish("room:1", number)
        channels.publish("other", number)
    assert [one.data for one in channels.history("room:1")] == [2, 3, 4]
    assert [one.data for one in channels.history("other")] == [4]


def test_an_unknown_broker_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="memory"):
        Channels("carrier-pigeon://")


def test_signed_names() -> None:
    channels = Channels(secret="s")
    assert channels.verify(channels.sign("room:42")) == "room:42"
    assert channels.verify(channels.sign("room:42", ttl=60)) == "room:42"
    for forged in ("room:42", "room:43" + channels.sign("room:42")[7:], "room:42::", "ä:ö:ü"):
        with pytest.raises(ValueError, match="not ours"):
            channels.verify(forged)
    with pytest.raises(ValueError, match="too old"):
        channels.verify(channels.sign("room:42", ttl=-60))
    with pytest.raises(RuntimeError, match="secret"):
        Channels().sign("a")


def test_configured_later() -> None:
    class App:
        config = {"CHANNELS_HISTORY": 2, "SECRET_KEY": "s"}
        extensions: dict[str, Any] = {}

    channels = Channels()
    channels.init_app(App)
    for number in range(3):
        channels.publish("a", number)
    assert [one.data for one in channels.history("a")] == [1, 2]
    assert App.extensions["channels"] is channels and channels.sign("a")
    with pytest.raises(RuntimeError, match="in use"):
        channels.configure()


def test_memory_with_two_workers_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faye_wsgi.channels.count_workers", lambda: 2)
    with pytest.raises(RuntimeError, match="one process"):
        Channels().publish("a", 1)


def test_memory_in_a_fork_raises(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    channels.publish("a", 1)
    monkeypatch.setattr("faye_wsgi.channels.os.getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="fork"):
        channels.publish("a", 1)


# Ends


def test_a_closed_connection_is_no_subscriber(channels: Channels) -> None:
    ended = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        ws = WebSocket(environ)
        ws.close()
        for _ in ws:
            pass
        subscription = channels.subscribe(ws, "a")
        ws.on("close", lambda event: ended.set())
        assert subscription.recovered is None
        return ws.response(environ, start_response)

    with connect(app, "/") as ws:
        ws.wait_closed(TIMEOUT)
    assert ended.wait(TIMEOUT)
    wait_until(lambda: channels.connections() == [])


def test_add_and_remove(channels: Channels) -> None:
    got = Got()
    with channels.subscribe(got, "a") as subscription:
        cursor = channels.cursor("b")
        channels.publish("b", 1)
        assert subscription.add("b", since=cursor) is True
        assert got.next().data == 1
        subscription.remove("a")
        channels.publish("a", 2)
        channels.publish("b", 3)
        assert got.next().data == 3
        assert subscription.channels == ["b"]


def test_patched() -> None:
    """The same in a process that gevent has patched, where everything is a greenlet."""
    if not servers.MAY_START:
        pytest.skip("it starts another run of tests")
    script = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys, pytest\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'not patched', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", script, __file__]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout[-3000:]


def test_a_text_of_its_own_has_the_cursor_of_what_came_before(channels: Channels) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        ws = WebSocket(environ)
        with channels.subscribe(ws, "a") as subscription:
            subscription.tell(lambda cursor: f"first {bool(cursor)}")
            id = channels.publish("a", 1)
            ws.receive()
            subscription.tell(lambda cursor: f"then {cursor >= id}")
            ws.receive()
        return ws.response(environ, start_response)

    with connect(app, "/") as ws:
        assert ws.receive() == "first True"
        assert ws.receive_json()["data"] == 1
        ws.send("go on")
        assert ws.receive() == "then True"
        ws.send("end")
