"""A short round of each setup: every message comes, or a reset says that one may be missing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ..conftest import find_program
from ..support.postgres import programs
from ..support.servers import ROOT

SECONDS = 8  # of harm
LIMIT = 200.0

SETUPS = ["harmless", "durable", "undurable", "volatile", "threads", "sentinels", "cluster"]
SETUPS += ["postgres", "postgres-failover"]


@pytest.mark.timeout(LIMIT + 20)
@pytest.mark.parametrize("setup", SETUPS)
def test_nothing_is_lost_without_a_word(setup: str) -> None:
    if setup.startswith("postgres"):
        programs()
    else:
        find_program("redis-server")
    command: list[Any] = [sys.executable, "-W", "ignore", "-m", "tests.soak"]
    command += ["--setup", setup, "--seconds", str(SECONDS)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT
    )
    output = done.stdout.decode("utf-8", "replace")
    print(output)
    assert done.returncode == 0, output
