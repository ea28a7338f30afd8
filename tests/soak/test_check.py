"""The checker finds each kind of fault in forged records, and none in good ones."""

from __future__ import annotations

from typing import Any

import pytest

from faye_wsgi.brokers.base import Position

from .check import check, tell
from .records import Got, Sent, Session

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


def got(number: int, channel: str = "a", value: str | None = "", **fields: Any) -> Got:
    value = f"{channel}{number}" if value == "" else value
    when = fields.get("when", number + 5)
    return Got(when, channel, at(number, fields.get("epoch", "e")), value)


def reset(number: int, channel: str = "a", *, when: int, epoch: str = "e") -> Got:
    return got(number, channel, RESET, when=when, epoch=epoch)


def session(*messages: Got, since: int | None = 10, **fields: Any) -> Session:
    fields.setdefault("channels", ("a",))
    place = None if since is None else at(since)
    return Session("client", since=place, began=0, got=list(messages), **fields)


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
    assert not kinds(GOOD, session(got(30), since=None, started=at(21)))
    assert not kinds(GOOD, session(since=10))


def test_without_a_start_only_the_order_counts() -> None:
    assert not kinds(GOOD, session(got(40), since=None))
    assert kinds(GOOD, session(got(40), got(30), since=None)) == {"order"}


def test_a_message_is_lost() -> None:
    assert kinds(GOOD, session(got(20), got(40))) == {"lost"}
    assert kinds(GOOD, session(got(40), since=None, started=at(25))) == {"lost"}
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
    again = Got(50, "a", at(45), "a30")
    assert kinds(GOOD, session(got(20), got(30), got(40), again)) == {"twice"}


def test_a_repetition_with_a_key_is_published_twice() -> None:
    keyed = failed("a30", is_keyed=True, cursor="45-e")
    first, second = got(30), Got(50, "a", at(45), "a30")
    assert kinds([keyed], session(first, second)) == {"twice"}


def test_a_key_is_lost_with_the_data() -> None:
    keyed = failed("a30", is_keyed=True, cursor="45-f")
    first, second = got(30), Got(50, "a", at(45, "f"), "a30")
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
    clash = Got(25, "a", at(20), "a21")
    assert "two at one place" in kinds(sent(20, 21), session(got(20)), session(clash))


def test_nobody_has_published_it() -> None:
    assert kinds([], session(got(20))) == {"unknown"}


def test_it_was_published_elsewhere() -> None:
    stray = Got(25, "a", at(25), "b25")
    assert "unknown" in kinds(GOOD, session(stray, since=24))


def test_a_channel_was_not_asked_for() -> None:
    assert kinds(GOOD, session(got(25, "b"), since=20)) == {"not asked for"}


def test_recovered_is_a_false_true() -> None:
    said = {"recovered": True, "replayed": 1}
    assert kinds(GOOD, renewed(session(got(20), **said), 32)) == {"false True"}
    explained = session(got(20), reset(35, when=36), got(40), **said)
    assert kinds(GOOD, renewed(explained, 32)) == {"false True"}
    assert not kinds(GOOD, renewed(session(got(20), got(30), recovered=True, replayed=2), 32))


def test_recovered_false_and_resets_are_needless() -> None:
    whole = session(got(20), got(30), recovered=False)
    assert kinds(GOOD, whole, is_lossless=True) == {"needless reset"}
    emptied = session(got(20), reset(20, when=36), got(40), recovered=True)
    assert kinds(GOOD, emptied, is_lossless=True) == {"needless reset"}


def renewed(one: Session, began: int) -> Session:
    one.began = began
    return one


def test_the_story_names_what_matters() -> None:
    first = session(got(20), ended="cut")
    second = session(got(40), since=20, ended="done")
    [fault] = check(GOOD, [first, second], is_lossless=True)
    story = tell(fault, GOOD, [first, second], [(28, "Redis is killed")])
    for part in ("LOST", "a30", "30-e", "cut", "Redis is killed", "gets a40", "since 20-e"):
        assert part in story
