"""pytest's fixtures for testing views, ``ws_connect`` and ``es_connect``, and patched threads.

pytest loads this file in each of its runs, where the package is installed. So it imports nothing
of the package, nor gevent, before a test asks for a fixture, or ``faye_wsgi_patch = true`` stands
in pytest's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Callable

import pytest

__all__ = ["es_connect", "ws_connect"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The line ``faye_wsgi_patch = true``."""
    about = "gevent patches threads, sockets and time, as under gunicorn's gevent worker"
    parser.addini("faye_wsgi_patch", about, type="bool", default=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Patch before anything of the project is imported.

    A ``conftest.py`` would be too late for pytest-django, which loads Django in this hook: what
    Django keeps for each thread would not be patched.
    """
    if early_config.getini("faye_wsgi_patch"):
        from faye_wsgi.testkit.patching import patch

        patch()
    yield


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
