"""Learning that the worker process stops, so that its connections can be closed before.

Servers have no call for this. gunicorn's worker sets its attribute ``alive`` to False (on SIGTERM,
SIGHUP and ``max_requests``), which a timer of each hub reads. SIGQUIT leaves no time for that, but
lets ``atexit`` run. So do the reloaders of Flask and Django: their main thread raises SystemExit,
while the threads that serve requests are daemons and still run. What does not work: signal handlers
of our own. A process has one for each signal, and gunicorn needs it.

All are closed at once with 1001, or with 1012 over the seconds of ``FAYE_WSGI_CLOSE_SPREAD``. For
this the worker must live so long. gunicorn waits for the views that run, and ends as soon as there
are none; so our hook ``worker_exit`` waits for the connections whose views have returned. An
``atexit`` hook would be too late: from Python 3.12 on no thread can be started there, and listeners
may need one.
"""

from __future__ import annotations

import atexit
import os
import signal
from functools import lru_cache, wraps
from time import monotonic
from typing import Any, Callable

import gevent

from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.transport import hubs, served

__all__ = ["count_workers", "find_statsd", "find_stop_sign", "watch"]

EXIT_TIMEOUT = 0.5  # seconds that the hook at exit gives the close frames
# Seconds of gunicorn's limits in which nothing new is closed: it looks once a second for views that
# have ended, and as often tells its master that it lives; the last peers have a second to answer.
MARGIN = 4.0
LAST_WORDS = 1.5  # seconds for the answers to the last close frames


def _read_spread() -> float:
    text = os.environ.get("FAYE_WSGI_CLOSE_SPREAD", "")
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"FAYE_WSGI_CLOSE_SPREAD is a number of seconds, not {text!r}")
    return seconds


_read_spread()  # so that a wrong value raises at the import, and not at the first connection


def watch() -> None:
    """Close the connections of this process when it stops."""
    hubs.find_stop_sign = find_stop_sign


def find_stop_sign() -> Callable[[], hubs.Stop | None] | None:
    """A function that returns how gunicorn's worker stops, if so; None under another server."""
    worker = _find_worker()
    if not isinstance(getattr(worker, "alive", None), bool):
        return None
    return _sign_of(worker)


def count_workers() -> int:
    """How many processes gunicorn serves the application with; 1 under another server."""
    workers = getattr(getattr(_find_worker(), "cfg", None), "workers", 1)
    return workers if isinstance(workers, int) else 1


def find_statsd() -> Any:
    """gunicorn's logger, where it sends to statsd (``statsd_host``) as well; else None."""
    log = getattr(_find_worker(), "log", None)
    return log if hasattr(log, "increment") and hasattr(log, "gauge") else None


def _find_worker() -> Any:
    # The worker is in no environ. But its handler of SIGTERM is a method of it.
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)


class _Sign:
    """Whether gunicorn's worker stops, and until when its connections have time: for all hubs."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        # Not at the import: the configuration of gunicorn, which sets it, may import this.
        self._spread = _read_spread()
        self._until: float | None = None
        self._is_hurried = False
        if self._spread:
            self._add_hook("worker_exit", self._wait)
            # SIGQUIT, SIGINT and gunicorn's reloader; SIGABRT, where the worker was blocked.
            self._add_hook("worker_int", self._hurry)
            self._add_hook("worker_abort", self._hurry)

    def __call__(self) -> hubs.Stop | None:
        if self._worker.alive:
            return None
        if not self._spread or self._is_hurried:
            return hubs.Stop()
        if self._until is None:
            self._until = monotonic() + self._find_time()
        return hubs.Stop(CloseCode.SERVICE_RESTART, self._until - monotonic())

    def _find_time(self) -> float:
        """The seconds over which connections are closed."""
        worker, cfg = self._worker, self._worker.cfg
        if cfg.workers == 1 and worker.nr >= worker.max_requests:
            return 0.0  # its clients could not come back: the next worker starts when it has ended
        limits = [self._spread, cfg.graceful_timeout - MARGIN]
        if cfg.timeout:
            # gunicorn kills a worker that has not told for so long that it lives; this one cannot.
            limits.append(cfg.timeout - MARGIN)
        return max(0.0, float(min(limits)))

    def _add_hook(self, name: str, hook: Callable[[], object]) -> None:
        """Call ``hook`` before the server hook of gunicorn's configuration."""
        cfg = self._worker.cfg
        theirs = getattr(cfg, name)

        @wraps(theirs)  # gunicorn counts the parameters
        def both(*args: Any) -> None:
            hook()
            theirs(*args)

        cfg.set(name, both)

    def _hurry(self) -> None:
        self._is_hurried = True

    def _wait(self) -> None:
        """Serve the connections whose views have returned until all have been closed."""
        if self() is None or self._until is None:
            return
        until = self._until + LAST_WORDS
        while served.count() and not self._is_hurried and monotonic() < until:
            gevent.sleep(0.05)


@lru_cache(maxsize=1)
def _sign_of(worker: Any) -> _Sign:
    return _Sign(worker)


@atexit.register
def _at_exit() -> None:
    if not hubs.serve_any():
        return
    hubs.go_away()
    # This thread's hub runs only while this waits for it, and daemon threads stop with it: long
    # enough for the close frames to go out.
    with gevent.Timeout(EXIT_TIMEOUT, False):
        while hubs.serve_any():
            gevent.sleep(0.01)
