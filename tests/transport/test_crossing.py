"""Calls from other threads: their order, and how each kind of thread waits."""

from __future__ import annotations

import threading
from typing import Any, Callable

import gevent
import pytest

from faye_wsgi.transport.crossing import Crossing, wait_elsewhere

from .harness import NOTHING_FOR, TIMEOUT, until


def call(function: Any, *args: Any) -> None:
    function(*args)


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def join(thread: threading.Thread) -> None:
    """Wait for a thread without stopping the hub, which may be what it waits for."""
    until(lambda: not thread.is_alive(), what="the end of a thread")


# Jobs


def test_jobs_run_in_the_hub_in_their_order() -> None:
    ran: list[Any] = []
    crossing = Crossing(gevent.get_hub(), call)

    def job(number: int) -> None:
        ran.append((number, threading.get_ident(), gevent.getcurrent() is gevent.get_hub()))

    def leave() -> None:
        for number in range(100):
            crossing.call(job, number)

    join(in_thread(leave))
    until(lambda: len(ran) == 100)
    here = threading.get_ident()
    assert ran == [(number, here, True) for number in range(100)]


def test_the_owner_runs_first_what_was_handed_over() -> None:
    ran: list[int] = []
    crossing = Crossing(gevent.get_hub(), call)
    thread = in_thread(lambda: [crossing.call(ran.append, number) for number in range(3)])
    thread.join(TIMEOUT)  # the hub does not run meanwhile
    assert ran == []
    crossing.run()
    assert ran == [0, 1, 2] and not crossing.jobs
    gevent.sleep(NOTHING_FOR)  # the hub finds nothing left to do
    assert ran == [0, 1, 2]


def test_a_job_may_leave_another() -> None:
    ran: list[str] = []
    crossing = Crossing(gevent.get_hub(), call)
    crossing.call(lambda: (ran.append("first"), crossing.call(ran.append, "second")))
    crossing.run()
    assert ran == ["first", "second"]


def test_what_a_job_raises_goes_through_the_guard() -> None:
    """In the hub an exception has no other way to the connection."""
    caught: list[str] = []
    ran: list[str] = []

    def guard(function: Any, *args: Any) -> None:
        try:
            function(*args)
        except LookupError as error:
            caught.append(str(error))

    def fail() -> None:
        raise LookupError("in a job")

    crossing = Crossing(gevent.get_hub(), guard)

    def leave() -> None:
        crossing.call(fail)
        crossing.call(ran.append, "next")

    join(in_thread(leave))
    until(lambda: ran == ["next"])
    assert caught == ["in a job"]


def test_a_call_to_a_hub_that_has_ended_is_kept_and_raises_nothing() -> None:
    made: list[Crossing] = []
    ran: list[str] = []

    def live() -> None:
        hub = gevent.get_hub()
        made.append(Crossing(hub, call))
        hub.destroy(destroy_loop=True)

    in_thread(live).join(TIMEOUT)
    made[0].call(ran.append, "late")
    assert len(made[0].jobs) == 1 and ran == []


# Waiting

Wait = Callable[[], Any]


def with_a_hub(wait: Wait) -> Any:
    gevent.get_hub()
    try:
        return wait()
    finally:
        gevent.get_hub().destroy(destroy_loop=True)


def without_a_hub(wait: Wait) -> Any:
    assert gevent._hub_local.get_hub_if_exists() is None
    result = wait()
    assert gevent._hub_local.get_hub_if_exists() is None, "waiting made a hub"
    return result


KINDS = pytest.mark.parametrize("kind", [with_a_hub, without_a_hub])


class Waiter:
    """A thread that waits; `asked` and `withdrawn` have what was handed over."""

    def __init__(self, kind: Callable[[Wait], Any], timeout: float | None) -> None:
        self.asked: list[Any] = []
        self.withdrawn: list[Any] = []
        self.results: list[Any] = []
        self.thread = in_thread(lambda: self.run(kind, timeout))

    def run(self, kind: Callable[[Wait], Any], timeout: float | None) -> None:
        try:
            self.results.append(
                kind(lambda: wait_elsewhere(self.asked.append, self.withdrawn.append, timeout))
            )
        except BaseException as error:
            self.results.append(error)


@KINDS
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_a_thread_waits_until_it_is_told(kind: Any, timeout: float | None) -> None:
    waiter = Waiter(kind, timeout)
    until(lambda: waiter.asked)
    assert not waiter.results
    tell = waiter.asked[0]
    tell()
    tell()  # once more, in whatever state it is now
    join(waiter.thread)
    assert waiter.results == [True]
    tell()  # and long after, when there is nothing left to wake


@KINDS
@pytest.mark.parametrize("timeout", [0.01, 0, -1])
def test_a_thread_gives_up_in_time(kind: Any, timeout: float) -> None:
    waiter = Waiter(kind, timeout)
    join(waiter.thread)
    assert waiter.results == [False]
    assert waiter.withdrawn == waiter.asked, "what was asked is taken back"
    waiter.asked[0]()


@KINDS
def test_a_thread_that_is_told_while_it_asks_does_not_wait(kind: Any) -> None:
    results: list[Any] = []

    def wait() -> Any:
        return wait_elsewhere(lambda tell: tell(), lambda tell: None, TIMEOUT)

    join(in_thread(lambda: results.append(kind(wait))))
    assert results == [True]


def test_only_the_calling_greenlet_waits() -> None:
    """The hub of a thread that waits goes on with its other greenlets."""
    told: list[Any] = []
    results: list[Any] = []
    ran = threading.Event()

    def wait() -> Any:
        other = gevent.spawn(ran.set)
        result = wait_elsewhere(told.append, lambda tell: None, TIMEOUT)
        other.join(TIMEOUT)
        return result

    thread = in_thread(lambda: results.append(with_a_hub(wait)))
    until(ran.is_set, what="the other greenlet of the thread")
    assert results == []
    told[0]()
    join(thread)
    assert results == [True]


def test_a_timeout_of_the_callers_own_is_not_taken_for_ours() -> None:
    results: list[Any] = []

    def wait() -> str:
        withdrawn: list[Any] = []
        own = gevent.Timeout(0.01)
        try:
            with own:
                wait_elsewhere(lambda tell: None, withdrawn.append, TIMEOUT)
        except gevent.Timeout as error:
            assert error is own and len(withdrawn) == 1
            return "its own"
        return "none"

    join(in_thread(lambda: results.append(with_a_hub(wait))))
    assert results == ["its own"]


def test_an_enormous_timeout_is_no_error() -> None:
    waiter = Waiter(without_a_hub, 1e300)
    until(lambda: waiter.asked)
    waiter.asked[0]()
    join(waiter.thread)
    assert waiter.results == [True]
