"""What processes ask of each other; between two Channels over one broker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from unittest import mock

import pytest

from faye_wsgi import Channels
from faye_wsgi.delivery.control import CHANNEL
from faye_wsgi.delivery.messages import Message
from faye_wsgi.errors import BrokerError

from ..support.waiting import wait_until

TIMEOUT = 5.0


@pytest.fixture
def processes() -> Iterator[tuple[Channels, Channels]]:
    """Two of them: what is in no global of the module is as if it were in another process."""
    one, two = Channels(), Channels()
    two._brokers = one._brokers
    yield one, two


def test_it_takes_part_while_there_are_subscribers(processes: tuple[Channels, Channels]) -> None:
    one, _ = processes
    (broker,) = one._brokers
    with one.subscribe(print, "a"):
        assert broker._channels[CHANNEL].feeds
    wait_until(lambda: not broker._channels[CHANNEL].feeds)


def test_a_user_is_disconnected_in_the_other(processes: tuple[Channels, Channels]) -> None:
    one, two = processes
    got: queue.Queue[object] = queue.Queue()
    with two.subscribe(got.put, "a", user="7"), two.subscribe(got.put, "b", user="8"):
        one.disconnect("7")
        wait_until(lambda: len(two.connections(timeout=TIMEOUT)) == 1)
        one.publish("a", 1)
        one.publish("b", 2)
        message = got.get(timeout=TIMEOUT)
        assert getattr(message, "data", None) == 2


def test_connections_of_the_other(processes: tuple[Channels, Channels]) -> None:
    one, two = processes
    with two.subscribe(print, "a", user="7"):
        wait_until(lambda: [row["user"] for row in one.connections(timeout=0.2)] == ["7"])


def test_orders_that_may_be_lost_are_read_again(processes: tuple[Channels, Channels]) -> None:
    one, two = processes
    one.disconnect("7")
    with two.subscribe(print, "a", user="7"):
        [mine] = [each for each in two._delivery.subscribers if "7" in each.users]
        two._control._obey(Message(CHANNEL, reset=True))
        assert not mine.outlet.is_closed, "it has come after the order"
        mine.since -= 1000
        two._control._obey(Message(CHANNEL, reset=True))
        assert mine.outlet.is_closed


def test_a_first_subscriber_in_vain_does_not_lock_out_the_next() -> None:
    channels = Channels(timeout=0.1)
    (broker,) = channels._brokers
    results: queue.Queue[object] = queue.Queue()

    def subscribe() -> None:
        try:
            channels.subscribe(print, "a").close()
            results.put("subscribed")
        except BrokerError as error:
            results.put(error)

    with mock.patch.object(broker, "open_feed", side_effect=BrokerError("away")):
        threading.Thread(target=subscribe, daemon=True).start()
        assert isinstance(results.get(timeout=TIMEOUT), BrokerError)
    threading.Thread(target=subscribe, daemon=True).start()
    assert results.get(timeout=TIMEOUT) == "subscribed"


def test_subscribers_do_not_wait_for_one_another_where_the_broker_is_silent() -> None:
    channels = Channels(timeout=0.05)
    channels._use()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:  # as a subscriber does that asks the broker
        with channels._control._lock:
            held.set()
            done.wait(TIMEOUT)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(TIMEOUT)
        with pytest.raises(BrokerError):
            channels.subscribe(print, "a")
        assert thread.is_alive(), "the one that asks the broker has not ended before"
    finally:
        done.set()
        thread.join(TIMEOUT)
