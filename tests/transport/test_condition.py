"""Waiting for something of a connection to change, in greenlets and from other threads."""

from __future__ import annotations

import gevent
import pytest

from faye_wsgi.transport.condition import Condition

from .harness import TIMEOUT, turn


@pytest.fixture
def changed() -> Condition:
    return Condition(gevent.get_hub())


def test_what_holds_already_is_not_waited_for(changed: Condition) -> None:
    assert changed.wait_for(lambda: True, 0)


def test_it_is_looked_at_whenever_something_changes(changed: Condition) -> None:
    seen: list[int] = []

    def predicate() -> bool:
        seen.append(len(seen))
        return len(seen) > 2

    waiting = gevent.spawn(changed.wait_for, predicate, None)
    turn()
    assert seen == [0]
    gevent.get_hub().loop.run_callback(changed.notify_all)
    turn()
    assert seen == [0, 1] and not waiting.ready()
    gevent.get_hub().loop.run_callback(changed.notify_all)
    assert waiting.get(timeout=TIMEOUT) is True


def test_in_vain(changed: Condition) -> None:
    assert not changed.wait_for(lambda: False, 0.001)
    changed.notify_all()
    assert not changed._waiting, "nothing is left of it"


def test_a_timeout_of_its_own_goes_through(changed: Condition) -> None:
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
        changed.wait_for(lambda: False, None)
    assert not changed._waiting


def test_a_killed_greenlet_waits_no_more(changed: Condition) -> None:
    waiting = gevent.spawn(changed.wait_for, lambda: False, None)
    turn()
    waiting.kill()
    assert not changed._waiting


def test_other_threads_are_told_when_it_holds(changed: Condition) -> None:
    told: list[str] = []
    holds: list[bool] = []
    changed.tell_when(lambda: True, lambda: told.append("at once"))
    changed.tell_when(lambda: bool(holds), lambda: told.append("later"))
    changed.notify_all()
    assert told == ["at once"]
    holds.append(True)
    changed.notify_all()
    changed.notify_all()
    assert told == ["at once", "later"], "once"


def test_what_is_withdrawn_is_not_told(changed: Condition) -> None:
    told: list[str] = []
    holds: list[bool] = []

    def tell() -> None:
        told.append("told")

    changed.tell_when(lambda: bool(holds), tell)
    changed.withdraw(tell)
    holds.append(True)
    changed.notify_all()
    assert told == []


def test_one_that_raises_is_reported_and_the_others_have_their_turn(
    changed: Condition, hub_errors: list[str]
) -> None:
    woken: list[str] = []
    changed._waiting = [raising, lambda: woken.append("next")]
    changed.notify_all()
    assert woken == ["next"]
    assert len(hub_errors) == 1 and "LookupError" in hub_errors.pop()


def raising() -> None:
    raise LookupError
