"""Learning that the worker process stops, of which no server tells an application.

gunicorn's worker only turns its ``alive`` to False (SIGTERM, SIGHUP, ``max_requests``): the
timer of each hub looks at it. SIGQUIT leaves no time to look; there ``atexit`` runs.
"""

from __future__ import annotations

import atexit
import signal
from typing import Callable

import gevent

from faye_wsgi.transport import hubs

__all__ = ["find_stop_sign", "watch"]

EXIT_TIMEOUT = 0.5  # seconds that the hook at exit gives the close frames


def watch() -> None:
    """Let all connections of this process hear of its end with 1001."""
    hubs.find_stop_sign = find_stop_sign


def find_stop_sign() -> Callable[[], bool] | None:
    """A function that tells whether gunicorn's worker stops; None under another server."""
    # gunicorn's worker answers SIGTERM with a method of its own.
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(getattr(worker, "alive", None), bool):
        return None
    return lambda: not worker.alive  # type: ignore[union-attr]


@atexit.register
def _at_exit() -> None:
    hub = gevent._hub_local.get_hub_if_exists()
    if hub is None or not hubs.members(hub):
        return
    hubs.go_away(hub)
    with gevent.Timeout(EXIT_TIMEOUT, False):
        while hubs.members(hub):
            gevent.sleep(0.01)
