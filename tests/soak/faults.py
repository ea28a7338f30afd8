"""The harm that is done while a round runs, and to what.

Redis, alone, with Sentinels or as a Cluster; gunicorn's workers; processes of publishers.

A schedule is drawn from the seed: which fault, for how long, and how long until the next one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..support.redis import RedisServer, cluster, may_debug, sentinels
from ..support.servers import Server
from ..support.waiting import wait_until
from .publishing import Process
from .records import now

FAILOVER = 20.0  # seconds that Sentinels and nodes may take
# Seconds after which each call and each feed has given up a server that does not answer. One that
# wakes up earlier may still say that it has taken what the failover throws away.
GIVEN_UP = 5.0
AOF = ("--appendonly", "yes", "--appendfsync", "always")
NODE_TIMEOUT = 1.0  # seconds, of ``support.redis.ClusterNode``
CAREFUL = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "10")

HARMLESS = {
    "cut_feeds": 2.0,
    "cut_calls": 2.0,
    "sleep": 1.0,
    "freeze": 1.0,
    "forget_scripts": 0.5,
    "kill_worker": 1.5,
    "reload": 0.5,
    "kill_publisher": 1.0,
}


@dataclass(frozen=True)
class Setup:
    """What a round runs on, and the weights of the faults."""

    name: str
    faults: Mapping[str, float]
    redis: tuple[str, ...] = ()
    durable: bool = False
    has_sentinels: bool = False
    partitions: int = 1  # more than one: a Cluster
    kind: str = "gunicorn-gevent"
    options: tuple[str, ...] = ()
    channels: Mapping[str, Any] = field(default_factory=dict)
    is_lossless: bool = False
    engine: str = "redis"


SETUPS = (
    Setup("harmless", HARMLESS, is_lossless=True),
    Setup("durable", {**HARMLESS, "restart_redis": 2.0}, AOF, durable=True, is_lossless=True),
    Setup("undurable", {**HARMLESS, "restart_redis": 2.0}, AOF, channels={"slow": "reset"}),
    Setup(
        "volatile",
        {**HARMLESS, "restart_redis": 2.0, "flush": 2.0},
        channels={"history": 20, "slow": "reset"},
    ),
    Setup(
        "threads",
        {**HARMLESS, "restart_redis": 1.0, "flush": 1.0},
        kind="gunicorn-gthread",
        options=("--threads", "100"),
    ),
    Setup(
        "sentinels",
        {
            "fail_over": 2.0,
            "sleep_through_failover": 2.0,
            "cut_feeds": 1.0,
            "cut_calls": 1.0,
            "kill_worker": 1.0,
            "kill_publisher": 1.0,
        },
        CAREFUL,
        has_sentinels=True,
    ),
    Setup(
        "cluster",
        {
            "restart_node": 1.5,
            "fail_over_node": 1.5,
            "freeze_node": 1.0,
            "cut_feeds": 1.5,
            "cut_calls": 1.0,
            "sleep": 0.5,
            "kill_worker": 1.0,
            "kill_publisher": 1.0,
        },
        # While a node is away, the partitions on the others go on.
        ("--cluster-require-full-coverage", "no"),
        partitions=6,
    ),
)


class World:
    """What faults happen to. ``events`` are those that happened, and when, in µs."""

    def __init__(self, nodes: list[Any], url: str, primaries: int = 1) -> None:
        self.nodes = nodes  # the primaries, then a replica of the first one
        self.url = url
        self.primaries = primaries
        self.publishers: list[Process] = []
        self.events: list[tuple[int, str]] = []

    @property
    def redis(self) -> RedisServer:
        server: RedisServer = self.nodes[0]
        return server

    def any_primary(self, dice: random.Random) -> RedisServer:
        server: RedisServer = dice.choice(self.nodes[: self.primaries])
        return server

    def harm(self) -> Iterator[tuple[int, int]]:
        """When Redis could not be asked, or had lost its data."""
        begins: dict[str, int] = {}
        for at, text in self.events:
            name, _, what = text.partition(" ")
            if what == "begins":
                begins[name] = at
            elif what == "has ended" and name not in HARMLESS_TO_REDIS:
                yield begins[name], at

    def note(self, text: str) -> None:
        self.events.append((now(), text))


@contextlib.contextmanager
def redis_of(setup: Setup, program: str) -> Iterator[World]:
    """Redis as a setup wants it."""
    debug = may_debug(program)
    with contextlib.ExitStack() as stack:
        if setup.partitions > 1:
            nodes = stack.enter_context(cluster(program, 3, 1, *setup.redis, *debug))
            hosts = ",".join(f"127.0.0.1:{one.port}" for one in nodes)
            yield World(nodes, f"redis+cluster://{hosts}?partitions={setup.partitions}", 3)
            return
        primary = stack.enter_context(RedisServer(program, *setup.redis, *debug))
        if not setup.has_sentinels:
            yield World([primary], f"{primary.url}?durable={int(setup.durable)}")
            return
        following = ("--replicaof", "127.0.0.1", str(primary.port))
        replica = stack.enter_context(RedisServer(program, *setup.redis, *debug, *following))
        watchers = stack.enter_context(sentinels(program, primary))
        for one in watchers:
            wait_for(one, "slaves=1", "sentinel")
        wait_for(primary, "state=online")
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in watchers)
        yield World([primary, replica], f"redis+sentinel://{hosts}/main/0")


def wait_for(
    server: RedisServer, words: str, section: str = "replication", timeout: float = FAILOVER
) -> None:
    """Wait until a server says something of itself; it may cut connections meanwhile."""

    def says() -> bool:
        with contextlib.suppress(OSError):
            return words in server.ask("INFO", section)
        return False

    try:
        wait_until(says, timeout, words)
    except AssertionError as error:
        raise AssertionError(
            f"{error}: {server.ask('INFO', section)}{server.log()[-2000:]}"
        ) from None


# Faults


def cut_feeds(world: World, server: Server, dice: random.Random) -> None:
    """Redis closes the connections that are subscribed."""
    world.any_primary(dice).ask("CLIENT", "KILL", "TYPE", "pubsub")


def cut_calls(world: World, server: Server, dice: random.Random) -> None:
    """Redis closes the connections of calls."""
    world.any_primary(dice).ask("CLIENT", "KILL", "TYPE", "normal")


def sleep(world: World, server: Server, dice: random.Random) -> None:
    """Redis answers late."""
    longest = 3 if world.primaries == 1 else NODE_TIMEOUT / 2  # after which another takes over
    world.any_primary(dice).ask("DEBUG", "SLEEP", f"{dice.uniform(0.1, longest):.1f}")


def freeze(world: World, server: Server, dice: random.Random) -> None:
    """Redis does not answer; sometimes for longer than a feed waits."""
    with world.redis.paused():
        time.sleep(dice.choice([0.5, 2.5, 6]))


def forget_scripts(world: World, server: Server, dice: random.Random) -> None:
    """Redis knows no script any more."""
    world.redis.ask("SCRIPT", "FLUSH")


def restart_redis(world: World, server: Server, dice: random.Random) -> None:
    """Redis is killed, and started again with what it has on its disk."""
    world.redis.stop()
    time.sleep(dice.choice([0, 0.5, 3]))
    world.redis.start()


def flush(world: World, server: Server, dice: random.Random) -> None:
    """Redis is emptied."""
    world.redis.ask("FLUSHALL")


def fail_over(world: World, server: Server, dice: random.Random) -> None:
    """The primary is killed, and the replica takes its place."""
    old, new = world.nodes
    old.stop()
    wait_for(new, "role:master")
    time.sleep(dice.choice([0, 1]))
    old.start()
    wait_for_primary(world)


def sleep_through_failover(world: World, server: Server, dice: random.Random) -> None:
    """The primary stands still, the replica takes its place, and then it wakes up as a second one.

    It takes itself for the primary until a Sentinel tells it otherwise, which takes ten seconds.
    """
    old, new = world.nodes
    with old.paused():
        given_up = time.monotonic() + GIVEN_UP
        wait_for(new, "role:master")
        time.sleep(max(0.0, given_up - time.monotonic()))
    wait_for_primary(world)


def wait_for_primary(world: World) -> None:
    """Wait until the Sentinels have made one the primary of the other: it may be the old one, that
    was started again before they had all agreed."""

    def says(server: RedisServer, words: str) -> bool:
        with contextlib.suppress(OSError):
            return words in server.ask("INFO", "replication")
        return False

    def primary() -> Any:
        for one, other in (world.nodes, world.nodes[::-1]):
            if says(one, "state=online") and says(other, "role:slave"):
                return one
        return None

    found = wait_until(primary, 2 * FAILOVER, "a primary with its replica")
    world.nodes.sort(key=lambda one: one is not found)


def restart_node(world: World, server: Server, dice: random.Random) -> None:
    """A node of a Cluster that has no replica is killed, and comes back without its data."""
    node = dice.choice(world.nodes[1 : world.primaries])
    node.stop()
    time.sleep(dice.choice([0, 0.5, 3]))
    node.start()
    wait_for_cluster(world)


def fail_over_node(world: World, server: Server, dice: random.Random) -> None:
    """A node is killed, and its replica gets its slots."""
    old, new = world.nodes[0], world.nodes[-1]
    old.stop()
    wait_for(new, "role:master")
    time.sleep(dice.choice([0, 1]))
    old.start()
    wait_for(new, "state=online", timeout=2 * FAILOVER)
    world.nodes[0], world.nodes[-1] = new, old
    wait_for_cluster(world)


def freeze_node(world: World, server: Server, dice: random.Random) -> None:
    """A node does not answer: briefly, or until its replica has its slots."""
    node = world.any_primary(dice)
    seconds = dice.choice([NODE_TIMEOUT / 2, GIVEN_UP])
    old, new = world.nodes[0], world.nodes[-1]
    with node.paused():
        time.sleep(seconds)
        if node is old and seconds == GIVEN_UP:
            wait_for(new, "role:master")
            world.nodes[0], world.nodes[-1] = new, old
    wait_for(world.nodes[0], "state=online", timeout=2 * FAILOVER)
    wait_for_cluster(world)


def wait_for_cluster(world: World) -> None:
    """Wait until all nodes take all for well."""
    for node in world.nodes:
        wait_until(lambda node=node: "cluster_state:ok" in node.ask("CLUSTER", "INFO"), FAILOVER)


def kill_publisher(world: World, server: Server, dice: random.Random) -> None:
    """A process of publishers is killed in the middle of what it does, and started again."""
    dice.choice(world.publishers).kill_and_start()


def kill_worker(world: World, server: Server, dice: random.Random) -> None:
    """A worker is killed without a word."""
    workers = server.worker_pids()
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(workers), signal.SIGKILL)


def reload(world: World, server: Server, dice: random.Random) -> None:
    """All workers are replaced."""
    server.signal(signal.SIGHUP)


Act = Callable[[World, Server, random.Random], None]
FAULTS: dict[str, Act] = {
    act.__name__: act
    for act in (
        cut_feeds,
        cut_calls,
        sleep,
        freeze,
        forget_scripts,
        restart_redis,
        flush,
        fail_over,
        sleep_through_failover,
        restart_node,
        fail_over_node,
        freeze_node,
        kill_worker,
        reload,
        kill_publisher,
    )
}
HARMLESS_TO_REDIS = {"forget_scripts", "kill_worker", "reload", "kill_publisher"}


def do_harm(
    setup: Setup,
    world: World,
    server: Server,
    dice: random.Random,
    seconds: float,
    acts: Mapping[str, Act] = FAULTS,
) -> None:
    """Do harm for so many seconds; afterwards everything works."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, dice.expovariate(1 / 1.5)))
        name = dice.choices(list(setup.faults), list(setup.faults.values()))[0]
        world.note(f"{name} begins")
        acts[name](world, server, dice)
        world.note(f"{name} has ended")
