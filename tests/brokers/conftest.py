"""The engines, and a Redis for all tests of a worker that do it no harm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Callable

import pytest

from faye_wsgi.brokers.base import Broker

from ..conftest import find_program
from ..support.redis import RedisServer
from .harness import Engine, Memory


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that tests share: each with a prefix of its own."""
    with RedisServer(find_program("redis-server")) as server:
        yield server


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """`start_redis(…options)` starts one that ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(
            RedisServer(find_program("redis-server"), *arguments, **options)
        )


@pytest.fixture(params=["memory", "redis"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine that keeps the contract."""
    made = Memory() if request.param == "memory" else redis_engine(request)
    yield made
    made.close()


def redis_engine(request: pytest.FixtureRequest) -> Engine:
    server: RedisServer = request.getfixturevalue("redis_server")
    return Engine(server.url)


@pytest.fixture
def broker(engine: Engine) -> Broker:
    return engine.connect()
