"""What is kept for those who come back, and from where on it is all."""

from __future__ import annotations

from faye_wsgi.brokers.base import Publication
from faye_wsgi.delivery.recent import OVERHEAD, Recent


def publication(number: int, channel: str = "a", payload: str = "null") -> Publication:
    return Publication(channel, number, number - 1, "e", payload)


def numbers(recent: Recent, channel: str, since: int) -> list[int] | None:
    found = recent.since(channel, since)
    return None if found is None else [one.number for one in found]


def test_what_was_delivered_since_the_channel_began() -> None:
    recent = Recent(10_000)
    recent.begin("a", 10)
    recent.begin("b", 12)
    for one in (publication(13), publication(14, "b"), publication(15)):
        recent.add(one)
    assert numbers(recent, "a", 9) is None
    assert numbers(recent, "a", 10) == [13, 15]
    assert numbers(recent, "a", 13) == [15]
    assert numbers(recent, "a", 15) == []
    assert numbers(recent, "b", 10) is None
    assert numbers(recent, "b", 12) == [14]
    assert numbers(recent, "c", 20) is None


def test_a_reading_reaches_further_back() -> None:
    recent = Recent(10_000)
    recent.begin("a", 20)
    recent.add(publication(21))
    recent.begin("a", 10, [publication(12), publication(18), publication(21)])
    assert numbers(recent, "a", 10) == [12, 18, 21]
    recent.begin("a", 15, [publication(18)])
    assert numbers(recent, "a", 10) == [12, 18, 21]


def test_the_older_half_is_dropped_where_it_is_too_much() -> None:
    recent = Recent(10 * (OVERHEAD + 100))
    recent.begin("a", 0)
    for number in range(1, 12):
        recent.add(publication(number, payload="x" * 100))
    assert numbers(recent, "a", 5) is None
    assert numbers(recent, "a", 6) == [7, 8, 9, 10, 11]
    recent.begin("b", 3, [publication(4, "b")])  # what was dropped does not come back
    assert numbers(recent, "b", 3) is None
    assert numbers(recent, "b", 6) == []


def test_what_is_larger_than_all_that_may_be_kept() -> None:
    recent = Recent(OVERHEAD)
    recent.begin("a", 0)
    recent.add(publication(1))
    assert numbers(recent, "a", 0) is None
    assert numbers(recent, "a", 1) == []


def test_what_is_lost_is_not_known() -> None:
    recent = Recent(10_000)
    recent.begin("a", 0)
    recent.add(publication(1))
    recent.lose("a", 5)
    assert numbers(recent, "a", 4) is None
    assert numbers(recent, "a", 5) == []
    recent.discard("a")
    assert numbers(recent, "a", 5) is None


def test_another_life_of_the_data_has_nothing_of_this_one() -> None:
    recent = Recent(10_000)
    recent.begin("a", 0)
    recent.add(publication(10))
    recent.clear()
    recent.lose("a", 5)
    recent.add(publication(7))
    assert numbers(recent, "a", 5) == [7]
