"""What waits for a subscriber, and what happens when it is too much."""

from __future__ import annotations

import json
import threading
from typing import Any, Callable

import pytest

from faye_wsgi.brokers.base import Cursor, Position
from faye_wsgi.delivery.messages import Item, Message, encode_item
from faye_wsgi.delivery.outlets import MAILBOX, Mailbox, Outlet, Slow, send_to_all

TIMEOUT = 5.0


class Target:
    """A connection and its outbox."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.has_room = True
        self.askers: list[Callable[[], object]] = []
        self.closed: Any = None

    def send_shared(self, message: str, shared: Any) -> bool:
        if self.has_room:
            self.sent.append(json.loads(message))
        return self.has_room

    def ask_for_room(self, tell: Callable[[], object]) -> None:
        self.askers.append(tell)

    def drain(self) -> None:
        self.has_room = True
        askers, self.askers = self.askers, []
        for tell in askers:
            tell()

    def close(self, code: int, reason: str) -> None:
        self.closed = code


def made(slow: Slow = "close", high_water: int = 1000) -> tuple[Target, Outlet]:
    target = Target()
    return target, Outlet(target, "websocket", target, high_water, slow)


def item(number: int, channel: str = "a", size: int = 1) -> Item:
    place = Cursor((Position(number, "e"),))
    message = Message(channel, str(place), json.dumps("x" * size))
    found = encode_item("websocket", None, message, number, place)
    assert found is not None
    return found


def ids(target: Target) -> list[str]:
    return [message["id"] for message in target.sent]


def test_what_has_no_room_waits_in_order() -> None:
    target, outlet = made()
    send_to_all([outlet], item(1))
    target.has_room = False
    for number in (2, 3):
        send_to_all([outlet], item(number))
    assert ids(target) == ["1-e"] and outlet.waiting > 0 and len(target.askers) == 1
    target.drain()
    send_to_all([outlet], item(4))
    assert ids(target) == ["1-e", "2-e", "3-e", "4-e"] and outlet.waiting == 0


def test_a_replay_comes_first() -> None:
    target, outlet = made()
    target.has_room = False
    outlet.push(item(4))  # it waits already
    outlet.hold()
    target.drain()
    outlet.push(item(9))
    outlet.insert([item(3, "b"), item(7, "b")], by_number=True)
    outlet.release()
    assert ids(target) == ["3-e", "4-e", "7-e", "9-e"]


def test_too_slow_is_closed() -> None:
    target, outlet = made()
    target.has_room = False
    outlet.push(item(1, size=2000))
    assert target.closed == 1013 and outlet.is_closed and outlet.waiting == 0
    outlet.push(item(2))
    target.drain()
    assert target.sent == []


def test_too_slow_is_reset() -> None:
    """Only the last reset has the new cursor."""
    target, outlet = made("reset")
    target.has_room = False
    for number in range(5, 60):
        outlet.push(item(number, "ab"[number % 2], 50))
    assert outlet.waiting <= 1000 and not outlet.is_closed
    target.drain()
    resets = [(one["channel"], one["id"]) for one in target.sent if one.get("reset")]
    assert dict(resets) == {resets[0][0]: "4-e", resets[1][0]: "59-e"}
    outlet.push(item(60))
    assert ids(target)[-1] == "60-e"


def test_too_slow_gets_the_latest() -> None:
    target, outlet = made("latest")
    target.has_room = False
    for number in range(60):
        outlet.push(item(number, "ab"[number % 2], 50))
    assert outlet.waiting <= 1000 and not outlet.is_closed
    target.drain()
    assert ids(target)[-2:] == ["58-e", "59-e"] and len(target.sent) < 30


@pytest.mark.parametrize("slow", ["reset", "latest"])
def test_where_nothing_can_be_left_out_it_is_closed(slow: Slow) -> None:
    target, outlet = made(slow)
    outlet.hold()
    outlet.push(item(1, size=2000))
    assert target.closed == 1013


def test_one_that_fails_does_not_keep_it_from_the_others() -> None:
    class Broken(Target):
        def send_shared(self, message: str, shared: Any) -> bool:
            raise MemoryError

    broken = Broken()
    target, outlet = made()
    send_to_all([Outlet(broken, "websocket", broken, 1000, "close"), outlet], item(1))
    assert broken.closed == 1011 and ids(target) == ["1-e"]


def test_a_mailbox_has_room_again() -> None:
    go_on, had_room, ended = threading.Event(), threading.Event(), threading.Event()
    mailbox = Mailbox(lambda message: go_on.wait(TIMEOUT), lambda one: ended.set())
    assert mailbox.send_shared(Message("a", "1-e", "x" * (MAILBOX + 1)), {})
    assert not mailbox.send_shared(Message("a", "2-e", "x"), {})
    mailbox.ask_for_room(had_room.set)
    assert not had_room.is_set()
    go_on.set()
    assert had_room.wait(TIMEOUT)
    mailbox.close()
    assert ended.wait(TIMEOUT)
