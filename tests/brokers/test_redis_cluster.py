"""Partitions on the nodes of a Cluster, which go down and give slots away."""

from __future__ import annotations

import binascii
from collections.abc import Iterator

import pytest

from faye_wsgi.brokers.base import Broker, Feed
from faye_wsgi.brokers.engines import connect
from faye_wsgi.errors import BrokerError, PublishError

from ..conftest import find_program
from ..support.certs import Certificates
from ..support.redis import SLOTS, ClusterNode, cluster, free_port, has_tls, is_old
from ..support.waiting import wait_until
from .harness import arrived, payloads, publish, sent, subscribed, unless_broker_error


@pytest.fixture
def nodes() -> Iterator[list[ClusterNode]]:
    """Three primaries, and a replica of the first."""
    with cluster(find_program("redis-server"), 3, 1) as made:
        yield made


def close(brokers: tuple[Broker, ...]) -> None:
    for broker in brokers:
        broker.close()


def url(nodes: list[ClusterNode]) -> str:
    """Of a node that is away and the last one: the others are found."""
    return f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{nodes[-1].port}"


def slot(number: int) -> int:
    return binascii.crc_hqx(f"faye:{number}".encode(), 0) % SLOTS


def test_partitions_are_on_all_nodes(redis_cluster: list[ClusterNode]) -> None:
    brokers = connect(url(redis_cluster), partitions=8)
    feeds = [subscribed(broker.open_feed(), "a") for broker in brokers]
    for number, broker in enumerate(brokers):
        publish(broker, "a", str(number))
    for number, (broker, feed) in enumerate(zip(brokers, feeds)):
        assert payloads(broker, "a") == sent("a", arrived(feed)) == [str(number)]
    assert {slot(number) * 3 // SLOTS for number in range(8)} == {0, 1, 2}
    for node in redis_cluster:
        assert "{faye:" in node.ask("KEYS", "*")
        if is_old(node.program):
            continue
        # Sharded: a node passes nothing on to the others.
        assert "{faye:" in node.ask("PUBSUB", "SHARDCHANNELS")
        assert node.ask("PUBSUB", "CHANNELS") == "*0\r\n"
    close(brokers)


def test_partitions_share_the_connections_to_a_node(redis_cluster: list[ClusterNode]) -> None:
    brokers = connect(url(redis_cluster) + "?max_connections=1", prefix="shared", partitions=12)
    before = [clients(node) for node in redis_cluster]
    for broker in brokers:
        publish(broker, "a")
    assert [clients(node) for node in redis_cluster] == [count + 1 for count in before]
    brokers[0].close()
    publish(brokers[1], "a")
    close(brokers)
    wait_until(lambda: [clients(node) for node in redis_cluster] == before)


def clients(node: ClusterNode) -> int:
    return node.ask("CLIENT", "LIST", "TYPE", "normal").count("\nid=")


def test_one_that_is_no_cluster_says_so(redis_cluster: list[ClusterNode]) -> None:
    for node in redis_cluster:
        [broker] = connect(f"redis://127.0.0.1:{node.port}", timeout=1)
        if unless_broker_error(lambda: publish(broker, "a")) is None:  # noqa: B023
            with pytest.raises(PublishError, match=r"redis\+cluster://"):
                publish(broker, "a")
        broker.close()


def test_a_failover_is_followed_and_noticed(nodes: list[ClusterNode]) -> None:
    number = next(number for number in range(100) if slot(number) * 3 < SLOTS)
    other = next(number for number in range(100) if slot(number) * 3 // SLOTS == 1)
    brokers = connect(url(nodes), partitions=max(number, other) + 1)
    broker, safe = brokers[number], brokers[other]
    feed = subscribed(broker.open_feed(), "a")
    before, safe_before = publish(broker, "a", "1"), publish(safe, "a", "1")
    assert sent("a", arrived(feed)) == ["1"]
    nodes[0].stop()
    lost(feed)
    after = wait_until(lambda: unless_broker_error(lambda: publish(broker, "a", "2")), 30)
    assert after.epoch != before.epoch
    feed = subscribed(broker.open_feed(), "a")
    publish(broker, "a", "3")
    assert sent("a", arrived(feed)) == ["3"]
    assert publish(safe, "a", "2").epoch == safe_before.epoch
    close(brokers)


def test_a_slot_that_moves_is_followed_and_noticed(nodes: list[ClusterNode]) -> None:
    number = next(number for number in range(100) if slot(number) * 3 // SLOTS == 1)
    brokers = connect(url(nodes), partitions=number + 1)
    broker = brokers[number]
    feed = subscribed(broker.open_feed(), "a")
    before = publish(broker, "a", "1")
    move(slot(number), nodes[1], nodes[2])
    if not is_old(nodes[0].program):
        lost(feed)
    assert payloads(broker, "a") == ["1"]
    after = publish(broker, "a", "2")
    with pytest.raises(BrokerError):
        feed.signal()
    assert after > before and after.epoch != before.epoch
    feed = subscribed(broker.open_feed(), "a")
    publish(broker, "a", "3")
    assert sent("a", arrived(feed)) == ["3"]
    close(brokers)


def move(number: int, source: ClusterNode, target: ClusterNode) -> None:
    """Give a slot and its keys to another node."""
    target.ask("CLUSTER", "SETSLOT", number, "IMPORTING", source.id)
    source.ask("CLUSTER", "SETSLOT", number, "MIGRATING", target.id)
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", number, 100).split("\r\n")[2::2]
    answer = source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    assert answer == "+OK\r\n", answer
    for node in (target, source):
        assert node.ask("CLUSTER", "SETSLOT", number, "NODE", target.id) == "+OK\r\n"


def lost(feed: Feed) -> None:
    with pytest.raises(BrokerError):
        while True:
            feed.receive(1)


def test_a_frozen_node_does_not_stop_the_others(nodes: list[ClusterNode]) -> None:
    brokers = connect(f"redis+cluster://127.0.0.1:{nodes[1].port}", partitions=8)
    for broker in brokers:
        publish(broker, "a")
    with nodes[1].paused():
        well = [broker for number, broker in enumerate(brokers) if slot(number) * 3 // SLOTS != 1]
        assert 0 < len(well) < 8
        for broker in well:
            publish(broker, "a")
            broker.open_feed()
    close(brokers)


def test_a_cluster_with_tls_and_a_user(certificates: Certificates) -> None:
    program = find_program("redis-server")
    if not has_tls(program):
        pytest.skip(f"{program} was built without TLS")
    port = free_port(bus=True)
    options = [
        *("--tls-port", str(port), "--tls-cluster", "yes", "--tls-auth-clients", "no"),
        *("--tls-cert-file", certificates.cert, "--tls-key-file", certificates.key),
        *("--tls-ca-cert-file", certificates.ca),
    ]
    with cluster(program, 1, 0, *options) as [node]:
        rights = ("~{faye:*", "resetchannels", "&{faye:*", "+@all")
        node.ask("ACL", "SETUSER", "ada", "on", ">pw", *rights)
        place = f"rediss+cluster://ada:pw@127.0.0.1:{port}?ssl_ca_certs={certificates.ca}"
        brokers = connect(place, partitions=2, timeout=10.0)
        for broker in brokers:
            feed = subscribed(broker.open_feed(), "a")
            publish(broker, "a", "1")
            assert sent("a", arrived(feed)) == ["1"]
        close(brokers)
