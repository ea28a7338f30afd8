"""Backoff: delays that double, are cut at random, and begin anew after a connection that lasted."""

from __future__ import annotations

import inspect
import threading
from random import uniform

import gevent

from faye_wsgi.transport.backoff import Backoff


def test_backoff() -> None:
    slept: list[float] = []
    now = [0.0]
    options = {"clock": lambda: now[0], "sleep": slept.append}
    backoff = Backoff(1, 10, random=lambda low, high: high, **options)  # type: ignore[arg-type]
    for _ in range(6):
        backoff.wait()
    assert slept == [1, 2, 4, 8, 10, 10]
    backoff.opened()
    now[0] += 9
    backoff.wait()  # it did not last
    backoff.opened()
    now[0] += 10
    backoff.wait()
    assert slept[6:] == [10, 1]
    for _ in range(2000):
        backoff.wait()
    jittered = Backoff(1, 10, **options)  # type: ignore[arg-type]
    slept.clear()
    jittered.wait()
    jittered.wait()
    assert 0.5 <= slept[0] <= 1 <= slept[1] <= 2


def test_the_delay_is_told_before_it_is_slept() -> None:
    seen: list[tuple[str, float]] = []
    backoff = Backoff(
        2, 10, random=lambda low, high: low, sleep=lambda delay: seen.append(("slept", delay))
    )
    backoff.wait(lambda delay: seen.append(("told", delay)))
    assert seen == [("told", 1), ("slept", 1)]


def test_each_delay_is_cut_by_up_to_a_half() -> None:
    asked: list[tuple[float, float]] = []

    def random(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    backoff = Backoff(3, 100, random=random, sleep=lambda delay: None)
    for _ in range(3):
        backoff.wait()
    assert asked == [(1.5, 3), (3, 6), (6, 12)]


def test_opening_counts_for_one_wait_only() -> None:
    slept: list[float] = []
    now = [0.0]
    backoff = Backoff(
        1, 10, random=lambda low, high: high, clock=lambda: now[0], sleep=slept.append
    )
    backoff.opened()
    now[0] += 100
    backoff.wait()
    now[0] += 100  # it did not open again: that it once did is forgotten
    backoff.wait()
    backoff.wait()
    assert slept == [1, 2, 4]


def test_no_first_delay_is_no_delay() -> None:
    slept: list[float] = []
    backoff = Backoff(0, 10, sleep=slept.append)
    for _ in range(100):
        backoff.wait()
    assert set(slept) == {0}


def test_it_cuts_at_random_by_itself() -> None:
    assert inspect.signature(Backoff).parameters["random"].default == uniform


def test_it_waits_in_the_hub_even_without_a_delay() -> None:
    ran: list[str] = []
    gevent.spawn(ran.append, "another greenlet")
    Backoff(0, 0).wait()
    assert ran == ["another greenlet"]


def test_it_is_stopped_from_another_thread() -> None:
    backoff = Backoff(3600, 3600)
    threads: list[threading.Thread] = []

    def stop(delay: float) -> None:
        threads.append(threading.Thread(target=backoff.stop))
        threads[0].start()

    with gevent.Timeout(5):
        backoff.wait(stop)
    assert backoff.is_stopped
    threads[0].join(5)


def test_what_the_server_asks_for_is_the_least() -> None:
    ranges: list[tuple[float, float]] = []
    backoff = Backoff(
        1,
        10,
        random=lambda low, high: ranges.append((low, high)) or high,  # type: ignore[func-returns-value]
        sleep=lambda delay: None,
    )
    for _ in range(3):
        backoff.wait(asked=4)
    assert ranges == [(4, 6), (8, 12), (10, 15)]
    backoff.reset()
    backoff.wait(asked=0.5)
    backoff.wait()
    assert ranges[3:] == [(0.5, 0.75), (1, 2)]
