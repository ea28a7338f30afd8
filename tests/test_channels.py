"""Channels from end to end, over memory: WebSockets, EventSources and functions."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote

import pytest

from faye_wsgi import Channels, EventSource, Message, WebSocket
from faye_wsgi.testing import connect, connect_events

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
        last = channels.publish("a", number)
    got = Got()
    with channels.subscribe(got, "a", since=cursor) as subscription:
        assert subscription.recovered is False
        message = got.next()
        assert message.reset and message.data is None
        assert message.id == last
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
