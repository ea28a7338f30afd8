"""The relay's thread: when it begins, when it ends, and how it wakes up.

What it delivers is tested in test_simulation.py, and over real connections in test_channels.py.
"""

from __future__ import annotations

import threading

from faye_wsgi.brokers.base import Cursor, Position
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.delivery.outlets import Mailbox, Outlet
from faye_wsgi.delivery.relay import Entry, Join, Relay

from ..support.waiting import wait_until

TIMEOUT = 5.0


def make() -> tuple[MemoryBroker, Relay]:
    broker = MemoryBroker()
    return broker, Relay(broker, lambda position: Cursor((position,)), threading.Lock())


def join(relay: Relay, since: Position | None = None) -> tuple[Outlet, Join]:
    mailbox = Mailbox(lambda message: None, lambda one: None)
    mailbox.close()
    outlet = Outlet(mailbox, "function", mailbox, 1000, "close")
    outlet.hold()
    wanted = Join(outlet, [Entry("a", None, None, False)], since, 0, None)
    relay.join(wanted)
    return outlet, wanted


def test_it_lives_as_long_as_it_has_subscribers() -> None:
    _, relay = make()
    for _ in range(3):
        outlet, wanted = join(relay)
        assert wanted.wait(TIMEOUT) and wanted.position is not None
        assert relay._is_running
        relay.leave(outlet, ["a"], [])
        relay.hurry()
        wait_until(lambda: not relay._is_running)
    relay.hurry()
    assert not relay._is_running


def test_an_answer_that_is_not_awaited_any_more_is_not_given() -> None:
    _, relay = make()
    relay._is_running = True  # no thread takes the request
    outlet, wanted = join(relay)
    assert not wanted.wait(0)
    relay._is_running = False
    relay.hurry()
    _, other = join(relay)
    assert other.wait(TIMEOUT) and wanted.position is None
    relay.leave(other.outlet, ["a"], [])
    relay.hurry()
    wait_until(lambda: not relay._is_running)
    assert outlet.take_held() == []


def test_a_long_replay_comes_in_pages() -> None:
    broker, relay = make()
    start = broker.publish("a", "0", history=1000, ttl=60)
    for number in range(600):
        broker.publish("a", str(number), history=1000, ttl=60)
    outlet, wanted = join(relay, start)
    pages = []
    while wanted.wait(TIMEOUT) and wanted.page is not None:
        pages.append([item.message.payload for item in wanted.page])
        wanted.begin_again()
        relay.join(wanted)
    assert len(pages) == 2 and wanted.is_complete
    rest = [item.message.payload for item in outlet.take_held()]
    assert [*pages[0], *pages[1], *rest] == [str(number) for number in range(600)]
    relay.leave(outlet, ["a"], [])
    relay.hurry()
    wait_until(lambda: not relay._is_running)
