"""The fixtures that all tests may use."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import hypothesis
import pytest

from faye_wsgi.wsgi import admission, handover

from .support import certs, servers
from .support.browser import new_page
from .support.peer import Peer
from .support.redis import find_redis
from .support.servers import Server, raise_descriptor_limit
from .support.servers import serve as run_server

__all__ = ["certificates", "new_page", "peer", "program", "serve"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-servers", action="store_true", help="skip the tests that start a server or a program"
    )


def pytest_configure(config: pytest.Config) -> None:
    servers.MAY_START = not config.getoption("--no-servers")
    raise_descriptor_limit()
    # Nothing is tested against a clock: on a busy machine any example may take long.
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")
    # What is logged once in a process would be logged by the first test that comes across it:
    # this process is not patched, and many requests here have no Upgrade.
    logging.disable()
    handover._warn_unpatched()
    handover._warn_stripped()
    logging.disable(logging.NOTSET)
    check_compiled()


def check_compiled() -> None:
    """A compiled module hides its source: one that is older would be tested instead.

    The modules of other interpreters lie beside this one's, and are never loaded here.
    """
    package = Path(__file__).resolve().parent.parent / "faye_wsgi"
    ending: str = sysconfig.get_config_var("EXT_SUFFIX")
    for pxd in package.glob("*/*.pxd"):
        source = pxd.with_suffix(".py")
        changed = max(file.stat().st_mtime for file in (source, pxd))
        built = pxd.with_suffix(ending)
        if "FAYE_WSGI_PURE" in os.environ or not built.exists():
            continue
        if built.stat().st_mtime < changed:
            raise pytest.UsageError(f"{built.name} is older than its source: 'make build'")


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    """What is logged once for each origin, or once a minute, is logged again in the next test."""
    admission._told.clear()
    admission._told_full_at[0] = -admission.TELL_AGAIN


@pytest.fixture(scope="session")
def certificates() -> certs.Certificates:
    """A CA, a server's certificate and a client's."""
    return certs.certificates()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """`serve(kind, app, ...)` starts a server that ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(run_server(*args, **options))


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """`peer(server)` makes a raw connection that is closed with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Peer(*args, **options))


@pytest.fixture
def program() -> Callable[[str], str]:
    """`program('nginx')` is where a program is, or skips the test."""
    return find_program


def find_program(name: str) -> str:
    if not servers.MAY_START:
        pytest.skip(f"it starts {name}")
    if name == "redis-server":
        found = find_redis()
    else:
        places: Any = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
        found = shutil.which(name, path=places)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found
