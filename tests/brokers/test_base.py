"""The contract of all brokers, on each engine; and its numbers, without one."""

from __future__ import annotations

import threading
import time
from typing import Callable

import pytest

from faye_wsgi.brokers.base import (
    Broker,
    Change,
    Cursor,
    Joined,
    Left,
    Position,
    Publication,
    Reading,
    Replay,
    Request,
    Signal,
    Subscribed,
    is_complete,
)
from faye_wsgi.errors import BrokerError

from ..support.waiting import wait_until
from .harness import Engine, arrived, payloads, publish, sent, subscribed, wait_for

# Positions


@pytest.mark.parametrize("text", ["1764054000123456-3f2a", "0-0", "9007199254740991-abcdefgh"])
def test_a_position_is_read_from_its_text(text: str) -> None:
    assert str(Position.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "1", "-a", "1-", "1-A", "1-ä", "1-a\n", " 1-a", "-1-a", "1" * 17 + "-a", "1-" + "a" * 17],
)
def test_other_text_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        Position.parse(text)


def places(*numbers: int | None) -> Cursor:
    """A cursor with these numbers, each with an epoch of its own."""
    return Cursor(
        None if number is None else Position(number, f"e{index}")
        for index, number in enumerate(numbers)
    )


@pytest.mark.parametrize(
    ("cursor", "text"),
    [
        (places(None, 100, 90, 130), "100-e1_1_2.a-e2_3.-1e-e3"),
        (places(100, 90).of(Position(90, "e1")), "90-e1_0.-a-e0_1"),
        # In a replay, it vouches for less than the message: another one may still be missing.
        (places(100, 90).of(Position(120, "e1")), "120-e1_0.14-e0_1.1e-e1"),
        (places(100, 100), "100-e0_0_1.0-e1"),
        (Cursor([Position(7, "e"), Position(7, "e")]), "7-e_0_1"),
    ],
)
def test_a_cursor_of_several_partitions_begins_with_its_message(cursor: Cursor, text: str) -> None:
    assert str(cursor) == text
    assert Cursor.parse(text, len(cursor)) == cursor


def test_a_cursor_of_an_earlier_version_is_read() -> None:
    assert Cursor.parse("1.100-e1_3.130-e3", 4) == places(None, 100, None, 130)


def test_a_cursor_of_one_server_vouches_for_nothing_in_a_cluster() -> None:
    assert Cursor.parse("100-e0", 4) == (None,) * 4


@pytest.mark.parametrize(
    "text",
    ["", "_", "1-e_", "1-e_x", "1-e_4", "1-e_0_0", "1-e_0.2-e", "1-e_0.-" + "f" * 14 + "-e"]
    + ["1-e_0.1", "1-e_0.1-E", "1-e_0.g-e", "1-e_0.1-e\n", "0.1-e_0.1-e", "0.1-e_1", "1.-1-e"],
)
def test_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        Cursor.parse(text, 4)


def test_the_cursor_of_many_partitions_is_short() -> None:
    hour = 3_600 * 10**6
    start = 1764054000123456
    positions = [Position(start - hour * index, "3f9a01bc") for index in range(16)]
    assert len(str(Cursor(positions))) <= 350


def replay(*pairs: tuple[int, int], last: int = 0) -> Replay:
    made = [Publication("c", number, previous, "e", "1") for previous, number in pairs]
    return Replay(made, last or pairs[-1][1])


@pytest.mark.parametrize(
    ("since", "kept", "complete"),
    [
        (5, replay(last=5), True),
        (6, replay(last=5), True),
        (4, replay(last=5), False),
        (5, replay((5, 7), (7, 8)), True),
        (6, replay((5, 7), (7, 8)), True),
        (4, replay((5, 7), (7, 8)), False),
        (5, replay((5, 7), (8, 9)), False),
        (5, replay((5, 7), last=8), False),
        (10, replay(last=5), False),  # of the future
    ],
)
def test_a_replay_is_complete_where_each_knows_the_one_before(
    since: int, kept: Replay, complete: bool
) -> None:
    reading = Reading(Position(9, "e"), [kept])
    assert is_complete(Position(since, "e"), reading, kept) is complete
    assert not is_complete(Position(since, "f"), reading, kept)


# Publishing


def test_numbers_rise_over_all_channels(broker: Broker) -> None:
    positions = [publish(broker, f"c{index % 3}") for index in range(30)]
    assert positions == sorted(set(positions))
    assert {position.epoch for position in positions} == {positions[0].epoch}
    assert all(Position.parse(str(position)) == position for position in positions)
    assert abs(positions[0].number / 1_000_000 - time.time()) < 60


def test_what_is_kept_is_read_in_order_with_its_predecessors(broker: Broker) -> None:
    positions = [publish(broker, "a", str(index)) for index in range(5)]
    publish(broker, "b")
    reading = broker.read([Request("a", 0)])
    [kept] = reading.replays
    numbers = [position.number for position in positions]
    epoch = positions[0].epoch
    previous = [kept.publications[0].previous, *numbers]
    assert kept.publications == [
        Publication("a", numbers[index], previous[index], epoch, str(index)) for index in range(5)
    ]
    assert kept.last == numbers[-1]
    assert 0 < previous[0] < numbers[0]
    assert numbers[-1] < reading.now.number < publish(broker, "a").number
    assert reading.now.epoch == epoch


def test_a_reader_chooses_from_where_and_how_many(broker: Broker) -> None:
    numbers = [publish(broker, "a", str(index)).number for index in range(6)]
    assert payloads(broker, "a", numbers[2]) == ["3", "4", "5"]
    assert payloads(broker, "a", numbers[2] - 1) == ["2", "3", "4", "5"]
    assert payloads(broker, "a", numbers[2], 2) == ["3", "4"]
    assert payloads(broker, "a", numbers[5]) == []
    assert payloads(broker, "a", None, 2) == ["4", "5"]
    assert payloads(broker, "a", None, 100) == ["0", "1", "2", "3", "4", "5"]
    assert payloads(broker, "a", 0, 0) == payloads(broker, "a", None, 0) == []
    assert payloads(broker, "a", None, None) == []


def test_channels_are_read_at_one_moment(broker: Broker) -> None:
    publish(broker, "a", "1")
    publish(broker, "b", "2")
    reading = broker.read(
        [Request("b", 0), Request("c", 0), Request("a", 0), Request("a", None, 0)]
    )
    kept = [[item.payload for item in found.publications] for found in reading.replays]
    assert kept == [["2"], [], ["1"], []]
    assert reading.replays[2].last == reading.replays[3].last


def test_the_position_of_a_reading_vouches_for_all_its_channels(broker: Broker) -> None:
    """Also for those that are born by it, in a later step."""
    before = broker.read([]).now
    requests = [Request(f"c{index}", 0) for index in range(250)]
    reading = broker.read(requests)
    again = broker.read(requests)
    assert len(reading.replays) == 250
    for first, second in zip(reading.replays, again.replays):
        assert first == second
        assert is_complete(reading.now, again, second)
        assert not is_complete(before, again, second)
    assert publish(broker, "new").number > reading.now.number


def test_only_the_newest_are_kept(broker: Broker) -> None:
    first = publish(broker, "a", "0", history=3)
    for index in range(1, 6):
        publish(broker, "a", str(index), history=3)
    reading = broker.read([Request("a", first.number)])
    [kept] = reading.replays
    assert [item.payload for item in kept.publications] == ["3", "4", "5"]
    assert not is_complete(first, reading, kept)
    assert payloads(broker, "a", None, 10) == ["3", "4", "5"]


def test_a_size_ends_a_replay(broker: Broker) -> None:
    for index in range(150):
        publish(broker, "a", f'"€{index:06}"', history=150)  # 11 bytes
    publish(broker, "b", "1")

    def found(since: int | None, limit: int | None, size: int | None) -> list[int]:
        asked = [Request("a", since, limit, size), Request("b", 0, 10, 1)]
        a, b = broker.read(asked).replays
        assert [item.payload for item in b.publications] == ["1"]
        return [int(item.payload[2:-1]) for item in a.publications]

    assert found(0, 150, 1) == [0]
    assert found(0, 150, 11) == [0]
    assert found(0, 150, 12) == [0, 1]
    assert found(0, None, 1100) == list(range(100))
    assert found(0, 130, 10_000) == list(range(130))
    assert found(None, 150, 22) == [148, 149]
    assert found(None, 100, 10_000) == list(range(50, 150))
    assert found(None, 0, 10) == []


def test_without_history_nothing_is_kept_but_the_number(broker: Broker) -> None:
    publish(broker, "a", "0")
    position = publish(broker, "a", "1", history=0)
    reading = broker.read([Request("a", 0)])
    assert reading.replays == [Replay([], position.number)]
    assert is_complete(position, reading, reading.replays[0])
    later = publish(broker, "a", "2")
    [kept] = broker.read([Request("a", position.number)]).replays
    assert [(item.previous, item.number) for item in kept.publications] == [
        (position.number, later.number)
    ]


def test_history_ends_some_time_after_the_newest(broker: Broker) -> None:
    position = publish(broker, "a", "0", ttl=0.05)
    wait_until(lambda: not payloads(broker, "a"))
    reading = broker.read([Request("a", 0)])
    assert reading.replays == [Replay([], position.number)]
    publish(broker, "a", "1", ttl=60)
    assert payloads(broker, "a") == ["1"]


def test_a_key_is_taken_once(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a", "a:b")
    first = publish(broker, "a", "1", key="b:k")
    assert publish(broker, "a", "2", key="b:k") == first
    assert publish(broker, "a:b", "3", key="k") > first
    assert publish(broker, "a", "4", key="other") > first
    assert publish(broker, "a", "5") > first
    assert payloads(broker, "a") == ["1", "4", "5"]
    found = arrived(feed)
    assert (sent("a", found), sent("a:b", found)) == (["1", "4", "5"], ["3"])


NAMES = [
    " ",
    "a b",
    "room:42",
    "ü€😀",
    "{x}",
    "{",
    "*?[a]",
    "\n\r\n",
    "0",
    "+",
    "-",
    "x" * 255,
    "é" * 127,
]
PAYLOADS = ['"x"', '{"a":"ü€😀"}', '" "', "1 2 3", "[\n]", "", '"' + "x" * 100_000 + '"', "\0"]


@pytest.mark.parametrize("name", NAMES)
def test_a_channel_has_any_name(broker: Broker, name: str) -> None:
    feed = subscribed(broker.open_feed(), name)
    publish(broker, name, "1")
    assert payloads(broker, name) == ["1"]
    assert sent(name, arrived(feed)) == ["1"]


def test_a_payload_is_any_text(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a")
    for payload in PAYLOADS:
        publish(broker, "a", payload)
    assert payloads(broker, "a") == PAYLOADS
    assert sent("a", arrived(feed)) == PAYLOADS


# Feeds


def test_a_feed_brings_what_is_published(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a", "b")
    for index in range(4):
        publish(broker, "ab"[index % 2], str(index))
    publish(broker, "other")
    found = arrived(feed)
    reading = broker.read([Request("a", 0), Request("b", 0)])
    kept = [item for found in reading.replays for item in found.publications]
    assert found == sorted(kept, key=lambda item: item.number)


def test_each_feed_gets_its_own(broker: Broker) -> None:
    first = subscribed(broker.open_feed(), "a")
    second = subscribed(broker.open_feed(), "a", "b")
    publish(broker, "a", "1")
    publish(broker, "b", "2")
    assert [sent("a", arrived(first)), sent("b", arrived(first))] == [["1"], []]
    found = arrived(second)
    assert [sent("a", found), sent("b", found)] == [["1"], ["2"]]


def test_a_signal_is_behind_all_that_was_published(broker: Broker) -> None:
    feed, other = subscribed(broker.open_feed(), "a"), subscribed(broker.open_feed(), "a")
    for index in range(50):
        publish(broker, "a", str(index))
        feed.signal(str(index))
    found = wait_for(feed, [Signal("49")])
    assert sent("a", found) == [str(index) for index in range(50)]
    assert [item.token for item in found if isinstance(item, Signal)] == sent("a", found)
    for number, item in enumerate(found):
        if isinstance(item, Signal):
            assert item.token in sent("a", found[:number])
    assert not [item for item in arrived(other) if isinstance(item, Signal)]


def test_what_is_there_comes_at_once(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a")
    for index in range(200):
        publish(broker, "a", str(index))
    feed.signal("end")
    calls = found = 0
    while found <= 200:
        found += len(feed.receive(10))
        calls += 1
    assert calls <= 20


def test_an_unsubscribed_channel_is_silent(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a", "b")
    feed.unsubscribe(["a"])
    arrived(feed)
    subscribed(feed, "c")
    publish(broker, "a", "1")
    publish(broker, "b", "2")
    found = arrived(feed)
    assert [sent("a", found), sent("b", found)] == [[], ["2"]]
    subscribed(feed, "a")
    publish(broker, "a", "3")
    assert sent("a", arrived(feed)) == ["3"]


def test_each_channel_is_confirmed(broker: Broker) -> None:
    feed = broker.open_feed()
    channels = [f"c{index}" for index in range(1500)]
    feed.subscribe(channels)
    feed.subscribe([])
    feed.unsubscribe([])
    assert wait_for(feed, [Subscribed(channels[-1])]) == [Subscribed(name) for name in channels]


def test_a_feed_waits_for_a_bounded_time(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a")
    assert feed.receive(0) == feed.receive(0.05) == []


def test_a_waiting_feed_wakes_up(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a")
    timer = threading.Timer(0.05, publish, [broker, "a", "1"])
    timer.start()
    assert sent("a", feed.receive(10)) == ["1"]
    timer.join(10)


def test_a_closed_feed_says_so(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a")
    feed.close()
    with pytest.raises(BrokerError):
        feed.receive(10)
    publish(broker, "a")
    feed.close()


CALLS: list[Callable[[Broker], object]] = [
    lambda broker: publish(broker, "a"),
    lambda broker: broker.read([]),
    lambda broker: broker.open_feed(),
    lambda broker: broker.change_presence([Change("a", "m", "1", "{}")]),
    lambda broker: broker.members("a"),
    lambda broker: broker.rosters(["a"]),
    lambda broker: broker.beat(),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_broker_says_so(broker: Broker, call: Callable[[Broker], object]) -> None:
    publish(broker, "a")
    broker.close()
    with pytest.raises(BrokerError, match="closed"):
        call(broker)
    broker.close()


def test_the_feeds_of_a_closed_broker_end(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a")
    timer = threading.Timer(0.05, broker.close)
    timer.start()
    with pytest.raises(BrokerError):
        for _ in range(2):
            feed.receive(10)
    timer.join(10)


# Presence


def come(member: str, connection: str, data: str = "{}", channel: str = "a") -> Change:
    return Change(channel, member, connection, data)


def go(member: str, connection: str, channel: str = "a") -> Change:
    return Change(channel, member, connection, None)


def test_a_member_joins_once(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a", "b")
    broker.change_presence([come("7", "x", '{"n":1}'), come("7", "y", '{"n":1}')])
    broker.change_presence([come("7", "z", '{"n":1}'), come("8:+ ü", "x", '"€"')])
    broker.change_presence([come("7", "x", '{"n":1}'), come("7", "x", "{}", "b")])
    assert arrived(feed) == [
        Joined("a", "7", '{"n":1}'),
        Joined("a", "8:+ ü", '"€"'),
        Joined("b", "7", "{}"),
    ]
    assert broker.members("a") == {"7": ['{"n":1}'] * 3, "8:+ ü": ['"€"']}
    assert broker.rosters(["b", "a", "c"]) == [{"7": "{}"}, {"7": '{"n":1}', "8:+ ü": '"€"'}, {}]


def test_other_data_of_a_member_are_announced(engine: Engine) -> None:
    broker = engine.connect(leave_seconds=0.1)
    feed = subscribed(broker.open_feed(), "a")
    broker.change_presence([come("7", "x", "1"), come("7", "y", "2"), come("7", "x", "3")])
    assert arrived(feed) == [Joined("a", "7", "1"), Joined("a", "7", "2"), Joined("a", "7", "3")]
    assert sorted(broker.members("a")["7"]) == ["2", "3"]
    assert broker.rosters(["a"]) == [{"7": "3"}]
    broker.change_presence([go("7", "x"), go("7", "y")])
    assert broker.members("a") == {} and broker.rosters(["a"]) == [{"7": "3"}]
    broker.change_presence([come("7", "z", "4")])
    assert arrived(feed) == [Joined("a", "7", "4")]
    broker.change_presence([go("7", "z")])
    assert wait_for(feed, [Left("a", "7")], broker.beat) == [Left("a", "7")]
    assert broker.rosters(["a"]) == [{}]


def test_members_of_other_channels(broker: Broker) -> None:
    broker.change_presence([come("7", "x", "{}", "b")])
    assert broker.members("b") == {"7": ["{}"]}
    assert broker.members("a") == broker.members("c") == {}


def test_the_last_connection_takes_the_member_with_it_later(engine: Engine) -> None:
    broker = engine.connect(leave_seconds=0.1)
    feed = subscribed(broker.open_feed(), "a")
    broker.change_presence([come("7", "x"), come("7", "y"), come("8", "x")])
    broker.change_presence([go("7", "x"), go("9", "x"), go("7", "unknown")])
    broker.change_presence([go("8", "x")])
    assert broker.members("a") == {"7": ["{}"]}
    found = wait_for(feed, [Left("a", "8")], broker.beat)
    assert found == [Joined("a", "7", "{}"), Joined("a", "8", "{}"), Left("a", "8")]
    broker.change_presence([go("7", "y"), go("7", "y")])
    assert broker.members("a") == {}
    assert wait_for(feed, [Left("a", "7")], broker.beat) == [Left("a", "7")]
    broker.beat()
    assert arrived(feed) == []


def test_a_leave_is_not_announced_before_its_time(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a")
    broker.change_presence([come("7", "x"), go("7", "x")])
    broker.beat()
    assert arrived(feed) == [Joined("a", "7", "{}")]


def test_coming_back_is_not_announced(engine: Engine) -> None:
    broker = engine.connect(leave_seconds=0.2)
    feed = subscribed(broker.open_feed(), "a")
    broker.change_presence([come("7", "x"), go("7", "x"), come("7", "y")])
    broker.change_presence([come("8", "x"), go("8", "x")])
    found = wait_for(feed, [Left("a", "8")], broker.beat)
    assert found == [Joined("a", "7", "{}"), Joined("a", "8", "{}"), Left("a", "8")]
    assert broker.members("a") == {"7": ["{}"]}
    broker.change_presence([come("8", "x")])
    assert arrived(feed) == [Joined("a", "8", "{}")]


def test_many_changes_are_one_call(broker: Broker) -> None:
    feed = subscribed(broker.open_feed(), "a")
    broker.change_presence([come(str(index), "x") for index in range(1200)])
    assert arrived(feed) == [Joined("a", str(index), "{}") for index in range(1200)]
    assert len(broker.members("a")) == 1200
    broker.change_presence([go(str(index), "x") for index in range(1200)])
    assert broker.members("a") == {}
    broker.change_presence([])


def test_nothing_is_deleted_before_its_time(broker: Broker) -> None:
    assert broker.eviction_policy() == "noeviction"


def test_a_process_counts_as_alive(broker: Broker) -> None:
    assert broker.beat() == broker.beat() == 1


# Presence of several processes


@pytest.fixture
def processes(engine: Engine) -> Callable[..., Broker]:
    if not engine.has_processes:
        pytest.skip("the engine is of one process")
    return engine.connect


def test_a_member_in_two_processes_is_one(processes: Callable[..., Broker]) -> None:
    one, two = processes(leave_seconds=0.05), processes(leave_seconds=0.05)
    feed = subscribed(one.open_feed(), "a")
    one.change_presence([come("7", "x", "1")])
    two.change_presence([come("7", "x", "2")])
    assert sorted(two.members("a")["7"]) == ["1", "2"]
    one.change_presence([go("7", "x")])
    assert one.members("a") == {"7": ["2"]}
    one.beat()
    assert arrived(feed) == [Joined("a", "7", "1"), Joined("a", "7", "2")]
    two.change_presence([go("7", "x")])
    assert wait_for(feed, [Left("a", "7")], one.beat) == [Left("a", "7")]


def test_a_dead_process_leaves_once(processes: Callable[..., Broker]) -> None:
    """On a busy machine the living may be silent for so long, too: they are noted again."""
    living = [processes(leave_seconds=0.05, worker_seconds=0.5) for _ in range(2)]
    dead = processes(leave_seconds=0.05, worker_seconds=0.5)
    feed = subscribed(living[0].open_feed(), "a", "b")
    dead.change_presence([come(str(index), "x") for index in range(1100)])
    for broker in (*living, dead):
        broker.change_presence([come("both", "x", "1", "b")])
    wait_until(lambda: [broker.beat() for broker in (*living, dead)][-1] == 3)
    arrived(feed)

    def beat() -> None:
        for broker in living:
            broker.beat()

    gone = [Left("a", str(index)) for index in range(1100)]
    found = wait_for(feed, gone, beat)
    assert sorted(found) == sorted(gone)
    assert living[0].members("a") == {}
    wait_until(lambda: living[0].beat() == living[1].beat() == 2)
    assert processes().members("b") == {"both": ["1", "1"]}
    assert arrived(feed) == []


def test_a_dead_process_has_no_members(processes: Callable[..., Broker]) -> None:
    """Also where no other process sweeps up after it: a script may ask."""
    dead, script = processes(worker_seconds=0.2), processes(worker_seconds=0.2)
    dead.change_presence([come("7", "x")])
    assert processes().members("a") == {"7": ["{}"]}
    wait_until(lambda: script.members("a") == {})


def test_who_was_taken_for_dead_is_noted_again(processes: Callable[..., Broker]) -> None:
    options = {"leave_seconds": 0.05, "worker_seconds": 0.3}
    living, slow = processes(**options), processes(**options)
    script = processes()  # takes none for dead so soon
    feed = subscribed(living.open_feed(), "a")
    slow.change_presence([come("7", "x", "7"), come("8", "x", "8")])
    wait_for(feed, [Left("a", "7"), Left("a", "8")], living.beat)
    slow.beat()
    assert script.members("a") == {"7": ["7"], "8": ["8"]}
    assert sorted(arrived(feed)) == [Joined("a", "7", "7"), Joined("a", "8", "8")]
    wait_for(feed, [Left("a", "7"), Left("a", "8")], living.beat)
    slow.change_presence([go("8", "x")])
    assert script.members("a") == {"7": ["7"]}
