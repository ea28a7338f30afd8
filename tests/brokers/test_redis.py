"""The broker on a Redis that is restarted, emptied, cut off, frozen and full."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Callable
from unittest import mock

import pytest

from faye_wsgi.brokers.base import Broker, Change, Joined, Left, Position, Request, is_complete
from faye_wsgi.brokers.engines import connect
from faye_wsgi.brokers.redis import RedisBroker
from faye_wsgi.errors import BrokerError, PublishError

from ..support.redis import Meddler, RedisServer
from .harness import arrived, payloads, publish, sent, subscribed, wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
def broker(server: RedisServer) -> Iterator[Broker]:
    [made] = connect(server.url)
    yield made
    made.close()


@pytest.fixture
def meddler(redis_server: RedisServer) -> Iterator[Meddler]:
    with Meddler(redis_server) as made:
        yield made


def vouches(broker: Broker, since: Position, channel: str = "a") -> bool:
    reading = broker.read([Request(channel, since.number)])
    return is_complete(since, reading, reading.replays[0])


def seconds_left(server: RedisServer, key: str) -> float:
    return int(server.ask("PTTL", key)[1:]) / 1000


def test_presence_expires_where_no_process_is_left(broker: Broker, server: RedisServer) -> None:
    """And lives on as long as one does, also where nothing changes."""
    broker.change_presence([Change("a", "7", "x", "{}"), Change("a", "8", "x", "{}")])
    broker.change_presence([Change("a", "8", "x", None)])
    assert isinstance(broker, RedisBroker)
    of_process = ["workers", "leaving", f"worker:{broker.worker}"]
    of_channel = ["here:a", "count:a", "known:a"]
    keys = [f"{{faye}}:{name}" for name in of_process + of_channel]
    assert set(server.ask("KEYS", "{faye}:*").split()[2::2]) == {*keys, "{faye}:clock"}
    for key in keys:
        assert 3500 < seconds_left(server, key) <= 3600
        server.ask("EXPIRE", key, 100)
    broker.beat()
    left = [seconds_left(server, key) > 3500 for key in keys]
    assert left == [True] * len(of_process) + [False] * len(of_channel)
    broker._next_keeping = time.monotonic()
    broker.beat()
    assert all(seconds_left(server, key) > 3500 for key in keys)
    assert broker._next_keeping > time.monotonic() + 1000


# Numbers


def test_numbers_are_exact_up_to_the_largest(broker: Broker, server: RedisServer) -> None:
    publish(broker, "a")
    server.ask("HSET", "{faye}:clock", "number", 2**53 - 12)
    numbers = [publish(broker, f"new{index}").number for index in range(5)]
    assert numbers == [2**53 - 10 + 2 * index for index in range(5)]
    reading = broker.read([Request("new0", numbers[0] - 1)])
    assert [item.number for item in reading.replays[0].publications] == numbers[:1]
    assert reading.now.number == numbers[-1]


def test_what_was_evicted_is_not_vouched_for(broker: Broker, server: RedisServer) -> None:
    position = publish(broker, "a", "1")
    assert vouches(broker, position)
    server.ask("DEL", "{faye}:last:a")
    assert not vouches(broker, position)
    assert payloads(broker, "a") == []
    position = publish(broker, "a", "2")
    server.ask("DEL", "{faye}:log:a")
    assert vouches(broker, position)
    assert not vouches(broker, Position(position.number - 1, position.epoch))


def test_it_knows_that_its_server_evicts(broker: Broker, server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert broker.eviction_policy() == "noeviction", "without maxmemory it is never full"
    server.ask("CONFIG", "SET", "maxmemory", "1gb")
    assert broker.eviction_policy() == "allkeys-lru"
    assert server.ask("DBSIZE") == ":0\r\n", "nothing was written"


def test_a_channel_that_is_read_is_not_forgotten(broker: Broker, server: RedisServer) -> None:
    publish(broker, "a")
    server.ask("PEXPIRE", "{faye}:last:a", 10_000)
    broker.read([Request("a", 0)])
    assert int(server.ask("PTTL", "{faye}:last:a")[1:]) > 86_000_000


def test_keys_and_history_expire(broker: Broker, server: RedisServer) -> None:
    publish(broker, "a", key="k", ttl=1000.0)
    for key, seconds in (("log:a", 1000), ("key:1:a:k", 300), ("last:a", 86_400)):
        left = int(server.ask("PTTL", "{faye}:" + key)[1:])
        assert (seconds - 60) * 1000 < left <= seconds * 1000
    publish(broker, "a", ttl=1_000_000.0)
    assert int(server.ask("PTTL", "{faye}:last:a")[1:]) > 999_000_000


# Lives of the data


def test_a_restart_fails_no_publication_and_begins_an_epoch(
    broker: Broker, server: RedisServer
) -> None:
    before = publish(broker, "a", "1")
    server.restart()
    after = publish(broker, "a", "2")
    assert after.number > before.number
    assert after.epoch != before.epoch
    assert not vouches(broker, before)
    assert vouches(broker, after)


@pytest.mark.parametrize("durable", ["", "?durable=1"])
def test_a_restart_with_its_data(start_redis: Callable[..., RedisServer], durable: str) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    [broker] = connect(server.url + durable)
    before = publish(broker, "a", "1")
    server.restart()
    assert payloads(broker, "a") == ["1"]
    assert vouches(broker, before) is bool(durable)
    after = publish(broker, "a", "2")
    assert (after.epoch == before.epoch) is bool(durable)
    server.ask("FLUSHALL")
    assert not vouches(broker, after)
    broker.close()


def test_emptying_it_begins_an_epoch(broker: Broker, server: RedisServer) -> None:
    feed = subscribed(broker.open_feed(), "a")
    before = publish(broker, "a", "1")
    server.ask("FLUSHALL")
    after = publish(broker, "a", "2")
    assert not vouches(broker, before)
    found = [item for item in arrived(feed) if getattr(item, "payload", None)]
    assert [item.epoch for item in found] == [before.epoch, after.epoch]
    assert before.epoch != after.epoch


def test_the_epoch_is_that_of_all_processes(broker: Broker, server: RedisServer) -> None:
    [other] = connect(server.url)
    server.restart()
    epochs = {publish(some, "a").epoch for some in (broker, other, broker)}
    assert len(epochs) == 1
    other.close()


def test_data_that_are_lost_while_they_are_read_raise(
    meddler: Meddler, redis_server: RedisServer
) -> None:
    [broker] = connect(meddler.url, prefix="torn")
    meddler.answers += [
        b"".join(b"*5\r\n$1\r\n1\r\n$1\r\n%s\r\n:0\r\n$1\r\n1\r\n*0\r\n" % e for e in (b"a", b"b"))
    ]
    with pytest.raises(BrokerError, match="lost while they were read"):
        broker.read([Request("a", 0)] * 101)
    broker.close()


def test_scripts_come_back_after_they_were_flushed(broker: Broker, server: RedisServer) -> None:
    publish(broker, "a", "1")
    server.ask("SCRIPT", "FLUSH")
    publish(broker, "a", "2")
    server.ask("SCRIPT", "FLUSH")
    assert len(broker.read([Request(f"c{index}", 0) for index in range(250)]).replays) == 250
    assert payloads(broker, "a") == ["1", "2"]


def test_presence_is_noted_again_after_the_data_are_lost(
    broker: Broker, server: RedisServer
) -> None:
    broker.change_presence([Change("a", "7", "x", "1"), Change("a", "8", "x", "2")])
    broker.change_presence([Change("a", "8", "x", None)])
    server.ask("FLUSHALL")
    feed = subscribed(broker.open_feed(), "a")
    broker.beat()
    assert broker.members("a") == {"7": ["1"]}
    assert arrived(feed) == [Joined("a", "7", "1")]
    server.ask("FLUSHALL")
    broker.change_presence([Change("a", "9", "x", "3")])
    assert broker.members("a") == {"7": ["1"], "9": ["3"]}


def test_presence_is_set_right_after_a_failover(broker: Broker, server: RedisServer) -> None:
    """The last changes were not replicated: one that came is missing, one that went is there."""
    broker.change_presence([Change("a", "7", "x", "7"), Change("a", "8", "x", "8")])
    broker.beat()
    worker = broker.worker
    server.ask("HDEL", "{faye}:here:a", f"1:7{worker}:x")
    server.ask("HDEL", "{faye}:count:a", "7")
    server.ask("SREM", "{faye}:worker:" + worker, f"1:a1:7{worker}:x")
    server.ask("HSET", "{faye}:here:a", f"1:9{worker}:x", "9")
    server.ask("HSET", "{faye}:count:a", "9", "1")
    server.ask("SADD", "{faye}:worker:" + worker, f"1:a1:9{worker}:x")
    assert broker.members("a") == {"8": ["8"], "9": ["9"]}
    broker.beat()
    assert broker.members("a") == {"8": ["8"], "9": ["9"]}
    server.ask("HSET", "{faye}:clock", "run", "another")
    broker.beat()
    assert broker.members("a") == {"7": ["7"], "8": ["8"]}


def test_members_do_not_leave_while_they_are_noted_anew(server: RedisServer) -> None:
    """The call that notes them may fail, and be repeated late: it is another one."""
    [one], [other] = (connect(server.url, leave_seconds=0.1) for _ in range(2))
    with closing(one), closing(other), closing(subscribed(other.open_feed(), "a")) as feed:
        one.change_presence([Change("a", "7", "x", "7")])
        with mock.patch.object(one._present, "_note", side_effect=BrokerError("cut")):
            with pytest.raises(BrokerError):
                one._present.check(False)
        other.change_presence([Change("a", "8", "x", "8"), Change("a", "8", "x", None)])
        found = wait_for(feed, [Left("a", "8")], other.beat)
        assert Left("a", "7") not in found
        one.beat()
        assert arrived(feed) == []
        assert other.members("a") == {"7": ["7"]}


def test_a_process_that_is_silent_is_not_counted(broker: Broker, server: RedisServer) -> None:
    """It may be dead: an answer of it is not waited for, long before its members leave."""
    [other] = connect(server.url)
    other.change_presence([Change("a", "7", "x", "1")])
    assert broker.beat() == 2
    seconds, micros = (int(word) for word in server.ask("TIME").split("\r\n")[2::2])
    then = seconds * 1000 + micros // 1000 - 6000
    assert server.ask("ZADD", "{faye}:workers", "XX", "CH", then, other.worker) == ":1\r\n"
    assert broker.beat() == 1
    assert broker.members("a") == {"7": ["1"]}
    assert other.beat() == 2
    other.close()


# Lost calls


def test_an_answer_that_is_lost_raises_and_is_not_sent_again(meddler: Meddler) -> None:
    [broker] = connect(meddler.url, prefix="lost")
    publish(broker, "a", "0")
    meddler.cuts, meddler.calls = 1, 0
    with pytest.raises(PublishError):
        publish(broker, "a", "1")
    assert meddler.calls == 1
    assert payloads(broker, "a") == ["0", "1"], "it was taken; the publisher could not know"
    broker.close()


def test_with_a_key_it_is_sent_again_and_taken_once(meddler: Meddler) -> None:
    [broker] = connect(meddler.url, prefix="again")
    publish(broker, "a", "0")
    meddler.cuts, meddler.calls = 2, 0
    position = publish(broker, "a", "1", key="k")
    assert meddler.calls == 3
    assert payloads(broker, "a") == ["0", "1"]
    assert publish(broker, "a", "1", key="k") == position
    broker.close()


def test_reading_is_repeated(meddler: Meddler) -> None:
    [broker] = connect(meddler.url, prefix="reading")
    publish(broker, "a", "0")
    meddler.cuts = 1
    assert payloads(broker, "a") == ["0"]
    meddler.cuts = 1
    broker.change_presence([Change("a", "7", "x", "1")])
    meddler.cuts = 1
    assert broker.members("a") == {"7": ["1"]}
    broker.close()


@pytest.mark.parametrize(
    "line", ["LOADING it reads its data", "READONLY it is a replica", "MASTERDOWN x", "BUSY x"]
)
def test_what_passes_is_waited_for(meddler: Meddler, line: str) -> None:
    [broker] = connect(meddler.url, prefix=f"passing-{line[:4]}")
    meddler.answers += [f"-{line}\r\n".encode()] * 3
    publish(broker, "a", "0")
    assert payloads(broker, "a") == ["0"]
    broker.close()


def test_what_lasts_raises_at_once(meddler: Meddler) -> None:
    [broker] = connect(meddler.url, prefix="lasting")
    meddler.answers += [b"-MISCONF no disk\r\n"]
    with pytest.raises(PublishError, match="its disk"):
        publish(broker, "a", "0")
    meddler.answers += [b"-LOADING it reads its data\r\n"] * 1000
    begun = time.monotonic()
    with pytest.raises(PublishError, match="has started"):
        publish(broker, "a", "0")
    assert time.monotonic() - begun < broker.timeout + 1
    broker.close()


# Lost connections


def test_a_connection_that_died_at_rest_is_not_used(broker: Broker, server: RedisServer) -> None:
    for index in range(3):
        publish(broker, "a", str(index))
        assert server.ask("CLIENT", "KILL", "TYPE", "normal").startswith(":")
    assert payloads(broker, "a") == ["0", "1", "2"]


def test_a_feed_that_is_cut_says_so_and_stays_cut(broker: Broker, server: RedisServer) -> None:
    feed = subscribed(broker.open_feed(), "a")
    assert server.ask("CLIENT", "KILL", "TYPE", "pubsub") == ":1\r\n"
    publish(broker, "a", "1")
    for _ in range(2):
        with pytest.raises(BrokerError):
            feed.receive(10)
    calls: list[Callable[[], Any]] = [
        lambda: feed.subscribe(["b"]),
        lambda: feed.unsubscribe(["a"]),
        feed.signal,
    ]
    for call in calls:
        with pytest.raises(BrokerError):
            call()
    assert server.ask("PUBSUB", "CHANNELS") == "*0\r\n", "it has not connected again by itself"
    other = subscribed(broker.open_feed(), "a")
    publish(broker, "a", "2")
    assert sent("a", arrived(other)) == ["2"]


def test_a_frozen_redis_is_noticed(server: RedisServer) -> None:
    [broker] = connect(server.url, timeout=0.5)
    feed = subscribed(broker.open_feed(), "a")
    publish(broker, "a")
    with server.paused():
        begun = time.monotonic()
        with pytest.raises(PublishError, match="answer"):
            publish(broker, "a")
        assert 0.4 < time.monotonic() - begun < 2
        with pytest.raises(BrokerError, match="answer"):
            while True:
                feed.receive(1)
        assert time.monotonic() - begun < 6
    broker.close()


def test_a_quiet_redis_is_not_frozen(server: RedisServer, monkeypatch: Any) -> None:
    monkeypatch.setattr("faye_wsgi.brokers.redis.SILENCE", 0.02)
    [broker] = connect(server.url, timeout=5.0)
    feed = subscribed(broker.open_feed(), "a")
    assert feed.receive(0.5) == []
    publish(broker, "a", "1")
    assert sent("a", arrived(feed)) == ["1"]
    asked = re.search(r"cmdstat_ping:calls=(\d+)", server.ask("INFO", "commandstats"))
    assert asked is not None and int(asked[1]) > 3
    broker.close()


def test_calls_share_a_bounded_number_of_connections(server: RedisServer) -> None:
    [broker] = connect(f"{server.url}?max_connections=3")
    before = int(server.ask("INFO", "stats").partition("total_connections_received:")[2].split()[0])

    def work(number: int) -> None:
        for index in range(20):
            publish(broker, "a", f"{number}-{index}", history=10_000)

    threads = [threading.Thread(target=work, args=[number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    after = int(server.ask("INFO", "stats").partition("total_connections_received:")[2].split()[0])
    assert after - before <= 3 + 1
    kept = payloads(broker, "a")
    assert len(kept) == 400
    for number in range(20):
        own = [item for item in kept if item.startswith(f"{number}-")]
        assert own == [f"{number}-{index}" for index in range(20)]
    broker.close()


# Greenlets and forks


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


PATCHED = """
from gevent import monkey; monkey.patch_all()
import sys, threading, time, gevent
from faye_wsgi.brokers.base import Publication, Request, Signal
from faye_wsgi.brokers.engines import connect

[broker] = connect(sys.argv[1], prefix="patched")
feed = broker.open_feed()
feed.subscribe(["a"])
found, turns = [], []

def receive():
    while Signal("end") not in found:
        found.extend(feed.receive(10))

def work(number):
    for index in range(10):
        broker.publish("a", f"{number}", history=10, ttl=10)

def tick():
    while True:
        turns.append(1)
        gevent.sleep(0.001)

receiver = threading.Thread(target=receive)
receiver.start()
ticker = gevent.spawn(tick)
gevent.joinall([gevent.spawn(work, number) for number in range(100)])
feed.signal("end")
receiver.join(10)
ticker.kill()
numbers = [item.number for item in found if isinstance(item, Publication)]
assert numbers == sorted(numbers) and len(numbers) == 1000, len(numbers)
assert len(turns) > 10, "the hub stood still"

# A greenlet that is killed in a call leaves no half of an answer behind.
for index in range(50):
    victim = gevent.spawn(broker.publish, "b", str(index), history=100, ttl=10)
    gevent.sleep(0.0001 * (index % 5))
    victim.kill()
position = broker.publish("b", "last", history=100, ttl=10)
reading = broker.read([Request("b", None, 1)])
assert reading.replays[0].publications[0].number == position.number
broker.close()
print("well")
"""


def test_a_patched_process_waits_in_greenlets(redis_server: RedisServer) -> None:
    assert run(PATCHED, redis_server.url) == "well\n"


FORKED = """
import os, sys
if sys.argv[2] == "patched":
    from gevent import monkey; monkey.patch_all()
from faye_wsgi.brokers.base import Change, Publication, Signal
from faye_wsgi.brokers.engines import connect

[broker] = connect(sys.argv[1], prefix="forked-" + sys.argv[2], worker_seconds=0.5)
feed = broker.open_feed()
feed.subscribe(["a"])
broker.change_presence([Change("a", "7", "x", "1")])
broker.publish("a", "parent", history=10, ttl=10)
worker = broker.worker
child = os.fork()
if child == 0:
    status = 1
    try:
        assert broker.worker != worker
        broker.publish("a", "child", history=10, ttl=10)
        broker.beat()
        broker.change_presence([Change("a", "8", "x", "2")])
        del feed
        broker.close()
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0
assert broker.worker == worker
broker.publish("a", "parent again", history=10, ttl=10)
feed.signal("end")
found = []
while Signal("end") not in found:
    found += feed.receive(10)
print([item.payload for item in found if isinstance(item, Publication)])
assert broker.members("a").keys() == {"7", "8"}
broker.close()
"""


@pytest.mark.parametrize("kind", ["plain", "patched"])
def test_a_child_connects_by_itself(redis_server: RedisServer, kind: str) -> None:
    found = run(FORKED, redis_server.url, kind)
    assert found == "['parent', 'child', 'parent again']\n"


FEEDING = """
import os, sys
from gevent import monkey; monkey.patch_all()
import threading, gevent
from faye_wsgi.brokers.base import Publication, Signal, Subscribed
from faye_wsgi.brokers.engines import connect
from faye_wsgi.errors import BrokerError

[broker] = connect(sys.argv[1], prefix="feeding")
feed = broker.open_feed()
feed.subscribe(["a"])
found, lost, ready = [], threading.Event(), threading.Event()

def receive():
    try:
        while Signal("end") not in found:
            found.extend(feed.receive(10))
            if Subscribed("a") in found:
                ready.set()
    except BrokerError:
        lost.set()

owner = threading.Thread(target=receive)
owner.start()
assert ready.wait(10)
gevent.sleep(0.01)  # now it waits in its socket
child = os.fork()
if child == 0:
    os._exit(0 if lost.wait(10) else 1)
for index in range(200):
    broker.publish("a", str(index), history=0, ttl=1)
feed.signal("end")
owner.join(10)
assert os.waitpid(child, 0)[1] == 0, "the child's greenlet still waits for the parent's feed"
print(len([item for item in found if isinstance(item, Publication)]), lost.is_set())
broker.close()
"""


def test_a_greenlet_in_a_child_takes_nothing_from_the_parents_feed(
    redis_server: RedisServer,
) -> None:
    assert run(FEEDING, redis_server.url) == "200 False\n"
