"""Learning that the worker process stops, so that its connections can end with 1001.

Servers have no call for this. gunicorn's worker sets its attribute ``alive`` to False (on SIGTERM,
SIGHUP and ``max_requests``), which a timer of each hub reads. SIGQUIT leaves no time for that, but
lets ``atexit`` run. So do the reloaders of Flask and Django: their main thread raises SystemExit,
while the threads that serve requests are daemons and still run. What does not work: signal handlers
of our own. A process has one for each signal, and gunicorn needs it.
"""

from __future__ import annotations

import atexit
import signal
from typing import Any, Callable

import gevent

from faye_wsgi.transport import hubs

__all__ = ["count_workers", "find_statsd", "find_stop_sign", "watch"]

EXIT_TIMEOUT = 0.5  # seconds that the hook at exit gives the close frames


def watch() -> None:
    """End the connections of this process with 1001 when it stops."""
    hubs.find_stop_sign = find_stop_sign


def find_stop_sign() -> Callable[[], bool] | None:
    """A function that returns whether gunicorn's worker stops; None under another server."""
    worker = _find_worker()
    if not isinstance(getattr(worker, "alive", None), bool):
        return None
    return lambda: not worker.alive


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
