"""pytest's fixtures for testing views: ``ws_connect`` and ``es_connect``.

pytest loads this file in each of its runs, where the package is installed. So it imports nothing
of the package, nor gevent, before a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Callable

import pytest

__all__ = ["es_connect", "ws_connect"]


@pytest.fixture
def ws_connect() -> Iterator[Callable[..., Any]]:
    """``ws_connect(client, path, ...)``: an open WebSocket, which is closed after the test.

    The arguments are those of ``faye_wsgi.testing.connect``.
    """
    from faye_wsgi.testing import connect

    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(connect(*args, **options))


@pytest.fixture
def es_connect() -> Iterator[Callable[..., Any]]:
    """``es_connect(client, path, ...)``: an open event stream, which is closed after the test.

    The arguments are those of ``faye_wsgi.testing.connect_events``.
    """
    from faye_wsgi.testing import connect_events

    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(connect_events(*args, **options))
