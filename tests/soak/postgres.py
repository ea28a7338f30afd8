"""Rounds on Postgres: alone, with a replica that is promoted, and behind PgBouncer."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

from ..conftest import find_program
from ..support.postgres import PgBouncer, PostgresServer, programs
from ..support.servers import Server
from ..support.waiting import wait_until
from .faults import Act, Setup, World

SETTINGS = ("max_connections=300", "max_wal_senders=5")

HARMLESS = {
    "pg_cut_feeds": 2.0,
    "pg_cut_calls": 2.0,
    "pg_lock": 1.0,
    "pg_freeze": 1.0,
    "kill_worker": 1.5,
    "reload": 0.5,
    "kill_publisher": 1.0,
}
ENDS = {"pg_crash": 1.5, "pg_restart": 0.5, "pg_kill_backend": 1.0}

SETUPS = (
    Setup("postgres", {**HARMLESS, **ENDS, "pg_flush": 1.0}, engine="postgres"),
    Setup(
        "postgres-durable",
        {**HARMLESS, **ENDS},
        engine="postgres",
        durable=True,
        is_lossless=True,
    ),
    Setup(
        "postgres-failover",
        {
            "pg_fail_over": 2.0,
            "pg_cut_feeds": 1.0,
            "pg_cut_calls": 1.0,
            "kill_worker": 1.0,
            "kill_publisher": 1.0,
        },
        engine="postgres-failover",
        durable=True,
    ),
    Setup(
        "pgbouncer",
        {**HARMLESS, **ENDS},
        engine="pgbouncer",
        kind="gunicorn-gthread",
        options=("--threads", "100"),
    ),
)


@contextlib.contextmanager
def postgres_of(setup: Setup) -> Iterator[World]:
    """Postgres as a setup wants it."""
    query = f"durable={int(setup.durable)}"
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(PostgresServer(programs(), *SETTINGS))
        if setup.engine == "pgbouncer":
            bouncer = stack.enter_context(PgBouncer(find_program("pgbouncer"), primary))
            yield World([primary], f"{bouncer.url}?{query}")
        elif setup.engine == "postgres-failover":
            replica = stack.enter_context(PostgresServer(programs(), *SETTINGS, primary=primary))
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
            yield World([primary, replica], f"postgres://postgres@{hosts}/postgres?{query}")
        else:
            yield World([primary], f"{primary.url}?{query}")


def terminate(server: PostgresServer, which: str) -> None:
    """End sessions of the broker."""
    server.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {which}"
    )


def is_feed(negated: str = "") -> str:
    return f"query {negated} LIKE '%v1_fetch%'"


def pg_cut_feeds(world: World, server: Server, dice: random.Random) -> None:
    """Postgres ends the sessions of feeds."""
    terminate(world.nodes[0], is_feed())


def pg_cut_calls(world: World, server: Server, dice: random.Random) -> None:
    """Postgres ends the sessions of calls."""
    terminate(world.nodes[0], is_feed("NOT"))


def pg_lock(world: World, server: Server, dice: random.Random) -> None:
    """Another session keeps the lock of publishers."""
    import psycopg

    with psycopg.connect(world.nodes[0].url) as connection:
        with contextlib.suppress(psycopg.errors.Error):
            connection.execute("SELECT faye.v1_enter(false, 5000, '0')")
            time.sleep(dice.uniform(0.1, 3))
            connection.rollback()


def pg_freeze(world: World, server: Server, dice: random.Random) -> None:
    """Postgres does not answer; sometimes for longer than a feed waits."""
    with world.nodes[0].paused():
        time.sleep(dice.choice([0.5, 2.5, 6]))


def pg_crash(world: World, server: Server, dice: random.Random) -> None:
    """Postgres ends at once, and starts with what it has on its disk."""
    world.nodes[0].crash()
    time.sleep(dice.choice([0, 0.5, 3]))
    world.nodes[0].start()


def pg_restart(world: World, server: Server, dice: random.Random) -> None:
    """Postgres ends properly, and is started again."""
    world.nodes[0].restart()


def pg_kill_backend(world: World, server: Server, dice: random.Random) -> None:
    """One of its processes is killed: it ends all others, and recovers as after a crash."""
    sessions: list[Any] = world.nodes[0].ask(
        "SELECT pid FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    if sessions:
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(sessions)[0], signal.SIGKILL)
        wait_until(world.nodes[0].answers, 30)


def pg_flush(world: World, server: Server, dice: random.Random) -> None:
    """The data are deleted: all, or those of the channels alone."""
    import psycopg

    with contextlib.suppress(psycopg.errors.Error):
        statements = ["DROP SCHEMA faye CASCADE", "TRUNCATE faye.log", "DELETE FROM faye.life"]
        world.nodes[0].ask(dice.choice(statements))


def pg_fail_over(world: World, server: Server, dice: random.Random) -> None:
    """The primary is killed, and the replica is promoted, which may lack the last commits."""
    old, new = world.nodes
    old.crash()
    time.sleep(dice.choice([0, 1]))
    new.promote()
    old.primary, new.primary = new, None
    old.make()
    old.start()
    world.nodes = [new, old]


FAULTS: dict[str, Act] = {
    act.__name__: act
    for act in (
        pg_cut_feeds,
        pg_cut_calls,
        pg_lock,
        pg_freeze,
        pg_crash,
        pg_restart,
        pg_kill_backend,
        pg_flush,
        pg_fail_over,
    )
}
