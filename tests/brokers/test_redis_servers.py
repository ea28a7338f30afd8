"""The server that Sentinels name."""

from __future__ import annotations

import time
from itertools import chain, repeat
from typing import Callable

import pytest

from faye_wsgi.brokers import redis_link
from faye_wsgi.brokers.base import Broker
from faye_wsgi.brokers.engines import connect
from faye_wsgi.brokers.pool import Server
from faye_wsgi.brokers.redis import RedisBroker
from faye_wsgi.brokers.redis_link import Link, connection_options
from faye_wsgi.brokers.redis_servers import ask_any
from faye_wsgi.errors import BrokerError, PublishError

from ..support.certs import Certificates
from ..support.redis import RedisServer, Sentinel, free_port, sentinels
from ..support.waiting import wait_until
from .harness import arrived, publish, sent, subscribed, unless_broker_error

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
