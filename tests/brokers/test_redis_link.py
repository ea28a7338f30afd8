"""A connection to a Redis server: real ones, and what their errors say."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, Callable

import pytest
import redis

from faye_wsgi.brokers.base import Broker, Request
from faye_wsgi.brokers.engines import connect
from faye_wsgi.brokers.redis_link import explain
from faye_wsgi.errors import BrokerError, PublishError

from ..support.certs import Certificates
from ..support.redis import RedisServer, free_port
from ..support.waiting import wait_until
from .harness import arrived, payloads, publish, sent, subscribed

Start = Callable[..., RedisServer]


def broker_of(url: str, **options: Any) -> Broker:
    [broker] = connect(url, **options)
    return broker


# Ways to a server


def test_tls_is_verified(start_redis: Start, certificates: Certificates) -> None:
    tls = ("--tls-cert-file", certificates.cert, "--tls-key-file", certificates.key)
    authority = ("--tls-ca-cert-file", certificates.ca, "--tls-auth-clients", "no")
    server = start_redis(*tls, *authority, "--bind", "127.0.0.1", "127.0.0.2", tls=True)
    trusting = broker_of(f"{server.url}?ssl_ca_certs={certificates.ca}")
    feed = subscribed(trusting.open_feed(), "a")
    publish(trusting, "a", '"' + "x" * 100_000 + '"')
    assert sent("a", arrived(feed)) == payloads(trusting, "a")
    trusting.close()
    with pytest.raises(PublishError, match="ssl_ca_certs"):
        publish(broker_of(server.url), "a")
    # The certificate is not for this address of the same server.
    other = server.url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(PublishError, match="certificate"):
        publish(broker_of(f"{other}?ssl_ca_certs={certificates.ca}"), "a")
    for option in ("ssl_cert_reqs=none", f"ssl_ca_certs={certificates.ca}&ssl_check_hostname=no"):
        careless = broker_of(f"{other}?{option}")
        publish(careless, "a")
        careless.close()


def test_a_unix_socket(start_redis: Start, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    start_redis("--unixsocket", str(path))
    broker = broker_of(f"unix://{path}?db=2")
    feed = subscribed(broker.open_feed(), "a")
    publish(broker, "a")
    assert sent("a", arrived(feed)) == payloads(broker, "a") == ["1"]
    broker.close()


def test_databases_do_not_hear_each_other(redis_server: RedisServer) -> None:
    url = redis_server.url
    brokers = [broker_of(url[:-1] + str(db), prefix="databases") for db in (0, 1)]
    feeds = [subscribed(broker.open_feed(), "a") for broker in brokers]
    for number, broker in enumerate(brokers):
        publish(broker, "a", str(number))
    assert [sent("a", arrived(feed)) for feed in feeds] == [["0"], ["1"]]
    assert [payloads(broker, "a") for broker in brokers] == [["0"], ["1"]]
    for broker in brokers:
        broker.close()


# What the errors say


def test_the_server_is_away(redis_server: RedisServer) -> None:
    broker = broker_of(f"redis://127.0.0.1:{free_port()}", timeout=0.2)
    for call in (
        lambda: publish(broker, "a"),
        lambda: broker.read([]),
        broker.open_feed,
        broker.beat,
    ):
        begun = time.monotonic()
        with pytest.raises(BrokerError, match="refused"):
            call()
        assert time.monotonic() - begun < 2


def test_a_wrong_password(start_redis: Start) -> None:
    server = start_redis("--requirepass", "secret:/@")
    for login in ("", ":wrong@", "other:secret@"):
        begun = time.monotonic()
        broker = broker_of(server.url.replace("//", f"//{login}"), timeout=10.0)
        with pytest.raises(PublishError, match="check the user and the password in the URL"):
            publish(broker, "a")
        with pytest.raises(BrokerError, match="check the user and the password in the URL"):
            broker.open_feed()
        assert time.monotonic() - begun < 5, "a wrong password is not tried again"
    broker = broker_of(server.url.replace("//", "//:secret%3A%2F%40@"))
    publish(broker, "a")
    broker.close()


def test_a_user_who_may_not(start_redis: Start) -> None:
    server = start_redis()
    rights = ("~{faye}*", "resetchannels", "&{faye}*", "+@all", "-xadd")
    server.ask("ACL", "SETUSER", "ada", "on", ">pw", *rights)
    broker = broker_of(server.url.replace("//", "//ada:pw@"))
    with pytest.raises(PublishError, match="let the user have the commands"):
        publish(broker, "a")
    server.ask("ACL", "SETUSER", "ada", "+xadd")
    publish(broker, "a")
    feed = subscribed(broker.open_feed(), "a")
    assert arrived(feed) == []
    broker.close()


def test_redis_is_full(start_redis: Start) -> None:
    server = start_redis()
    broker = broker_of(server.url)
    position = publish(broker, "a")
    server.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(PublishError, match="Redis is full: raise maxmemory"):
        publish(broker, "a")
    assert payloads(broker, "a", position.number) == []
    server.ask("CONFIG", "SET", "maxmemory", "0")
    assert publish(broker, "a") > position
    broker.close()


def test_redis_cannot_save(start_redis: Start, tmp_path: Path) -> None:
    server, broker = cannot_save(start_redis, tmp_path)
    [first] = broker.read([Request("a", 0)]).replays[0].publications
    with pytest.raises(PublishError, match="cannot save to its disk"):
        publish(broker, "a")
    server.ask("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
    assert payloads(broker, "a", first.number) == []
    broker.close()


def cannot_save(start_redis: Start, tmp_path: Path) -> tuple[RedisServer, Broker]:
    """A server whose disk has failed after the first publication."""
    folder = tmp_path / "disk"
    folder.mkdir()
    server = start_redis("--dir", str(folder))
    server.ask("CONFIG", "SET", "save", "3600 1000000")
    broker = broker_of(server.url)
    publish(broker, "a")
    folder.rmdir()
    server.ask("BGSAVE")
    wait_until(lambda: "rdb_last_bgsave_status:err" in server.ask("INFO", "persistence"))
    return server, broker


def test_too_few_replicas(start_redis: Start) -> None:
    server = start_redis("--min-replicas-to-write", "1")
    with pytest.raises(PublishError, match="min-replicas-to-write"):
        publish(broker_of(server.url, timeout=1), "a")


def test_a_primary_that_another_one_has_replaced_tells_nothing(start_redis: Start) -> None:
    """It has lost its replicas: what it has is no longer what all see."""
    server = start_redis()
    broker = broker_of(server.url, timeout=1)
    publish(broker, "a", key="k")
    broker.read([Request("a", 0)])
    server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    for call in (
        lambda: broker.read([Request("a", 0)]),
        lambda: publish(broker, "a", key="k"),
        lambda: broker.members("a"),
    ):
        with pytest.raises(BrokerError, match="too few replicas are connected"):
            call()
    broker.close()


def test_a_full_redis_is_read(start_redis: Start) -> None:
    server = start_redis()
    broker = broker_of(server.url)
    position = publish(broker, "a", key="k")
    server.ask("CONFIG", "SET", "maxmemory", "1")
    assert payloads(broker, "a") == ["1"]
    assert broker.members("a") == {}
    assert publish(broker, "a", key="k") == position
    broker.close()


def test_one_that_cannot_save_is_read(start_redis: Start, tmp_path: Path) -> None:
    server, broker = cannot_save(start_redis, tmp_path)
    assert payloads(broker, "a") == ["1"]
    broker.close()


def test_a_replica_is_refused(start_redis: Start) -> None:
    server, other = start_redis(), start_redis()
    broker = broker_of(server.url, timeout=1)
    feed = subscribed(broker.open_feed(), "a")
    publish(broker, "a")
    server.ask("REPLICAOF", "127.0.0.1", other.port)
    for call in (lambda: publish(broker, "a"), broker.open_feed, lambda: broker.members("a")):
        with pytest.raises(BrokerError, match="is a replica: name the primary"):
            call()
    server.ask("REPLICAOF", "NO", "ONE")
    publish(broker, "a")
    feed.close()
    broker.close()


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ("LOADING Redis is loading the dataset in memory", "wait until it has started"),
        ("MOVED 866 127.0.0.1:7000", "redis+cluster://"),
        ("BUSY Redis is busy running a script.", "SCRIPT KILL"),
        ("MASTERDOWN Link with MASTER is down", "redis+sentinel://"),
        ("CLUSTERDOWN Hash slot not served", "CLUSTER INFO"),
        # Redis 6.2 reports what happens inside a script like this.
        (
            "ERR Error running script (call to f_1): @user_script:17: @user_script: 17: "
            "-OOM command not allowed when used memory > 'maxmemory'.",
            "Redis is full",
        ),
        (
            "ERR Error running script (call to f_1): @user_script:17: @user_script: 17: "
            "-READONLY You can't write against a read only replica.",
            "name the primary",
        ),
        # Valkey does so like this.
        ("ERR ACL failure in script: User ada has no permissions to run 'xadd'", "let the user"),
        ("ERR unknown command 'EVALSHA'", "unknown command"),
    ],
)
def test_an_error_names_its_cure(line: str, cure: str) -> None:
    error = redis_error(line)
    assert cure in explain(error)


def redis_error(line: str) -> BaseException:
    """The error that redis-py makes of a line of Redis."""
    near, far = socket.socketpair()
    with near, far:
        connection = redis.connection.Connection()
        connection._sock = near
        near.settimeout(5)
        connection._parser.on_connect(connection)
        far.sendall(f"-{line}\r\n".encode())
        with pytest.raises(redis.RedisError) as caught:
            connection.read_response()
        connection.disconnect()
        return caught.value
