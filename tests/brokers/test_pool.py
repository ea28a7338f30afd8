"""The connections that are kept to a server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from faye_wsgi.brokers.pool import Pool
from faye_wsgi.brokers.redis_link import Link
from faye_wsgi.errors import BrokerError

from ..support.servers import ROOT
from ..support.waiting import wait_until


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
from faye_wsgi.brokers.pool import Pool
from tests.brokers.test_pool import Dialer

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
    with pytest.raises(BrokerError, match="all 1 connections to the broker are in use"):
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
