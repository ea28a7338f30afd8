"""What follows what, and what is missing."""

from __future__ import annotations

from faye_wsgi.brokers.base import Position, Publication, Replay
from faye_wsgi.delivery import timeline
from faye_wsgi.delivery.timeline import Timeline, find_floor

NOW = Position(10, "e")


def publication(number: int, previous: int, channel: str = "a", epoch: str = "e") -> Publication:
    return Publication(channel, number, previous, epoch, "null")


def begun(*channels: str) -> Timeline:
    made = Timeline()
    assert made.settle(NOW, {}) == ([], [])
    for channel in channels or ("a",):
        made.add(channel)
    return made


def test_what_follows_is_next_and_a_duplicate_is_not() -> None:
    line, first, second = begun(), publication(11, 9), publication(12, 11)
    assert line.receive([first, first, second]) == [first, second]
    assert line.receive([second]) == []
    assert line.position == Position(12, "e")


def test_from_a_gap_on_all_channels_are_held() -> None:
    line, gap, other = begun("a", "b"), publication(13, 12), publication(14, 9, "b")
    assert line.receive([gap, other]) == [] and not line.is_whole
    missing = publication(12, 9)
    answer = {"a": Replay([missing, gap], 13), "b": Replay([], 9)}
    assert line.settle(Position(13, "e"), answer) == ([], [missing, gap])
    assert line.receive(()) == [other]


def test_what_cannot_be_read_is_a_reset_before_all_that_is_newer() -> None:
    line, other = begun("a", "b"), publication(12, 9, "b")
    line.lose()
    answer = {"a": Replay([publication(14, 13)], 14), "b": Replay([other], 12)}
    assert line.settle(Position(14, "e"), answer) == (["a"], [other])
    later = publication(15, 14)
    assert line.receive([publication(14, 13), later]) == [later]


def test_another_epoch_is_a_reset_of_all() -> None:
    line = begun("a", "b")
    assert line.receive([publication(20, 10, epoch="f")]) == []
    now = Position(20, "f")
    assert line.settle(now, {"a": Replay([], 20), "b": Replay([], 20)}) == (["a", "b"], [])
    assert line.position == now


def test_a_clock_that_went_back_is_a_reset_of_all() -> None:
    line = begun()
    line.suspect()
    assert line.settle(Position(5, "e"), {"a": Replay([], 5)}) == (["a"], [])
    low = publication(6, 5)
    assert line.receive([low]) == [low]


def test_a_reading_from_before_the_last_loss_says_nothing() -> None:
    line = begun()
    line.hold([publication(30, 29, epoch="f")])
    assert line.settle(Position(12, "e"), None) is None
    assert not line.is_whole


def test_more_than_a_page_is_missing() -> None:
    size = timeline.PAGE
    numbers = range(11, 11 + size + 5)
    missing = [publication(number, number - 1) for number in numbers]
    line = begun("a", "b")
    line.lose()
    other, now = publication(numbers[-1] + 1, 9, "b"), Position(numbers[-1] + 1, "e")
    b = Replay([other], other.number)
    first = line.settle(now, {"a": Replay(missing[:size], missing[-1].number), "b": b})
    assert first == ([], missing[:size]) and not line.is_whole
    rest = line.settle(now, {"a": Replay(missing[size:], missing[-1].number), "b": b})
    assert rest == ([], [*missing[size:], other]) and line.is_whole


def test_the_floor_of_a_channel() -> None:
    chain = [publication(11, 9), publication(13, 11)]
    assert find_floor(chain, 13) == 9
    assert find_floor(chain, 14) == 14  # the last one has not come
    assert find_floor([*chain, publication(16, 15)], 16) == 15
    assert find_floor([], 9) == 9
