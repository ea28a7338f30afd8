"""The checker finds each kind of fault in forged records, and none in good ones."""

from __future__ import annotations

from typing import Any

import pytest

from faye_wsgi.brokers.base import Cursor, Position
from faye_wsgi.brokers.engines import partition

from .check import check, is_live, span_of, tell
from .records import Got, Sent, Session, Span

RESET = None


def at(number: int, epoch: str = "e") -> Position:
    return Position(number, epoch)


def sent(*numbers: int, channel: str = "a", epoch: str = "e", **fields: Any) -> list[Sent]:
    """Acknowledged publications; the number 10 has the value 'a10'."""
    return [
        Sent(channel, f"{channel}{one}", False, [(one, one + 1, None)], str(at(one, epoch)))
        for one in numbers
    ]


def failed(value: str, *, is_keyed: bool = False, cursor: str | None = None) -> Sent:
    attempts: list[Any] = [(1, 2, "PublishError")]
    return Sent(value[0], value, is_keyed, attempts, cursor)


def cursor(number: int | None, epoch: str = "e") -> Cursor | None:
    return None if number is None else Cursor((at(number, epoch),))


def got(number: int, channel: str = "a", value: str | None = "", **fields: Any) -> Got:
    value = f"{channel}{number}" if value == "" else value
    when = fields.get("when", number + 5)
    return Got(when, channel, Cursor((at(number, fields.get("epoch", "e")),)), value)


def reset(number: int, channel: str = "a", *, when: int, epoch: str = "e") -> Got:
    return got(number, channel, RESET, when=when, epoch=epoch)


def session(
    *messages: Got,
    since: int | None = 10,
    channels: tuple[str, ...] = ("a",),
    started: int | None = None,
    recovered: bool | None = None,
    replayed: int = 0,
    began: int = 0,
    ended: str = "",
    added: tuple[Span, ...] = (),
) -> Session:
    place = cursor(since)
    spans = [Span(one, place, began, 0, cursor(started), recovered, replayed) for one in channels]
    return Session("client", began, place, [*spans, *added], list(messages), ended=ended)


def kinds(publications: list[Sent], *sessions: Session, is_lossless: bool = False) -> set[str]:
    return {fault.kind for fault in check(publications, sessions, is_lossless=is_lossless)}


GOOD = sent(20, 30, 40) + sent(25, 35, channel="b")


def test_good_records_have_no_fault() -> None:
    whole = session(got(20), got(30), got(40))
    both = session(
        got(20), got(25, "b"), got(30), got(35, "b"), got(40), channels=("a", "b"), recovered=True
    )
    assert not kinds(GOOD, whole, both, is_lossless=True)


def test_what_came_before_the_start_and_after_the_end_is_not_missed() -> None:
    assert not kinds(GOOD, session(got(30), since=20))
    assert not kinds(GOOD, session(got(30), since=None, started=21))
    assert not kinds(GOOD, session(since=10))


def test_without_a_start_only_the_order_counts() -> None:
    assert not kinds(GOOD, session(got(40), since=None))
    assert kinds(GOOD, session(got(40), got(30), since=None)) == {"order"}


def test_a_message_is_lost() -> None:
    assert kinds(GOOD, session(got(20), got(40))) == {"lost"}
    assert kinds(GOOD, session(got(40), since=None, started=25)) == {"lost"}
    assert kinds(GOOD, session(got(30), got(40))) == {"lost"}


def test_the_id_of_another_channel_overtakes_a_message() -> None:
    overtaken = session(got(20), got(25, "b"), got(35, "b"), channels=("a", "b"))
    assert kinds(GOOD, overtaken) == {"lost"}


def test_a_reset_explains_what_came_before_it() -> None:
    assert not kinds(GOOD, session(got(20), reset(35, when=36), got(40)))
    assert not kinds(GOOD, session(got(20), reset(20, when=36), got(40)))


@pytest.mark.parametrize(
    "messages",
    [
        [got(20), reset(20, when=29), got(40)],  # made before 30 was published
        [got(20), got(40), reset(41, when=42)],  # 40 had come by then
        [got(20), reset(35, "b", when=36), got(40)],  # of another channel
    ],
)
def test_a_reset_explains_nothing_else(messages: list[Got]) -> None:
    assert kinds(GOOD, session(*messages, channels=("a", "b"), since=26)) >= {"lost"}


def test_a_reset_vouches_for_its_own_channel_alone() -> None:
    jumped = session(got(20), reset(38, when=39), channels=("a", "b"))
    assert kinds(GOOD, jumped) == {"lost"}


def test_a_message_comes_twice() -> None:
    assert kinds(GOOD, session(got(20), got(20), got(30))) == {"order"}


def test_a_message_comes_late() -> None:
    assert "order" in kinds(GOOD, session(got(30), got(20), got(40)))


def test_a_message_comes_again_that_the_cursor_has() -> None:
    assert kinds(GOOD, session(got(20), got(30), since=20)) == {"order"}


def test_a_message_comes_that_belongs_before_a_reset() -> None:
    assert kinds(GOOD, session(reset(35, when=36), got(30), got(40), since=20)) == {"order"}


def test_a_value_is_published_twice() -> None:
    again = got(45, value="a30", when=50)
    assert kinds(GOOD, session(got(20), got(30), got(40), again)) == {"twice"}


def test_a_repetition_with_a_key_is_published_twice() -> None:
    keyed = failed("a30", is_keyed=True, cursor="45-e")
    first, second = got(30), got(45, value="a30", when=50)
    assert kinds([keyed], session(first, second)) == {"twice"}


def test_a_key_is_lost_with_the_data() -> None:
    keyed = failed("a30", is_keyed=True, cursor="45-f")
    first, second = got(30), got(45, value="a30", when=50, epoch="f")
    assert not kinds([keyed], session(first, reset(44, when=44, epoch="f"), second))
    keyed.is_keyed = False
    assert kinds([keyed], session(first, second)) == {"twice"}


def test_what_raised_reaches_all_or_none() -> None:
    raised = failed("a30")
    one, other = session(got(20), got(30), got(40)), session(got(20), got(40))
    assert not kinds([*sent(20, 40), raised], other)
    assert not kinds([*sent(20, 40), raised], one)
    assert kinds([*sent(20, 40), raised], one, other) == {"lost"}


def test_two_values_have_one_place() -> None:
    clash = got(20, value="a21")
    assert "two at one place" in kinds(sent(20, 21), session(got(20)), session(clash))


def test_nobody_has_published_it() -> None:
    assert kinds([], session(got(20))) == {"unknown"}


def test_it_was_published_elsewhere() -> None:
    stray = got(25, value="b25")
    assert "unknown" in kinds(GOOD, session(stray, since=24))


def test_a_channel_was_not_asked_for() -> None:
    assert kinds(GOOD, session(got(25, "b"), since=20)) == {"not asked for"}


def test_recovered_is_a_false_true() -> None:
    said: dict[str, Any] = {"recovered": True, "replayed": 1, "began": 32}
    assert kinds(GOOD, session(got(20), **said)) == {"false True"}
    explained = session(got(20), reset(35, when=36), got(40), **said)
    assert kinds(GOOD, explained) == {"false True"}
    said["replayed"] = 2
    assert not kinds(GOOD, session(got(20), got(30), **said))


def test_what_is_on_its_way_when_a_client_recovers_comes_later() -> None:
    said: Any = {"recovered": True, "began": 32, "started": 25}
    assert not kinds(GOOD, session(got(20), got(30), got(40), replayed=1, **said))
    assert kinds(GOOD, session(got(20), got(40), replayed=1, **said)) == {"lost"}
    assert kinds(GOOD, session(got(20), got(30), replayed=0, **said)) == {"false True"}


def test_the_data_are_lost_before_the_server_can_say_that_a_client_has_recovered() -> None:
    said: Any = {"recovered": True, "began": 32, "replayed": 2}
    assert not kinds(GOOD, session(got(20), reset(30, when=31), got(40), **said))
    assert kinds(GOOD, session(got(20), reset(28, when=29), got(40), **said)) >= {"false True"}


def test_recovered_false_and_resets_are_needless() -> None:
    whole = session(got(20), got(30), recovered=False)
    assert kinds(GOOD, whole, is_lossless=True) == {"needless reset"}
    emptied = session(got(20), reset(20, when=36), got(40), recovered=True)
    assert kinds(GOOD, emptied, is_lossless=True) == {"needless reset"}


# Channels that are added and removed


def span(since: int | None, first: int, joined: int | None, started: int, **fields: Any) -> Span:
    return Span("b", cursor(since), 0, first, cursor(started), None, joined, **fields)


def test_an_added_channel_counts_from_its_place() -> None:
    assert not kinds(GOOD, session(got(20), got(30), got(35, "b"), added=(span(None, 1, 2, 31),)))
    late = session(got(20), got(30), got(40), added=(span(None, 1, 2, 31),))
    assert kinds(GOOD, late) == {"lost"}


def test_an_added_channel_is_replayed_before_it_is_confirmed() -> None:
    added = span(20, 2, 3, 31)
    assert not kinds(GOOD, session(got(20), got(30), got(25, "b"), added=(added,)))
    assert kinds(GOOD, session(got(20), got(30), added=(span(20, 2, 2, 31),))) == {"lost"}
    lost = reset(31, "b", when=31)
    assert not kinds(GOOD, session(got(20), got(30), lost, added=(added,)))


def test_one_that_was_never_confirmed_is_not_covered() -> None:
    assert not kinds(GOOD, session(got(20), got(30), got(40), added=(span(20, 1, None, 0),)))


def test_a_channel_that_was_given_back_is_missed_no_more() -> None:
    whole = [got(20), got(30), got(40)]
    assert not kinds(GOOD, session(*whole, added=(span(None, 1, 1, 21, left=1),)))
    assert kinds(GOOD, session(*whole, added=(span(None, 1, 1, 21, left=2),))) == {"lost"}
    again = (span(None, 1, 1, 21, left=3), span(21, 3, 4, 41))
    both = session(got(20), got(25, "b"), got(30), got(25, "b"), got(35, "b"), added=again)
    assert not kinds(sent(20, 30) + sent(25, 35, channel="b"), both)


def test_a_message_is_of_the_latest_span() -> None:
    """Also where nothing came between giving a channel back and adding it again."""
    again = (span(None, 1, 1, 21, left=1), span(21, 1, 2, 41))
    one = session(got(20), got(25, "b"), got(35, "b"), added=again)
    assert span_of(one, 1) is again[1]
    assert [is_live(one, index) for index in (1, 2)] == [False, True]


# Partitions


def test_each_partition_has_its_own_numbers() -> None:
    """An id vouches for all partitions; those of a replay are from before it."""
    here, there = "a", next(c for c in "bcdef" if partition(c, 2) != partition("a", 2))

    def place(mine: int, others: int) -> Cursor:
        numbers = {partition(here, 2): mine, partition(there, 2): others}
        return Cursor(at(numbers[index]) for index in range(2))

    publications = [
        Sent(here, "a20", False, [], f"{partition(here, 2)}.20-e"),
        Sent(there, "x7", False, [], f"{partition(there, 2)}.7-e"),
    ]
    names = (here, there)
    start = place(10, 5)
    replayed = [Got(30, here, start, "a20"), Got(30, there, start, "x7")]
    live = [Got(30, here, place(20, 5), "a20"), Got(30, there, place(20, 7), "x7")]
    for messages in (replayed, live, live[1:], live[:1]):
        joined = 2 if messages is replayed else 0
        spans = [Span(name, start, 0, 0, start, None, joined) for name in names]
        one = Session("client", 0, start, spans, messages)
        found = {fault.kind for fault in check(publications, [one], is_lossless=True, partitions=2)}
        assert found == ({"lost"} if messages == live[1:] else set())


def test_the_story_names_what_matters() -> None:
    first = session(got(20), ended="cut")
    second = session(got(40), since=20, ended="done")
    [fault] = check(GOOD, [first, second], is_lossless=True)
    story = tell(fault, GOOD, [first, second], [(28, "Redis is killed")])
    for part in ("LOST", "a30", "30-e", "cut", "Redis is killed", "gets a40", "since 20-e"):
        assert part in story
