"""The engines, and a Redis for all tests of a worker that do it no harm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from faye_wsgi.brokers.base import Broker

from ..conftest import find_program
from ..support import postgres
from ..support.postgres import PgBouncer, PostgresServer
from ..support.redis import ClusterNode, RedisServer, cluster, has_tls
from .harness import Engine, Memory


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that tests share: each with a prefix of its own."""
    with RedisServer(find_program("redis-server")) as server:
        yield server


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """`start_redis(…options)` starts one that ends with the test."""
    program = find_program("redis-server")
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, tls: bool = False, **options: Any) -> RedisServer:
            if tls and not has_tls(program):
                pytest.skip(f"{program} was built without TLS")
            return stack.enter_context(RedisServer(program, *arguments, tls=tls, **options))

        yield start


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[list[ClusterNode]]:
    """A Cluster of three nodes that tests share: each with a prefix of its own."""
    with cluster(find_program("redis-server")) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A Postgres that tests share: each with a prefix of its own."""
    with PostgresServer(postgres.programs()) as server:
        yield server


@pytest.fixture
def start_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """`start_postgres(…settings)` starts one that ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *settings, **options: stack.enter_context(
            PostgresServer(postgres.programs(), *settings, **options)
        )


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer before the Postgres that tests share."""
    with PgBouncer(find_program("pgbouncer"), postgres_server) as bouncer:
        yield bouncer


@pytest.fixture(params=["memory", "redis", "cluster", "postgres", "pgbouncer"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine that keeps the contract."""
    made = ENGINES[request.param](request)
    yield made
    made.close()


def redis_engine(request: pytest.FixtureRequest) -> Engine:
    server: RedisServer = request.getfixturevalue("redis_server")
    return Engine(server.url)


def cluster_engine(request: pytest.FixtureRequest) -> Engine:
    nodes: list[ClusterNode] = request.getfixturevalue("redis_cluster")
    return Engine(f"redis+cluster://127.0.0.1:{nodes[0].port}?partitions=1")


def postgres_engine(request: pytest.FixtureRequest) -> Engine:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return Engine(server.url)


def pgbouncer_engine(request: pytest.FixtureRequest) -> Engine:
    bouncer: PgBouncer = request.getfixturevalue("pgbouncer")
    return Engine(bouncer.url)


ENGINES: dict[str, Callable[[pytest.FixtureRequest], Engine]] = {
    "memory": lambda request: Memory(),
    "redis": redis_engine,
    "cluster": cluster_engine,
    "postgres": postgres_engine,
    "pgbouncer": pgbouncer_engine,
}


@pytest.fixture
def broker(engine: Engine) -> Broker:
    return engine.connect()
