"""The broker on a Postgres that is restarted, crashed, promoted, restored, frozen and emptied."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")

from faye_wsgi.brokers import postgres
from faye_wsgi.brokers.base import (
    Broker,
    Change,
    Feed,
    Joined,
    Left,
    Position,
    Publication,
    Request,
    Subscribed,
    is_complete,
)
from faye_wsgi.brokers.engines import connect
from faye_wsgi.errors import BrokerError, PublishError

from ..support.postgres import PgBouncer, PostgresMeddler, PostgresServer, owner
from ..support.waiting import wait_until
from .harness import Engine, arrived, payloads, publish, sent, subscribed, wait_for
from .test_redis import FEEDING, FORKED, PATCHED, run

Start = Callable[..., PostgresServer]


@pytest.fixture
def server(start_postgres: Start) -> PostgresServer:
    return start_postgres()


@pytest.fixture
def engine(postgres_server: PostgresServer) -> Iterator[Engine]:
    made = Engine(postgres_server.url)
    yield made
    made.close()


@pytest.fixture
def broker(engine: Engine) -> Broker:
    return engine.connect()


@pytest.fixture
def meddler(postgres_server: PostgresServer) -> Iterator[PostgresMeddler]:
    with PostgresMeddler(postgres_server) as made:
        yield made


def vouches(broker: Broker, since: Position, channel: str = "a") -> bool:
    reading = broker.read([Request(channel, since.number)])
    return is_complete(since, reading, reading.replays[0])


def count(engine: Engine, server: PostgresServer) -> int:
    [[rows]] = server.ask(f'SELECT count(*) FROM "{engine.prefix}".log')
    return int(rows)


# Numbers


def test_numbers_rise_although_the_clock_is_behind(
    broker: Broker, engine: Engine, postgres_server: PostgresServer
) -> None:
    publish(broker, "a")
    postgres_server.ask(
        f'UPDATE "{engine.prefix}".log SET number = %s WHERE payload IS NOT NULL', 2**53 - 12
    )
    numbers = [publish(broker, "a").number for _ in range(3)]
    assert numbers == [2**53 - 11, 2**53 - 10, 2**53 - 9]
    assert broker.read([]).now.number == numbers[-1]


def test_a_key_is_forgotten_after_its_time(broker: Broker, monkeypatch: Any) -> None:
    first = publish(broker, "a", "1", key="k")
    assert publish(broker, "a", "2", key="k") == first
    monkeypatch.setattr(postgres, "KEY_SECONDS", 0.0)
    publish(broker, "a", "3", key="short")
    assert publish(broker, "a", "4", key="short") > first
    assert payloads(broker, "a") == ["1", "3", "4"]


# Lives of the data

ENDS: dict[str, Callable[[PostgresServer], object]] = {
    "restart": lambda server: server.restart(),
    "crash": lambda server: (server.crash(), server.start()),
    "backend": lambda server: kill_a_backend(server),
}


def kill_a_backend(server: PostgresServer) -> None:
    """As the kernel does where memory is short: the others end, too, and Postgres recovers."""
    [[begun]] = server.ask("SELECT pg_postmaster_start_time()")
    import psycopg

    with psycopg.connect(server.url) as victim, psycopg.connect(server.url) as other:
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT pg_sleep(60)")
    wait_until(server.answers)
    assert server.ask("SELECT pg_postmaster_start_time()") == [(begun,)]


@pytest.mark.parametrize("end", ENDS)
def test_an_end_of_the_server_is_an_epoch_unless_commits_are_durable(
    server: PostgresServer, end: str
) -> None:
    [broker] = connect(server.url, timeout=10.0)
    [durable] = connect(f"{server.url}?durable=1", prefix="durable", timeout=10.0)
    before = [publish(one, "a", "1") for one in (broker, durable)]
    broker.change_presence([Change("a", "7", "x", "1")])
    ENDS[end](server)
    assert [vouches(one, place) for one, place in zip((broker, durable), before)] == [False, True]
    assert payloads(durable, "a") == ["1"], "what was acknowledged is there"
    after = [publish(one, "a", "2") for one in (broker, durable)]
    assert [one.epoch == other.epoch for one, other in zip(before, after)] == [False, True]
    assert all(one.number < other.number for one, other in zip(before, after))
    assert vouches(broker, after[0])
    broker.beat()
    assert broker.members("a") == {"7": ["1"]}
    for one in (broker, durable):
        one.close()


def test_a_promoted_replica_is_an_epoch(start_postgres: Start) -> None:
    primary = start_postgres()
    replica = start_postgres(primary=primary)
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
    brokers = [
        connect(f"postgres://postgres@{hosts}/postgres{durable}", prefix=prefix, timeout=10.0)[0]
        for durable, prefix in (("", "one"), ("?durable=1", "two"))
    ]
    before = [publish(broker, "a", "1") for broker in brokers]
    replica.catch_up()
    primary.crash()
    with pytest.raises(PublishError, match="replica|refused"):
        connect(replica.url, prefix="one")[0].publish("a", "2", history=1, ttl=1)
    replica.promote()
    for broker, place in zip(brokers, before):
        assert not vouches(broker, place)
        assert payloads(broker, "a") == ["1"]
        assert publish(broker, "a", "2").number > place.number
        broker.close()


def test_what_is_restored_is_an_epoch(server: PostgresServer) -> None:
    """Also with `durable`: from a dump, and in a copy of the database."""
    [broker] = connect(f"{server.url}?durable=1", timeout=10.0)
    before = publish(broker, "a", "1")
    dump = [server.bin / "pg_dump", "-n", "faye", server.url]
    text = subprocess.run(dump, stdout=subprocess.PIPE, check=True, timeout=60, **owner()).stdout
    server.ask("DROP SCHEMA faye CASCADE")
    restore = [server.bin / "psql", "-q", server.url]
    subprocess.run(restore, input=text, stdout=subprocess.DEVNULL, check=True, timeout=60)
    assert payloads(broker, "a") == ["1"]
    assert not vouches(broker, before)
    after = publish(broker, "a", "2")
    broker.close()
    wait_until(lambda: not others(server))
    server.ask("CREATE DATABASE copied TEMPLATE postgres")
    [copy] = connect(f"{server.url.rpartition('/')[0]}/copied?durable=1")
    assert payloads(copy, "a") == ["1", "2"]
    assert not vouches(copy, after)
    copy.close()


def others(server: PostgresServer) -> list[Any]:
    return server.ask(
        "SELECT 1 FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )


def test_an_epoch_begins_where_one_is_asked_for(
    broker: Broker, engine: Engine, postgres_server: PostgresServer
) -> None:
    before = publish(broker, "a", "1")
    postgres_server.ask(f'DELETE FROM "{engine.prefix}".life')
    assert not vouches(broker, before)


def test_the_epoch_is_that_of_all_processes(engine: Engine) -> None:
    one, other = engine.connect(), engine.connect()
    assert len({publish(some, "a").epoch for some in (one, other, one)}) == 1


def test_the_key_of_an_epoch_that_is_not_known_gives_its_place(
    broker: Broker, engine: Engine, postgres_server: PostgresServer
) -> None:
    first = publish(broker, "a", "1", key="k")
    postgres_server.ask(f'DELETE FROM "{engine.prefix}".life')
    again = publish(broker, "a", "1", key="k")
    assert again.number == first.number
    assert not vouches(broker, again)


def test_what_was_deleted_is_not_vouched_for(
    broker: Broker, engine: Engine, postgres_server: PostgresServer
) -> None:
    position = publish(broker, "a", "1")
    publish(broker, "b", "1")
    assert vouches(broker, position)
    postgres_server.ask(f'TRUNCATE "{engine.prefix}".log')
    assert not vouches(broker, position)
    assert payloads(broker, "a") == []
    position = publish(broker, "a", "2")
    assert vouches(broker, position)


def test_a_feed_whose_data_are_gone_is_lost(
    broker: Broker, engine: Engine, postgres_server: PostgresServer
) -> None:
    feed = subscribed(broker.open_feed(), "a")
    before = publish(broker, "a", "1")
    postgres_server.ask(f'DROP SCHEMA "{engine.prefix}" CASCADE')
    after = publish(broker, "a", "2")
    assert before.epoch != after.epoch
    with pytest.raises(BrokerError, match="feed is lost"):
        arrived(feed)
    again = subscribed(broker.open_feed(), "a")
    publish(broker, "a", "3")
    assert sent("a", arrived(again)) == ["3"]


# What commits wait for


def test_only_durable_commits_wait(server: PostgresServer) -> None:
    """For the disk; here for a replica that is not there, which takes for ever."""
    [quick] = connect(server.url, timeout=10.0)
    [durable] = connect(f"{server.url}?durable=1", timeout=1.0)
    publish(quick, "a")
    server.ask("ALTER SYSTEM SET synchronous_standby_names = 'nowhere'")
    server.ask("SELECT pg_reload_conf()")
    wait_until(lambda: server.ask("SHOW synchronous_standby_names") == [("nowhere",)])
    publish(quick, "a")
    with pytest.raises(PublishError, match="does not answer"):
        publish(durable, "a")
    for broker in (quick, durable):
        broker.close()


# A table that stays small


def test_what_is_not_needed_is_deleted_by_publishing(
    broker: Broker, engine: Engine, postgres_server: PostgresServer, monkeypatch: Any
) -> None:
    monkeypatch.setattr(postgres, "TRANSIT", 0.0)
    for index in range(300):
        publish(
            broker, "abc"[index % 3], str(index), history=10, key=str(index) if index < 5 else None
        )
        if index % 100 == 99:
            # Two of those that were pushed out may wait for the next publication, and five keys.
            assert count(engine, postgres_server) <= 3 * 12 + 5
    assert payloads(broker, "a") == [str(index) for index in range(270, 300, 3)]
    for _ in range(30):
        publish(broker, "a", history=0)
    assert count(engine, postgres_server) <= 2 * 12 + 2 + 5


def test_what_a_feed_may_need_stays(
    broker: Broker, engine: Engine, postgres_server: PostgresServer
) -> None:
    feed = subscribed(broker.open_feed(), "a")
    for index in range(50):
        publish(broker, "a", str(index), history=0)
    broker.beat()
    assert count(engine, postgres_server) >= 50
    assert payloads(broker, "a") == []
    assert sent("a", arrived(feed)) == [str(index) for index in range(50)]


def test_beats_sweep_up_what_is_too_old(
    broker: Broker, engine: Engine, postgres_server: PostgresServer, monkeypatch: Any
) -> None:
    for name, value in (("TRANSIT", 0.0), ("LAST_SECONDS", 0.0), ("SWEPT", 7), ("REST", 0.0)):
        monkeypatch.setattr(postgres, name, value)
    for index in range(40):
        publish(broker, f"once {index}", ttl=0.01)
    broker.read([Request(f"born {index}") for index in range(10)])
    broker.change_presence([Change("a", "m", "x", "{}")])
    kept = publish(broker, "kept", "1", ttl=60)
    publish(broker, "kept", "2", ttl=60)

    def is_swept() -> bool:
        broker.beat()
        return count(engine, postgres_server) == 2

    assert wait_until(is_swept)
    assert payloads(broker, "kept") == ["1", "2"]
    assert vouches(broker, kept, "kept")


def test_publishers_sweep_up_where_no_process_subscribes(
    engine: Engine, postgres_server: PostgresServer, monkeypatch: Any
) -> None:
    for name, value in (("TRANSIT", 0.0), ("LAST_SECONDS", 0.0), ("PUBLISHED", 5)):
        monkeypatch.setattr(postgres, name, value)
    broker = engine.connect()
    for index in range(20):
        publish(broker, f"once {index}", ttl=0.01)

    def is_swept() -> bool:
        publish(broker, "a", history=1)
        return count(engine, postgres_server) < 10

    assert wait_until(is_swept)


def test_a_channel_that_is_read_is_not_forgotten(
    broker: Broker, engine: Engine, postgres_server: PostgresServer, monkeypatch: Any
) -> None:
    publish(broker, "a", ttl=0.01)
    until = f'SELECT forgotten FROM "{engine.prefix}".log ORDER BY number'
    [[first]] = postgres_server.ask(until)
    broker.read([Request("a")])
    assert postgres_server.ask(until) == [(first,)], "it has time"
    monkeypatch.setattr(postgres, "LAST_SECONDS", 200_000)
    broker.read([Request("a"), Request("new"), Request("a")])
    [[later], *_] = postgres_server.ask(until)
    assert later > first + 100_000_000_000


def test_the_place_of_what_was_deleted_is_used_again(
    broker: Broker, engine: Engine, postgres_server: PostgresServer, monkeypatch: Any
) -> None:
    monkeypatch.setattr(postgres, "TRANSIT", 0.0)
    sizes = []
    for _ in range(5):
        for _ in range(100):
            publish(broker, "a", '"' + "x" * 500 + '"', history=10)
        postgres_server.ask(f'VACUUM "{engine.prefix}".log')
        [[size]] = postgres_server.ask(f"SELECT pg_table_size('\"{engine.prefix}\".log')")
        sizes.append(size)
    assert sizes[-1] < 2.5 * sizes[0], sizes


def test_a_publication_updates_no_row(
    broker: Broker, engine: Engine, postgres_server: PostgresServer
) -> None:
    """While a long transaction runs, its dead versions would make each one slower."""
    for _ in range(20):
        publish(broker, "a", history=5)
    broker.close()  # the counts of a session are there when it has ended
    statement = (
        "SELECT sum(n_tup_ins)::int, sum(n_tup_upd)::int FROM pg_stat_user_tables"
        " WHERE schemaname = %s"
    )
    expected = [(20 + 2, 0)]  # with the epoch's
    wait_until(lambda: postgres_server.ask(statement, engine.prefix) == expected)


# Feeds


def feed_of(broker: Broker, *channels: str) -> Feed:
    return subscribed(broker.open_feed(), *channels)


def test_a_notification_wakes_a_feed(engine: Engine, monkeypatch: Any) -> None:
    monkeypatch.setattr(postgres, "SILENCE", 1000.0)
    monkeypatch.setattr(postgres, "LATE", 1000.0)
    broker = engine.connect()
    feed = feed_of(broker, "a", "x" * 2100)
    for channel in ("a", "x" * 2100):
        timer = threading.Timer(0.05, publish, [broker, channel, "1"])
        timer.start()
        assert sent(channel, feed.receive(10)) == ["1"]
        timer.join(10)
    publish(broker, "other")
    assert feed.receive(0.2) == []


@pytest.mark.parametrize("listen", ["yes", "no"])
def test_what_no_notification_announces_is_found(
    engine: Engine, postgres_server: PostgresServer, monkeypatch: Any, listen: str
) -> None:
    monkeypatch.setattr(postgres, "SILENCE", 0.05)
    engine.url += f"?listen={listen}"
    broker = engine.connect()
    feed = feed_of(broker, "a")
    publish(broker, "a", "1")
    postgres_server.ask(
        f'INSERT INTO "{engine.prefix}".log'
        " SELECT number + 1, channel, number, payload, member, key, 2, 1, 0,"
        " stays, expires, forgotten"
        f' FROM "{engine.prefix}".log WHERE payload IS NOT NULL'
    )
    found: list[str] = []
    wait_until(lambda: found.extend(sent("a", feed.receive(0.2))) or len(found) == 2)


def test_a_pooler_is_noticed(engine: Engine, pgbouncer: PgBouncer) -> None:
    pauses = []
    for url in (engine.url, pgbouncer.url, f"{pgbouncer.url}?listen=yes"):
        engine.url = url
        feed = engine.connect().open_feed()
        assert isinstance(feed, postgres.PostgresFeed)
        pauses.append(feed._pause)
        feed.close()
    assert pauses == [postgres.SILENCE, postgres.POLL, postgres.SILENCE]


def test_a_feed_reads_pages(engine: Engine, monkeypatch: Any) -> None:
    monkeypatch.setattr(postgres, "PAGE", 10)
    monkeypatch.setattr(postgres, "FEW", 1)
    broker = engine.connect()
    feed = feed_of(broker, "a", "b")
    for index in range(35):
        publish(broker, "abc"[index % 3], str(index))
    found = [item.payload for item in arrived(feed) if isinstance(item, Publication)]
    assert found == [str(index) for index in range(35) if index % 3 != 2]


def test_a_feed_that_was_not_read_for_long_is_lost(broker: Broker, monkeypatch: Any) -> None:
    feed = feed_of(broker, "a")
    monkeypatch.setattr(postgres, "LATE", 0.0)
    feed.signal()
    with pytest.raises(BrokerError, match="something may be missing"):
        feed.receive(10)


def test_presence_comes_in_order_with_publications(engine: Engine) -> None:
    broker = engine.connect(leave_seconds=0.01)
    feed = feed_of(broker, "a")
    publish(broker, "a", "1")
    broker.change_presence([Change("a", "7", "x", "{}")])
    publish(broker, "a", "2")
    broker.change_presence([Change("a", "7", "x", None)])
    found = wait_for(feed, [Left("a", "7")], broker.beat)
    kinds = [item.payload if isinstance(item, Publication) else item for item in found]
    assert kinds == ["1", Joined("a", "7", "{}"), "2", Left("a", "7")]


# Lost calls


def test_an_answer_that_is_lost_raises_and_is_not_sent_again(meddler: PostgresMeddler) -> None:
    [broker] = connect(meddler.url, prefix="lost")
    publish(broker, "a", "0")
    meddler.cuts, meddler.calls = 1, 0
    with pytest.raises(PublishError):
        publish(broker, "a", "1")
    assert meddler.calls == 1
    assert payloads(broker, "a") == ["0", "1"], "it was taken; the publisher could not know"
    broker.close()


def test_with_a_key_it_is_sent_again_and_taken_once(meddler: PostgresMeddler) -> None:
    [broker] = connect(meddler.url, prefix="again", timeout=10.0)
    publish(broker, "a", "0")
    meddler.cuts, meddler.calls = 2, 0
    position = publish(broker, "a", "1", key="k")
    assert meddler.calls == 3
    assert payloads(broker, "a") == ["0", "1"]
    assert publish(broker, "a", "1", key="k") == position
    broker.close()


def test_reading_is_repeated(meddler: PostgresMeddler) -> None:
    [broker] = connect(meddler.url, prefix="reading", timeout=10.0)
    publish(broker, "a", "0")
    meddler.cuts = 1
    assert payloads(broker, "a") == ["0"]
    meddler.cuts = 1
    broker.change_presence([Change("a", "7", "x", "1")])
    meddler.cuts = 1
    assert broker.members("a") == {"7": ["1"]}
    broker.close()


def test_a_lock_that_another_session_keeps_is_named(
    engine: Engine, postgres_server: PostgresServer
) -> None:
    import psycopg

    broker = engine.connect(timeout=0.5)
    publish(broker, "a", "1")
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute(f"SELECT \"{engine.prefix}\".v1_enter(false, 1000, 'e')")
        begun = time.monotonic()
        with pytest.raises(PublishError, match="pg_locks"):
            publish(broker, "a", "2")
        assert time.monotonic() - begun < 5
    publish(broker, "a", "3")
    assert payloads(broker, "a") == ["1", "3"]


# Lost connections


def end_sessions(server: PostgresServer, prefix: str) -> None:
    """Those of the broker with this prefix, as what they have asked last shows."""
    which = "FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"
    server.ask(f"SELECT pg_terminate_backend(pid) {which}", f'%"{prefix}"%')
    wait_until(lambda: not server.ask(f"SELECT 1 {which}", f'%"{prefix}"%'))


def test_a_connection_that_died_at_rest_is_not_used(
    broker: Broker, engine: Engine, postgres_server: PostgresServer
) -> None:
    for index in range(3):
        publish(broker, "a", str(index))
        end_sessions(postgres_server, engine.prefix)
    assert payloads(broker, "a") == ["0", "1", "2"]


def test_a_feed_that_is_cut_says_so_and_stays_cut(
    broker: Broker, engine: Engine, postgres_server: PostgresServer
) -> None:
    feed = feed_of(broker, "a")
    end_sessions(postgres_server, engine.prefix)
    publish(broker, "a", "1")
    for _ in range(2):
        with pytest.raises(BrokerError):
            for _ in range(2):
                feed.receive(10)
    calls: list[Callable[[], Any]] = [
        lambda: feed.subscribe(["b"]),
        lambda: feed.unsubscribe(["a"]),
        feed.signal,
    ]
    for call in calls:
        with pytest.raises(BrokerError):
            call()
    other = feed_of(broker, "a")
    publish(broker, "a", "2")
    assert sent("a", arrived(other)) == ["2"]


def test_a_frozen_postgres_is_noticed(server: PostgresServer) -> None:
    [broker] = connect(server.url, timeout=1.0)
    publish(broker, "a")
    feed = feed_of(broker, "a")
    with server.paused():
        begun = time.monotonic()
        with pytest.raises(PublishError, match="answer"):
            publish(broker, "a")
        assert 0.9 < time.monotonic() - begun < 5
        with pytest.raises(BrokerError, match="answer"):
            while True:
                feed.receive(1)
        assert time.monotonic() - begun < 15
    broker.close()


def test_calls_share_a_bounded_number_of_connections(
    engine: Engine, postgres_server: PostgresServer
) -> None:
    engine.url += "?max_connections=3&application_name=bounded"
    broker = engine.connect(timeout=20.0)
    most = 0

    def work(number: int) -> None:
        for index in range(10):
            publish(broker, "a", f"{number}-{index}", history=10_000)

    threads = [threading.Thread(target=work, args=[number]) for number in range(20)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bounded'"
        [[now]] = postgres_server.ask(sessions)
        most = max(most, now)
    for thread in threads:
        thread.join(30)
    assert 0 < most <= 3
    kept = payloads(broker, "a")
    assert len(kept) == 200
    for number in range(20):
        own = [item for item in kept if item.startswith(f"{number}-")]
        assert own == [f"{number}-{index}" for index in range(10)]


def test_a_server_behind_a_pooler_is_started_again(server: PostgresServer, program: Any) -> None:
    with PgBouncer(program("pgbouncer"), server) as bouncer:
        [broker] = connect(bouncer.url, timeout=10.0)
        feed = feed_of(broker, "a")
        before = publish(broker, "a", "1")
        server.crash()
        server.start()
        wait_until(lambda: not vouches_or_fails(broker, before))
        publish(broker, "a", "2", key="k")
        with pytest.raises(BrokerError, match="feed is lost"):
            arrived(feed)
        broker.close()


def vouches_or_fails(broker: Broker, place: Position) -> bool:
    with contextlib.suppress(BrokerError):
        return vouches(broker, place)
    return True


# Rights


def test_a_user_who_may_make_no_schema_is_told_what_to_run(
    server: PostgresServer,
) -> None:
    server.ask("CREATE ROLE ada LOGIN")
    [broker] = connect(server.url.replace("postgres@", "ada@"))
    with pytest.raises(PublishError, match="CREATE SCHEMA") as caught:
        publish(broker, "a")
    server.ask(str(caught.value).partition("run: ")[2].partition(": let")[0])
    publish(broker, "a", "1")
    assert payloads(broker, "a") == ["1"]
    assert broker.beat() == 1
    broker.close()


def test_a_user_with_the_rights_that_the_guide_names(server: PostgresServer) -> None:
    server.ask("CREATE ROLE ben LOGIN")
    [owning] = connect(server.url)
    publish(owning, "a", "1")
    [broker] = connect(server.url.replace("postgres@", "ben@"))
    with pytest.raises(PublishError, match="docs/channels.md"):
        publish(broker, "a")
    server.ask("GRANT USAGE ON SCHEMA faye TO ben")
    server.ask("GRANT ALL ON ALL TABLES IN SCHEMA faye TO ben")
    feed = feed_of(broker, "a")
    publish(broker, "a", "2")
    broker.change_presence([Change("a", "7", "x", "{}")])
    broker.beat()
    assert arrived(feed)[1:] == [Joined("a", "7", "{}")]
    assert payloads(broker, "a") == ["1", "2"]
    for one in (owning, broker):
        one.close()


def test_another_isolation_is_refused(server: PostgresServer) -> None:
    server.ask("CREATE ROLE eve LOGIN SUPERUSER")
    server.ask("ALTER ROLE eve SET default_transaction_isolation = 'serializable'")
    [broker] = connect(server.url.replace("postgres@", "eve@"))
    with pytest.raises(PublishError, match="ALTER ROLE eve SET default_transaction_isolation"):
        publish(broker, "a")
    broker.close()


@pytest.mark.parametrize("prefix", ["Ä", 'a"b', "a'b", "x" * 61, "", "$body$"])
def test_a_prefix_that_names_no_schema_raises(prefix: str) -> None:
    with pytest.raises(ValueError, match="the prefix is the name of a schema"):
        connect("postgres://localhost", prefix=prefix)


@pytest.mark.parametrize("prefix", ["My-App:1", "faye.faye", "select"])
def test_a_prefix_names_a_schema(postgres_server: PostgresServer, prefix: str) -> None:
    [broker] = connect(postgres_server.url, prefix=prefix)
    feed = feed_of(broker, "a")
    publish(broker, "a", "1")
    assert sent("a", arrived(feed)) == payloads(broker, "a") == ["1"]
    rows = postgres_server.ask(f'SELECT 1 FROM "{prefix}".log WHERE payload IS NOT NULL')
    assert len(rows) == 1
    broker.close()


# Greenlets and forks


@pytest.mark.parametrize("before", ["", "import psycopg\n"])
def test_a_patched_process_waits_in_greenlets(postgres_server: PostgresServer, before: str) -> None:
    assert run(before + PATCHED, f"{postgres_server.url}?max_connections=4") == "well\n"


@pytest.mark.parametrize("kind", ["plain", "patched"])
def test_a_child_connects_by_itself(postgres_server: PostgresServer, kind: str) -> None:
    found = run(FORKED, postgres_server.url, kind)
    assert found == "['parent', 'child', 'parent again']\n"


def test_a_greenlet_in_a_child_takes_nothing_from_the_parents_feed(
    postgres_server: PostgresServer,
) -> None:
    assert run(FEEDING, postgres_server.url) == "200 False\n"


def test_a_subscription_is_confirmed_at_once(broker: Broker) -> None:
    feed = broker.open_feed()
    feed.subscribe(["a", "b"])
    assert feed.receive(10) == [Subscribed("a"), Subscribed("b")]
