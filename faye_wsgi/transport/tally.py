"""What is counted for metrics: off until ``turn_on``, and never a call for each message.

Messages and bytes are plain integers of the objects that carry them (``numbers`` of an end gives
them). Everything else is rare, and is left in a queue. A thread (a greenlet where threads are
patched) reads both every few seconds, and hands what is new to the reporters, which know
Prometheus or statsd. It starts with the first thing that is counted in a process.

The danger is in the callers. Connections end in any thread, and in the middle of garbage
collection, while any lock may be held. So ``leave`` and ``count`` take no lock and never wait:
they set attributes, append to a deque, which is atomic, and start a thread without waiting for it.
The reporters, which have locks, are called by ``report`` alone.
"""

from __future__ import annotations

import _thread
import atexit
import logging
import time
import weakref
from collections import deque
from operator import add, sub
from typing import Any, Literal, NamedTuple, Protocol

from gevent.monkey import get_original

__all__ = [
    "METRICS",
    "Life",
    "Metric",
    "Reporter",
    "count",
    "enter",
    "forget",
    "leave",
    "report",
    "turn_off",
    "turn_on",
]

log = logging.getLogger("faye_wsgi")

_allocate_lock = get_original("_thread", "allocate_lock")

INTERVAL = 5.0  # seconds between two reports
# Seconds without one, after which another thread begins. The first may have been a greenlet in a
# thread whose hub does not run, or have been killed.
PATIENCE = 4 * INTERVAL

Labels = tuple[str, ...]
Numbers = tuple[int, int, int, int]  # messages in and out, bytes in and out

_NOTHING: Numbers = (0, 0, 0, 0)


class Metric(NamedTuple):
    """What is counted, or measured: a ``gauge`` goes up and down, a ``histogram`` has samples."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()  # seconds


_ROUTE = ("kind", "route")

CONNECTIONS = Metric("connections", "gauge", "Connections that are served now", _ROUTE)
OPENED = Metric("opened", "counter", "Connections that were opened", _ROUTE)
CLOSED = Metric("closed", "counter", "Connections that have ended", (*_ROUTE, "code"))
REFUSED = Metric("refused", "counter", "Handshakes that were refused", (*_ROUTE, "reason"))
MESSAGES = Metric("messages", "counter", "Messages", (*_ROUTE, "direction"))
BYTES = Metric("bytes", "counter", "Bytes of connections, with frames", (*_ROUTE, "direction"))
BLOCKED = Metric("send_blocked_seconds", "counter", "Seconds that send has waited", _ROUTE)
PINGS = Metric(
    "ping_seconds",
    "histogram",
    "Seconds from a ping to its pong",
    _ROUTE,
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
SLOW = Metric("slow_subscribers", "counter", "Subscribers that were too slow", ("kind", "action"))
PUBLICATIONS = Metric("publications", "counter", "Publications by this process", ("result",))
RECOVERIES = Metric("recoveries", "counter", "Subscribers that came back", ("result",))
RECONNECTS = Metric("broker_reconnects", "counter", "Feeds of the broker that were opened again")
LAG = Metric(
    "hub_lag_seconds",
    "histogram",
    "Seconds that a timer of gevent's hub was late",
    (),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
METRICS = (
    CONNECTIONS,
    OPENED,
    CLOSED,
    REFUSED,
    MESSAGES,
    BYTES,
    BLOCKED,
    PINGS,
    SLOW,
    PUBLICATIONS,
    RECOVERIES,
    RECONNECTS,
    LAG,
)


class Reporter(Protocol):
    """Where metrics go."""

    def record(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add ``value`` to a counter or gauge, or a sample to a histogram."""


class End(Protocol):
    """The end of a connection, as ``served`` has it."""

    life: Life | None

    @property
    def numbers(self) -> Numbers:
        """Messages in and out, and bytes in and out, so far."""

    @property
    def code_label(self) -> str:
        """The close code, of which there are few: a peer can choose among thousands."""


class Life:
    """What is counted of one connection: ``labels`` are its kind and its route."""

    __slots__ = ("_end", "_last", "_reported", "code", "labels")

    def __init__(self, end: End, labels: Labels) -> None:
        self.labels = labels
        self.code = "none"
        # Weak: a stream through the iterable that the server never used has no other end.
        self._end: Any = weakref.ref(end)
        self._reported = _NOTHING
        self._last: Numbers | None = None  # at the end

    def finish(self, end: End) -> None:
        """The connection has ended; nothing happens a second time."""
        if self._last is None:
            self.code = end.code_label
            self._last = end.numbers

    def take(self) -> tuple[bool, tuple[int, ...]]:
        """Whether it is over, and the numbers that were not taken before."""
        end = self._end()
        numbers = self._last
        is_over = numbers is not None or end is None
        if numbers is None:
            numbers = self._reported if end is None else end.numbers
        before, self._reported = self._reported, numbers
        return is_over, tuple(map(sub, numbers, before))

    def count(self, metric: Metric, value: float) -> None:
        """Count for this connection's kind and route."""
        count(metric, self.labels, value)


is_on = False
_reporters: tuple[Reporter, ...] = ()
_events: deque[tuple[Metric, Labels, float]] = deque()
_begun: deque[Life] = deque()  # connections that ``report`` has not seen yet
_living: list[Life] = []  # those that it has
_reporting: Any = _allocate_lock()
_runner: object = None  # the token of the thread that reports
_overdue = 0.0  # when it should have done so


def turn_on(reporter: Reporter) -> None:
    """Count from now on, for one more reporter."""
    global is_on, _reporters
    _reporters = (*_reporters, reporter)
    is_on = True


def turn_off(reporter: Reporter) -> None:
    """Count no more for a reporter; without any, nothing is counted."""
    global is_on, _reporters
    _reporters = tuple(one for one in _reporters if one is not reporter)
    is_on = bool(_reporters)
    if not is_on:
        forget()


def enter(end: End, kind: str, route: str) -> None:
    """A connection begins."""
    if is_on:
        end.life = life = Life(end, (kind, route))
        _begun.append(life)
        count(OPENED, life.labels)


def leave(end: Any) -> None:
    """A connection has ended, in any thread; nothing happens a second time."""
    life = getattr(end, "life", None)  # a client has none
    if life is not None:
        life.finish(end)


def count(metric: Metric, labels: Labels = (), value: float = 1) -> None:
    """Something has happened, in any thread. Does not wait."""
    global _runner, _overdue
    if is_on:
        _events.append((metric, labels, value))
        if time.monotonic() > _overdue:
            _overdue = time.monotonic() + PATIENCE
            _runner = token = object()
            # It does not wait for the thread, as ``threading.Thread.start`` does: callers are in
            # the middle of a handshake, or hold a native lock.
            _thread.start_new_thread(_run, (token,))


def _run(token: object) -> None:
    # In the child of a fork the parent's greenlet may go on: its token is no longer the runner.
    global _overdue
    while _runner is token and is_on:
        time.sleep(INTERVAL)
        if _runner is token:
            _overdue = time.monotonic() + PATIENCE
            report()


def report() -> None:
    """Hand what is new to the reporters. If another thread is about it, nothing happens."""
    if not is_on or not _reporting.acquire(False):
        return
    try:
        totals: dict[tuple[Metric, Labels], float] = {}
        samples = []
        for metric, labels, value in _take_events():
            if metric.kind == "histogram":
                samples.append((metric, labels, value))
            else:
                totals[metric, labels] = totals.get((metric, labels), 0) + value
        for reporter in _reporters:
            for (metric, labels), value in totals.items():
                if value:
                    reporter.record(metric, labels, value)
            for sample in samples:
                reporter.record(*sample)
    except Exception:
        log.exception("metrics could not be reported")
    finally:
        _reporting.release()


def _take_events() -> list[tuple[Metric, Labels, float]]:
    events = [_events.popleft() for _ in range(len(_events))]
    begun = [_begun.popleft() for _ in range(len(_begun))]
    events += [(CONNECTIONS, life.labels, 1) for life in begun]
    alive = []
    sums: dict[Labels, tuple[int, ...]] = {}
    for life in [*_living, *begun]:
        is_over, new = life.take()
        if any(new):
            sums[life.labels] = tuple(map(add, sums.get(life.labels, _NOTHING), new))
        if is_over:
            events.append((CONNECTIONS, life.labels, -1))
            events.append((CLOSED, (*life.labels, life.code), 1))
        else:
            alive.append(life)
    _living[:] = alive
    for labels, numbers in sums.items():
        events += _describe(labels, *numbers)
    return events


def _describe(
    labels: Labels, received: int, sent: int, bytes_in: int, bytes_out: int
) -> list[tuple[Metric, Labels, float]]:
    inward, outward = (*labels, "in"), (*labels, "out")
    return [
        (MESSAGES, inward, received),
        (MESSAGES, outward, sent),
        (BYTES, inward, bytes_in),
        (BYTES, outward, bytes_out),
    ]


def forget() -> None:
    """In the child of a fork: what was counted is the parent's, and so is the thread."""
    global _reporting, _runner, _overdue
    _events.clear()
    _begun.clear()
    _living.clear()
    _reporting = _allocate_lock()
    _runner, _overdue = None, 0.0


# Functions for the exit run in the reverse order of their registration: this one comes behind that
# of ``wsgi.worker``, which imports this module, and closes the connections.
atexit.register(report)
