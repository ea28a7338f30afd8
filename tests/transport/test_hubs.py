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

from faye_wsgi.transport.hubs import release_hub

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
