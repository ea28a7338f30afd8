"""The harm that is done while a round runs, and where: Redis, alone or with Sentinels, and workers.

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

from ..support.redis import RedisServer, sentinels
from ..support.servers import Server
from ..support.waiting import wait_until
from .records import now

FAILOVER = 20.0  # seconds that Sentinels may take
AOF = ("--appendonly", "yes", "--appendfsync", "always")
CAREFUL = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "10")

HARMLESS = {
    "cut_feeds": 2.0,
    "cut_calls": 2.0,
    "sleep": 1.0,
    "freeze": 1.0,
    "forget_scripts": 0.5,
    "kill_worker": 1.5,
    "reload": 0.5,
}


@dataclass(frozen=True)
class Setup:
    """What a round runs on, and the weights of the faults."""

    name: str
    faults: Mapping[str, float]
    redis: tuple[str, ...] = ()
    durable: bool = False
    has_sentinels: bool = False
    kind: str = "gunicorn-gevent"
    options: tuple[str, ...] = ()
    channels: Mapping[str, Any] = field(default_factory=dict)
    is_lossless: bool = False


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
        {"fail_over": 2.0, "cut_feeds": 1.0, "cut_calls": 1.0, "kill_worker": 1.0},
        CAREFUL,
        has_sentinels=True,
    ),
)


class World:
    """What faults happen to. ``events`` are those that happened, and when, in µs."""

    def __init__(self, nodes: list[RedisServer], url: str) -> None:
        self.nodes = nodes  # the first one is the primary
        self.url = url
        self.events: list[tuple[int, str]] = []

    @property
    def redis(self) -> RedisServer:
        return self.nodes[0]

    def note(self, text: str) -> None:
        self.events.append((now(), text))


@contextlib.contextmanager
def redis_of(setup: Setup, program: str) -> Iterator[World]:
    """Redis as a setup wants it."""
    debug = ("--enable-debug-command", "local")
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(RedisServer(program, *setup.redis, *debug))
        if not setup.has_sentinels:
            yield World([primary], f"{primary.url}?durable={int(setup.durable)}")
            return
        following = ("--replicaof", "127.0.0.1", str(primary.port))
        replica = stack.enter_context(RedisServer(program, *setup.redis, *debug, *following))
        watchers = stack.enter_context(sentinels(program, primary))
        for one in watchers:
            wait_until(lambda one=one: "slaves=1" in one.ask("INFO", "sentinel"), 20)
        wait_until(lambda: "state=online" in primary.ask("INFO", "replication"), 20)
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in watchers)
        yield World([primary, replica], f"redis+sentinel://{hosts}/main/0")


# Faults


def cut_feeds(world: World, server: Server, dice: random.Random) -> None:
    """Redis closes the connections that are subscribed."""
    world.redis.ask("CLIENT", "KILL", "TYPE", "pubsub")


def cut_calls(world: World, server: Server, dice: random.Random) -> None:
    """Redis closes the connections of calls."""
    world.redis.ask("CLIENT", "KILL", "TYPE", "normal")


def sleep(world: World, server: Server, dice: random.Random) -> None:
    """Redis answers late."""
    world.redis.ask("DEBUG", "SLEEP", f"{dice.uniform(0.1, 3):.1f}")


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
    wait_until(lambda: "role:master" in new.ask("INFO", "replication"), FAILOVER)
    time.sleep(dice.choice([0, 1]))
    old.start()
    wait_until(lambda: "state=online" in new.ask("INFO", "replication"), 2 * FAILOVER)
    world.nodes = [new, old]


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
        kill_worker,
        reload,
    )
}


def do_harm(
    setup: Setup, world: World, server: Server, dice: random.Random, seconds: float
) -> None:
    """Do harm for so many seconds; afterwards everything works."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, dice.expovariate(1 / 1.5)))
        name = dice.choices(list(setup.faults), list(setup.faults.values()))[0]
        world.note(f"{name} begins")
        FAULTS[name](world, server, dice)
        world.note(f"{name} has ended")
