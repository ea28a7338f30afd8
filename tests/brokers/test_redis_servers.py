"""The connections that are kept to a server, and the server that Sentinels name."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any, Callable

import pytest

from faye_wsgi.brokers import redis_link
from faye_wsgi.brokers.base import Broker
from faye_wsgi.brokers.engines import connect
from faye_wsgi.brokers.redis import RedisBroker
from faye_wsgi.brokers.redis_link import Link, connection_options
from faye_wsgi.brokers.redis_servers import Pool, Server, ask_any
from faye_wsgi.errors import BrokerError, PublishError

from ..support.certs import Certificates
from ..support.redis import RedisServer, Sentinel, free_port, sentinels
from ..support.servers import ROOT
from ..support.waiting import wait_until
from .harness import arrived, publish, sent, subscribed, unless_broker_error


class Connection:
    """redis-py's, as far as a link that rests needs it."""

    def __init__(self) -> None:
        self.is_open = self.is_quiet = True

    def can_read(self, timeout: float) -> bool:
        return not self.is_quiet

    def disconnect(self) -> None:
        self.is_open = False


class Dialer:
    def __init__(self, timeout: float = 2.0) -> None:
        self.connections: list[Connection] = []
        self.timeout = timeout

    def __call__(self, deadline: float) -> Link:
        self.connections.append(Connection())
        return Link(self.connections[-1], self.timeout)


@pytest.fixture
def dialer() -> Dialer:
    return Dialer()


def soon() -> float:
    return time.monotonic() + 0.05


def test_a_connection_that_rests_is_used_again(dialer: Dialer) -> None:
    pool = Pool(dialer, 2, 1.0)
    link = pool.take(soon())
    other = pool.take(soon())
    assert other is not link
    pool.give(link)
    pool.give(other)
    assert pool.take(soon()) is other, "the one that was used last"
    assert pool.take(soon()) is link


def test_one_that_is_not_quiet_or_not_wanted_is_closed(dialer: Dialer) -> None:
    pool = Pool(dialer, 1, 1.0)
    pool.give(pool.take(soon()))
    dialer.connections[0].is_quiet = False
    pool.give(pool.take(soon()))
    pool.give(pool.take(soon(), is_fresh=True))
    assert [connection.is_open for connection in dialer.connections] == [False, False, True]


def test_a_connection_goes_to_the_caller_that_has_waited_longest(dialer: Dialer) -> None:
    """And not to the one that gives it back and wants it again at once."""
    pool = Pool(dialer, 1, 1.0)
    link = pool.take(soon())
    taken: list[Link] = []
    waiting = threading.Thread(target=lambda: taken.append(pool.take(time.monotonic() + 10)))
    waiting.start()
    wait_until(lambda: pool._line)
    pool.give(link)
    with pytest.raises(BrokerError, match="in use"):
        pool.take(soon())
    waiting.join(10)
    assert taken == [link]


def test_a_caller_that_waits_in_vain_leaves_its_place(dialer: Dialer) -> None:
    pool = Pool(dialer, 1, 1.0)
    link = pool.take(soon())
    with pytest.raises(BrokerError, match="in use"):
        pool.take(soon())
    pool.give(link)
    assert pool.take(soon()) is link


def test_a_greenlet_that_is_killed_while_it_waits_keeps_no_connection() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED], capture_output=True, timeout=30, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr.decode()


KILLED = """
from gevent import monkey; monkey.patch_all()
import time, gevent
from faye_wsgi.brokers.redis_servers import Pool
from tests.brokers.test_redis_servers import Dialer

pool = Pool(Dialer(), 1, 1.0)
link = pool.take(time.monotonic() + 1)
waiting = gevent.spawn(pool.take, time.monotonic() + 20)
gevent.sleep(0)
assert pool._line
waiting.kill(block=False)
pool.give(link)  # its turn comes before it has noticed
waiting.join()
assert isinstance(waiting.value, gevent.GreenletExit), waiting.value
assert pool.take(time.monotonic() + 1) is link
"""


def test_a_closed_one_makes_room(dialer: Dialer) -> None:
    pool = Pool(dialer, 1, 1.0)
    link = pool.take(soon())
    link.close()
    pool.give(link)
    assert pool.take(soon()) is not link


def test_one_that_was_made_in_a_hurry_is_not_kept() -> None:
    dialer = Dialer(timeout=0.5)
    pool = Pool(dialer, 1, 1.0)
    pool.give(pool.take(soon()))
    assert not dialer.connections[0].is_open


def test_callers_wait_for_one_of_the_others(dialer: Dialer) -> None:
    pool = Pool(dialer, 1, 1.0)
    link = pool.take(soon())
    with pytest.raises(BrokerError, match="all 1 connections to Redis are in use"):
        pool.take(soon())
    timer = threading.Timer(0.05, pool.give, [link])
    timer.start()
    assert pool.take(time.monotonic() + 10) is link
    timer.join(10)


def test_a_failure_to_connect_makes_room_again() -> None:
    attempts: Iterator[Any] = iter([OSError("refused"), Link(Connection(), 2.0)])

    def dial(deadline: float) -> Link:
        attempt = next(attempts)
        if isinstance(attempt, Exception):
            raise attempt
        assert isinstance(attempt, Link)
        return attempt

    pool = Pool(dial, 1, 1.0)
    with pytest.raises(OSError, match="refused"):
        pool.take(soon())
    assert pool.take(soon())


def test_closing_closes_all(dialer: Dialer) -> None:
    pool = Pool(dialer, 2, 1.0)
    resting, lent = pool.take(soon()), pool.take(soon())
    pool.give(resting)
    pool.close()
    pool.give(lent)
    assert resting.is_closed and lent.is_closed


# Sentinel


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://localhost",
        "redis+sentinel://localhost/",
        "redis+sentinel://localhost/a/b",
        "redis+sentinel:///main",
        "redis+sentinel://localhost/main?nonsense=1",
    ],
)
def test_a_url_of_sentinels_names_a_service(url: str) -> None:
    with pytest.raises(ValueError):
        connect(url)


def test_a_failover_is_followed_and_noticed(start_redis: Callable[..., RedisServer]) -> None:
    primary = start_redis()
    replica = start_redis("--replicaof", "127.0.0.1", str(primary.port))
    with sentinels(primary.program, primary) as watchers:
        wait_until(lambda: "slaves=1" in watchers[0].ask("INFO", "sentinel"))
        hosts = ",".join(f"127.0.0.1:{watcher.port}" for watcher in watchers)
        [broker] = connect(f"redis+sentinel://127.0.0.1:1,{hosts}/main/3", prefix="s")
        feed = subscribed(broker.open_feed(), "a")
        before = publish(broker, "a", "1")
        assert sent("a", arrived(feed)) == ["1"]
        wait_until(lambda: "db3:keys=" in replica.ask("INFO", "keyspace"))
        primary.stop()
        with pytest.raises(BrokerError):
            while True:
                feed.receive(1)
        after = wait_until(lambda: unless_broker_error(lambda: publish(broker, "a", "2")), 30)
        assert after.epoch != before.epoch
        assert "role:master" in replica.ask("INFO", "replication")
        feed = subscribed(broker.open_feed(), "a")
        publish(broker, "a", "3")
        assert sent("a", arrived(feed)) == ["3"]
        primary.start()
        broker.close()


def test_sentinels_with_tls_and_passwords(
    start_redis: Callable[..., RedisServer], certificates: Certificates
) -> None:
    tls = {
        "tls-cert-file": certificates.cert,
        "tls-key-file": certificates.key,
        "tls-ca-cert-file": certificates.ca,
        "tls-auth-clients": "no",
        "tls-replication": "yes",
    }
    options = [part for name, value in tls.items() for part in (f"--{name}", value)]
    primary = start_redis(*options, "--requirepass", "its:/@", tls=True)
    lines = [f"{name} {value}" for name, value in tls.items()]
    lines += ["requirepass theirs:/@", "sentinel auth-pass main its:/@"]
    with Sentinel(primary.program, primary.port, *lines, quorum=1, tls=True) as sentinel:
        place = f"127.0.0.1:{sentinel.port}/main?ssl_ca_certs={certificates.ca}"
        for login, rest in ((":its%3A%2F%40@", ""), ("", "&sentinel_password=theirs%3A%2F%40")):
            [broker] = connect(f"rediss+sentinel://{login}{place}{rest}", timeout=1.0)
            wait_until(lambda: "auth" in refusal(broker).lower(), 30)  # noqa: B023
            broker.close()
        [broker] = connect(
            f"rediss+sentinel://:its%3A%2F%40@{place}&sentinel_password=theirs%3A%2F%40",
            timeout=10.0,
        )
        feed = subscribed(broker.open_feed(), "a")
        publish(broker, "a", "1")
        assert sent("a", arrived(feed)) == ["1"]
        broker.close()


def refusal(broker: Broker) -> str:
    """Why a publication is refused."""
    with pytest.raises(PublishError) as caught:
        publish(broker, "a")
    return str(caught.value)


def test_a_feed_of_the_server_before_says_so(start_redis: Callable[..., RedisServer]) -> None:
    """A signal finds out that another server has taken its place, before its connection is lost."""
    first, second = start_redis(), start_redis()
    ports = iter([first.port] * 2 + [second.port] * 2)

    def dial(deadline: float) -> Link:
        connection_class, options = connection_options(f"redis://127.0.0.1:{next(ports)}")
        return redis_link.connect(connection_class, options, deadline)

    broker = RedisBroker(Server(dial, 0, size=1, timeout=2.0))
    feed = subscribed(broker.open_feed(), "a")
    feed.signal()
    first.ask("CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(BrokerError, match="lost"):
        feed.signal()
    broker.close()


def test_no_sentinel(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    for url, problem in (
        (f"redis+sentinel://127.0.0.1:{free_port()}/main", "refused"),
        (f"redis+sentinel://127.0.0.1:{server.port}/main", "unknown command"),
    ):
        [broker] = connect(url, timeout=1)
        with pytest.raises(PublishError, match=problem):
            publish(broker, "a")
    with sentinels(server.program, server, 1) as [watcher]:
        [broker] = connect(f"redis+sentinel://127.0.0.1:{watcher.port}/other", timeout=1)
        with pytest.raises(PublishError, match="no Sentinel knows where 'other' is"):
            publish(broker, "a")


def test_each_is_asked_in_turn(start_redis: Callable[..., RedisServer]) -> None:
    """One that is cut off from the others tells what was true before."""
    servers = [start_redis(), start_redis()]
    for server in servers:
        server.ask("RPUSH", "list", server.port)
    addresses = [("127.0.0.1", free_port()), *(("127.0.0.1", server.port) for server in servers)]
    connection_class, options = connection_options("redis://localhost")

    def ask() -> int:
        command, deadline = ("LRANGE", "list", "0", "-1"), time.monotonic() + 10
        [answer], (_host, port) = ask_any(
            addresses, command, connection_class, options, deadline, "no answer"
        )
        assert int(answer) == port
        return port

    assert [ask() for _ in range(4)] == [server.port for server in servers * 2]


def test_a_feed_waits_for_the_new_server(start_redis: Callable[..., RedisServer]) -> None:
    """For a moment a Sentinel may still name the server before."""
    server = start_redis()
    ports = chain([free_port(), free_port()], repeat(server.port))

    def dial(deadline: float) -> Link:
        connection_class, options = connection_options(f"redis://127.0.0.1:{next(ports)}")
        return redis_link.connect(connection_class, options, deadline)

    broker = RedisBroker(Server(dial, 0, size=1, timeout=10.0), timeout=10.0)
    feed = broker.open_feed()
    assert feed.receive(0) == []
    broker.close()
