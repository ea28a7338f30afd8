"""A thread's hub: what served a connection ends with it, whole."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from typing import Any

import gevent
import pytest

from faye_wsgi.transport import hubs, served
from faye_wsgi.transport.hubs import POLL_INTERVAL, Stop, release_hub

from .harness import TIMEOUT


class Held:
    """Something in the frame of the caller."""


def in_a_thread(function: Any) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_a_hub_goes_with_all_that_it_held() -> None:
    left: list[Any] = []

    def serve() -> None:
        held = Held()
        hub = gevent.get_hub()
        gevent.sleep(0)
        left.extend((weakref.ref(held), weakref.ref(hub)))
        release_hub()

    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        in_a_thread(serve)
    gc.collect()
    assert [one() for one in left] == [None] * 6
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_hub_that_never_ran() -> None:
    left: list[Any] = []

    def serve() -> None:
        left.append(weakref.ref(gevent.get_hub()))
        release_hub()
        release_hub()

    in_a_thread(serve)
    gc.collect()
    assert left[0]() is None


def test_the_hub_of_the_main_thread_stays() -> None:
    hub = gevent.get_hub()
    release_hub()
    assert gevent.get_hub() is hub and hub.loop is not None


# In a process of its own, whose limit is set to what it has open. ``get_hub`` of gevent would never
# return there.
WITHOUT_DESCRIPTORS = """
import os, resource, threading
from faye_wsgi.transport import hubs
from faye_wsgi.transport.closing import Closing

told = []

def serve():
    try:
        hubs.reserve(Closing(None))
    except OSError as error:
        told.append(error.errno)
    else:
        hubs.release_hub()

def in_a_thread():
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
before = os.listdir("/proc/self/fd")
for spare in range(6):
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + spare, most))
    in_a_thread()
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
in_a_thread()
assert len(told) >= 3 and set(told) == {24}, told
assert len(os.listdir("/proc/self/fd")) == len(before)
"""


def test_a_thread_without_descriptors_for_a_hub_raises() -> None:
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# A process that stops, and has time


class Told:
    """A member, which is gone as soon as it is told to go."""

    is_over = False
    dispatcher = None

    def __init__(self, is_served: bool = True) -> None:
        self.codes: list[int] = []
        if is_served:
            served.enter(self)

    def go_away(self, code: int) -> None:
        self.codes.append(code)
        served.leave(self)

    def abandon(self, code: int) -> bool:
        return False


@pytest.fixture
def registry() -> Any:
    made = hubs._Registry(gevent.get_hub())
    yield made
    made.close()


def close_over(registry: Any, seconds: float, members: list[Told]) -> list[int]:
    """How many are closed at each look, over ``seconds``."""
    registry.members.update(members)
    closed = []
    for look in range(int(seconds / POLL_INTERVAL) + 1):
        registry.go_away(Stop(1012, seconds - look * POLL_INTERVAL))
        gone = {member for member in registry.members if member.codes}
        registry.members -= gone
        closed.append(len(gone))
    return closed


def test_connections_are_closed_evenly_over_the_time(registry: Any) -> None:
    members = [Told() for _ in range(8000)]
    closed = close_over(registry, 10.0, members)
    assert all(member.codes == [1012] for member in members)
    # 200 each time on average, with a standard deviation of 14.
    assert all(100 < number < 300 for number in closed[:39]), closed


def test_few_connections_are_closed_faster(registry: Any) -> None:
    members = [Told() for _ in range(100)]
    closed = close_over(registry, 10.0, members)
    assert 0 < closed[0] < 60 and sum(closed[:10]) == 100, "25 each time, and not 2"


def test_without_time_all_are_closed_at_once(registry: Any) -> None:
    members = [Told() for _ in range(100)]
    assert close_over(registry, 0.0, members) == [100]


def test_clients_are_closed_last(registry: Any) -> None:
    """They may carry what a served connection needs; and 1012 is a server's code."""
    client, members = Told(is_served=False), [Told() for _ in range(100)]
    registry.members.update([client, *members])
    registry.go_away(Stop(1012, 10.0))
    assert not client.codes and any(member.codes for member in members)
    for member in members:
        served.leave(member)
    registry.go_away(Stop(1012, 5.0))
    assert client.codes == [1001], "there is no served connection"
