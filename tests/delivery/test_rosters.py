"""What the watchers of a channel are told."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import pytest

from faye_wsgi.brokers.base import Change, Joined, Left
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.delivery import presence
from faye_wsgi.delivery.messages import Message
from faye_wsgi.delivery.outlets import Audience, Outlet
from faye_wsgi.delivery.rosters import DOUBT, Rosters
from faye_wsgi.errors import BrokerError

DATA = {"n": 1}


class Outbox:
    def __init__(self) -> None:
        self.got: list[Any] = []

    def send_shared(self, message: Message, shared: Any) -> bool:
        change = (dict(message.joined), list(message.left))
        self.got.append(change if message.count is None else message.count)
        return True


class Hall:
    """A channel, and functions that watch it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.broker = MemoryBroker()
        self.audiences = {"a": Audience()}
        self.rosters = Rosters(self.broker, self.audiences, threading.Lock(), lambda: self.now)

    def watcher(self) -> tuple[Outlet, list[Any]]:
        outbox = Outbox()
        outlet = Outlet(outbox, "function", outbox, 1000, "close")
        self.audiences["a"].add(outlet, None, True)
        return outlet, outbox.got

    def come(self, *members: str, welcome: Any = ()) -> None:
        changes = [Change("a", member, member, '{"n":1}') for member in members]
        self.rosters.change(changes, [(one, "a") for one in welcome], 1)


def test_a_new_watcher_sees_all_and_the_others_the_change() -> None:
    hall = Hall()
    hall.come("0")
    first, got = hall.watcher()
    hall.come("1", welcome=[first])
    assert got == [({"0": DATA, "1": DATA}, [])]
    second, others = hall.watcher()
    with mock.patch.object(hall.broker, "rosters") as read:
        hall.come("2", welcome=[second])
    assert not read.called  # it is known, and kept up
    assert others == [({"0": DATA, "1": DATA, "2": DATA}, [])]
    assert got[1:] == [({"2": DATA}, [])]


def test_changes_are_told_once() -> None:
    hall = Hall()
    outlet, got = hall.watcher()
    hall.come("1", welcome=[outlet])
    hall.rosters.note(Joined("a", "1", '{"n":1}'))  # what the engine says of it
    hall.rosters.announce(1)
    assert len(got) == 1 and not hall.rosters.is_changed
    hall.rosters.note(Joined("a", "1", '{"n":2}'))
    hall.rosters.note(Left("a", "0"))
    hall.rosters.note(Left("other", "0"))
    assert hall.rosters.is_changed
    hall.rosters.announce(1)
    assert got[1:] == [({"1": {"n": 2}}, [])]


def test_a_broker_that_fails_costs_no_watcher_its_welcome() -> None:
    hall = Hall()
    outlet, got = hall.watcher()
    with mock.patch.object(hall.broker, "rosters", side_effect=BrokerError("away")):
        with pytest.raises(BrokerError):
            hall.come("1", welcome=[outlet])
    assert got == []
    hall.come("1", welcome=[outlet])
    assert got == [({"1": DATA}, [])]


def test_after_a_lost_feed_only_the_difference_is_told() -> None:
    hall = Hall()
    outlet, got = hall.watcher()
    hall.come("1", welcome=[outlet])
    hall.rosters.lose()
    hall.broker.change_presence([Change("a", "2", "2", '{"n":1}')])
    hall.come()
    hall.rosters.announce(1)
    assert got[1:] == [({"2": DATA}, [])]


def test_what_has_no_watcher_is_forgotten() -> None:
    hall = Hall()
    outlet, got = hall.watcher()
    hall.come("1", welcome=[outlet])
    hall.audiences["a"].discard(outlet)
    hall.rosters.lose()
    hall.rosters.drop_unwatched()
    with mock.patch.object(hall.broker, "rosters") as read:
        hall.come("2")
    assert not read.called
    hall.rosters.note(Joined("a", "3", "{}"))
    assert not hall.rosters.is_changed and len(got) == 1


def test_many_watchers_share_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "MAX_NAMED", 2)
    hall = Hall()
    watchers = [hall.watcher() for _ in range(10)]
    with mock.patch.object(Outlet, "make", autospec=True, side_effect=Outlet.make) as make:
        hall.come("1", "2", "3", welcome=[outlet for outlet, _ in watchers])
    assert make.call_count == 1
    assert [got for _, got in watchers] == [[3]] * 10


def test_a_member_that_a_reading_lacks_has_left_when_the_doubt_is_over() -> None:
    hall = Hall()
    outlet, got = hall.watcher()
    hall.come("1", "2", welcome=[outlet])
    hall.rosters.lose()
    with mock.patch.object(hall.broker, "rosters", return_value=[{"1": '{"n":1}'}]) as read:
        hall.come()
        hall.rosters.announce(1)
        assert len(got) == 1
        hall.now += DOUBT
        hall.come()
        hall.rosters.announce(1)
        hall.come()
    assert got[1:] == [({}, ["2"])]
    assert read.call_count == 2


def test_each_loss_begins_a_doubt_of_its_own() -> None:
    hall = Hall()
    outlet, got = hall.watcher()
    hall.come("1", "2", welcome=[outlet])
    hall.rosters.lose()
    with mock.patch.object(hall.broker, "rosters", return_value=[{"1": '{"n":1}'}]):
        hall.come()
    hall.now += DOUBT
    hall.rosters.lose()  # the members are not noted yet
    with mock.patch.object(hall.broker, "rosters", return_value=[{}]):
        hall.come()
    hall.come()
    hall.rosters.announce(1)
    assert len(got) == 1
