"""The watchdog: what blocks a hub is named, once, and nothing else is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.monkey import get_original

from faye_wsgi.transport import hubs, watchdog
from faye_wsgi.transport.watchdog import PATIENCE, Watchdog

from ..support.peer import Peer
from ..support.servers import serve
from ..support.waiting import wait_until
from .harness import Pair, pair, until

native_sleep = get_original("time", "sleep")

APP = "tests.support.apps.blocking:application"


@pytest.fixture
def served() -> Iterator[Pair]:
    """A connection of this thread's hub: without one there is nothing to tell."""
    with pair() as made:
        yield made


@pytest.fixture
def watched(served: Pair) -> Iterator[Watchdog]:
    """This thread's hub is watched, by a thread of its own."""
    hub = gevent.get_hub()
    watchdog.watch(hub)
    dog = watchdog._watchdogs[hub]
    yield dog
    dog.stop()


def miss(dog: Watchdog, ticks: int = PATIENCE) -> None:
    for _ in range(ticks):
        dog.tick()


def test_code_that_blocks_is_logged_with_its_stack(
    served: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    dog = Watchdog(gevent.get_hub())
    miss(dog)
    dog.turn()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("faye_wsgi", "WARNING")
    assert f'{__file__}", line' in caplog.text and "in miss" in caplog.text


def test_it_is_logged_once_each_time(served: Pair, caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog(gevent.get_hub())
    for _ in range(2):
        miss(dog, 3 * PATIENCE)
        dog.turn()
        dog.turn()
    assert len(caplog.records) == 2


def test_a_short_wait_is_not_logged(served: Pair, caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog(gevent.get_hub())
    for _ in range(3):
        miss(dog, PATIENCE - 1)
        dog.turn()
    assert not caplog.records


def test_a_hub_without_connections_may_stand_still(caplog: pytest.LogCaptureFixture) -> None:
    hub = gevent.get_hub()
    assert not hubs.members(hub)
    dog = Watchdog(hub)
    miss(dog)
    dog.turn()
    assert not caplog.records


def test_a_stack_that_came_too_late_is_not_logged(
    served: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """The hub ran again while the thread took it, so it is another code's."""
    dog = Watchdog(gevent.get_hub())
    dog.stack = ["another code's"]
    dog.turn()
    assert not caplog.records and not dog.stack


def test_a_thread_watches(watched: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    wait_until(lambda: watched.stack)  # in time.sleep, which is not patched here
    assert not caplog.records
    until(lambda: caplog.records)
    assert "in wait_until" in caplog.text
    watchdog.watch(gevent.get_hub())
    assert list(watchdog._watchdogs.values()) == [watched], "once for each hub"


def test_the_thread_ends_with_its_hub() -> None:
    watched: list[Watchdog] = []

    def serve_and_end() -> None:
        hub = gevent.get_hub()
        watchdog.watch(hub)
        watched.append(watchdog._watchdogs[hub])
        gevent.sleep(0)
        hubs.release_hub()

    thread = threading.Thread(target=serve_and_end)
    thread.start()
    thread.join(5)
    wait_until(lambda: watched[0]._is_stopped)
    assert not watchdog._watchdogs


def test_the_thread_ends_with_the_thread_of_its_hub() -> None:
    left: list[Any] = []

    def leave() -> None:
        left.append(gevent.get_hub())

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hubs, "members", lambda hub: [hub])
        dog = Watchdog(left[0])
        miss(dog)
    assert dog._is_stopped and not dog.stack
    left[0].loop.destroy()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_has_no_watchdog(watched: Watchdog) -> None:
    pid = os.fork()
    if not pid:
        os._exit(1 if watchdog._watchdogs or not watched._is_stopped else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert watchdog._watchdogs and not watched._is_stopped


@pytest.mark.parametrize("path, name", [("/view", "answer_in_view"), ("/listener", "answer")])
@pytest.mark.parametrize("kind", ["gunicorn-gevent", "pywsgi-unpatched"])
def test_a_view_and_a_listener_are_named(kind: str, path: str, name: str) -> None:
    with serve(kind, APP, env={"FAYE_WSGI_DEBUG": "1"}) as server:
        with Peer(server).open(path) as peer:
            peer.send_text("go")
            assert peer.read_text() == "done"
            wait_until(lambda: "the hub was blocked for" in server.log())
        log = server.log()
        assert log.count("the hub was blocked for") == 1
        assert f"in {name}\n" in log and "native_sleep(0.01)  # this is the line" in log
