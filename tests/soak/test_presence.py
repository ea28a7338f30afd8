"""The checker of presence finds what is wrong in forged records, and nothing in good ones."""

from __future__ import annotations

from faye_wsgi.brokers.base import Cursor

from .presence import check_presence
from .records import Session, Turnout

LEAVE = 2.0


def at(seconds: float) -> int:
    return round(seconds * 1e6)


def stay(begin: float, end: float, member: str = "7") -> Session:
    """A connection of a member, in seconds."""
    return Session("client", at(begin), None, member=member, present=at(begin), ended_at=at(end))


def watcher(*turnouts: tuple[float, str, str]) -> Session:
    """A connection that is told so at these times: who has joined, who has left."""
    told = [Turnout(at(when), tuple(joined), tuple(left)) for when, joined, left in turnouts]
    return Session("watcher", 0, Cursor(), turnouts=told)


def faults(*sessions: Session, harm: tuple[tuple[float, float], ...] = ()) -> list[str]:
    times = [(at(begin), at(end)) for begin, end in harm]
    return [fault.text for fault in check_presence(sessions, LEAVE, times)]


def test_a_member_leaves_and_comes_back() -> None:
    turnouts = watcher((10, "7", ""), (22.5, "", "7"), (30.1, "7", ""))
    assert not faults(stay(0, 20), stay(30, 40), turnouts)


def test_one_that_stays_does_not_leave() -> None:
    turnouts = watcher((10, "7", ""), (22.5, "", "7"))
    assert faults(stay(0, 40), turnouts)
    assert faults(stay(0, 20), stay(20.5, 40), turnouts), "away for a moment"
    assert faults(stay(0, 20), stay(10, 40), turnouts), "another window is there"
    assert faults(stay(0, 20), stay(30, 40), watcher((10, "7", ""), (20.5, "", "7"))), "too early"


def test_what_the_broker_could_not_be_told_is_no_fault() -> None:
    turnouts = watcher((10, "7", ""), (27, "", "7"))
    sessions = stay(0, 20), stay(20.5, 40), turnouts
    assert faults(*sessions)
    assert not faults(*sessions, harm=((20.4, 26),))
    assert faults(stay(0, 40), turnouts, harm=((20.4, 26),)), "it was there when it began"


def test_it_is_announced_once() -> None:
    left = watcher((10, "7", ""), (22.5, "", "7"), (23, "", "7"))
    assert faults(stay(0, 20), left) == [f"7, who was not there, leaves at {at(23)}"]
    joined = watcher((10, "7", ""), (11, "7", ""))
    assert faults(stay(0, 20), joined) == [f"7 joins twice at {at(11)}"]
