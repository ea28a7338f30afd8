"""Patched threads for pytest, before the project is imported.

This file imports nothing of the package: what is imported before ``patch`` keeps the
interpreter's own locks and sockets.
"""

from __future__ import annotations

import os
from typing import Any

import gevent
import gevent.monkey

__all__ = ["patch"]

_kept: list[Any] = []


def patch() -> None:
    """Patch all that gevent can patch; in the main thread."""
    gevent.monkey.patch_all()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # A thread of pytest-xdist, older than the patch, tells this one what to run. Where gevent
        # watches nothing, it takes a wait for another thread for one without an end (LoopExit).
        watcher = gevent.get_hub().loop.async_()
        watcher.start(lambda: None)
        _kept.append(watcher)
