"""How subscriptions begin and end, over real threads and brokers of memory."""

from __future__ import annotations

import queue
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import pytest

from faye_wsgi.brokers.base import Cursor, Feed, Position, Reading, Request
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.delivery.delivery import Delivery
from faye_wsgi.delivery.messages import Message
from faye_wsgi.delivery.outlets import Mailbox
from faye_wsgi.delivery.relay import Entry
from faye_wsgi.errors import BrokerError

from ..support.waiting import wait_until

TIMEOUT = 30.0


class Broker(MemoryBroker):
    """One that can be away, and that counts its readings."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.may_read = threading.Event()
        self.may_read.set()
        self.readings: list[int] = []
        self.feeds: list[Feed] = []

    def open_feed(self) -> Feed:
        if self.is_away:
            raise BrokerError("away")
        self.feeds.append(super().open_feed())
        return self.feeds[-1]

    def read(self, requests: Sequence[Request]) -> Reading:
        self.readings.append(len(requests))
        assert self.may_read.wait(TIMEOUT)
        return super().read(requests)


def partition(channel: str, count: int) -> int:
    return zlib.crc32(channel.encode()) % count


class Office:
    """A delivery over some brokers, and functions that subscribe."""

    def __init__(self, count: int = 1, timeout: float = TIMEOUT) -> None:
        self.brokers = [Broker() for _ in range(count)]
        self.delivery = Delivery(
            self.brokers,
            lambda channel: partition(channel, count),
            timeout=timeout,
            high_water=2**20,
            slow="close",
            max_channels=8,
        )
        self.mailboxes: list[Mailbox] = []

    def subscribe(self, *channels: str, since: Cursor | None = None) -> Any:
        got: queue.Queue[Message] = queue.Queue()
        mailbox = Mailbox(got.put, self.delivery.end)
        self.mailboxes.append(mailbox)
        entries = [Entry(channel, None, None, False) for channel in channels]
        recovered = self.delivery.subscribe(
            got, mailbox, "function", entries, since=since, last=0, user=None
        )
        return got, recovered

    def publish(self, channel: str, payload: str) -> Position:
        broker = self.brokers[partition(channel, len(self.brokers))]
        return broker.publish(channel, payload, history=100, ttl=60)

    def finish(self) -> None:
        for mailbox in self.mailboxes:
            mailbox.close()
        wait_until(lambda: not self.delivery.subscribers)
        wait_until(lambda: not any(relay._is_running for relay in self.delivery.relays))


@pytest.fixture
def office() -> Iterator[Any]:
    made: list[Office] = []

    def make(*args: Any, **options: Any) -> Office:
        made.append(Office(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.finish()


def test_what_is_published_while_the_feed_is_lost_comes_later(office: Any) -> None:
    one = office()
    got, _ = one.subscribe("a")
    (broker,) = one.brokers
    broker.is_away = True
    broker.feeds[0].close()
    for payload in "123":
        one.publish("a", payload)
    assert got.empty()
    broker.is_away = False
    assert [got.get(timeout=TIMEOUT).payload for _ in range(3)] == ["1", "2", "3"]


def test_without_the_broker_nothing_is_left_behind(office: Any) -> None:
    one = office(timeout=0.1)
    one.brokers[0].is_away = True
    with pytest.raises(BrokerError, match=r"within 0\.1 seconds"):
        one.subscribe("a")
    assert one.delivery.subscribers == []


def test_many_that_come_at_the_same_time_share_a_reading(office: Any) -> None:
    one = office()
    cursor = Cursor((one.publish("a", "1"),))
    one.publish("a", "2")
    one.subscribe("a")
    (broker,) = one.brokers
    broker.readings.clear()
    broker.may_read.clear()
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(one.subscribe("a", since=cursor)))
        for _ in range(50)
    ]
    (relay,) = one.delivery.relays
    with mock.patch.object(relay, "join", side_effect=relay.join) as join:
        for thread in threads:
            thread.start()
        wait_until(lambda: broker.readings and join.call_count == 50)
    broker.may_read.set()
    for thread in threads:
        thread.join(TIMEOUT)
    assert [recovered for _, recovered in results] == [True] * 50
    assert all(got.get(timeout=TIMEOUT).payload == "2" for got, _ in results)
    assert len(broker.readings) < 5 and set(broker.readings) == {1}


def test_several_partitions_have_one_cursor(office: Any) -> None:
    one = office(4)
    names = [f"channel {number}" for number in range(6)]
    assert len({partition(name, 4) for name in names}) > 2
    got, _ = one.subscribe(*names)
    sent = {str(index): one.publish(name, str(index)) for index, name in enumerate(names * 2)}
    messages = [got.get(timeout=TIMEOUT) for _ in range(12)]
    assert sorted(one.channel for one in messages) == sorted(names * 2)
    for index, message in enumerate(messages):
        cursor = Cursor.parse(message.id, 4)
        again, recovered = one.subscribe(*names, since=cursor)
        assert recovered is True
        rest = [again.get(timeout=TIMEOUT) for _ in messages[index + 1 :]]
        assert {one.payload for one in rest} == {one.payload for one in messages[index + 1 :]}
        # In a replay, too, a client can tell by the id that it has a message already.
        for one_of_them in [message, *rest]:
            assert one_of_them.id.startswith(f"{sent[one_of_them.payload]}_")
    assert again.empty()


def test_a_cursor_vouches_for_the_partitions_that_it_names(office: Any) -> None:
    one = office(4)
    names = [f"channel {number}" for number in range(6)]
    index = partition(names[0], 4)
    broker = one.brokers[index]
    now = broker.read([Request(names[0], None, 0)]).now
    cursor = Cursor(now if number == index else None for number in range(4))
    assert one.subscribe(names[0], since=cursor)[1] is True
    assert one.subscribe(*names, since=cursor)[1] is False


def test_a_fork_forgets_all(office: Any) -> None:
    one = office()
    one.subscribe("a")
    (mailbox,) = one.mailboxes
    one.delivery.forget(None)
    assert one.delivery.subscribers == []
    one.delivery.unsubscribe(None, mailbox, ["a"])  # of the parent: nothing happens
    wait_until(lambda: one.brokers[0].feeds[0]._is_closed)
    one.delivery.relays[0]._is_running = False  # its thread would not be in the child
