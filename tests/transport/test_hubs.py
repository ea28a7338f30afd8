"""A thread's hub: what served a connection ends with it, whole."""

from __future__ import annotations

import gc
import os
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
