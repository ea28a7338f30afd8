"""A short round of each setup: every message comes, or a reset says that one may be missing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..conftest import find_program
from ..support.postgres import programs
from ..support.servers import ROOT

SECONDS = 8  # of harm
LIMIT = 200.0

# Those of a group run at the same time: a round waits for most of its time.
GROUPS = [
    ["sentinels", "cluster", "threads"],
    ["harmless", "volatile", "durable", "undurable"],
    ["postgres", "postgres-failover"],
]


@pytest.mark.timeout(LIMIT + 20)
@pytest.mark.parametrize("setups", GROUPS, ids="-".join)
def test_nothing_is_lost_without_a_word(setups: list[str], tmp_path: Path) -> None:
    if "postgres" in setups:
        programs()
    else:
        find_program("redis-server")
    deadline = time.monotonic() + LIMIT
    started = {setup: start(setup, tmp_path / setup) for setup in setups}
    try:
        codes = {
            setup: process.wait(max(0.0, deadline - time.monotonic()))
            for setup, process in started.items()
        }
    finally:
        for setup, process in started.items():
            process.kill()
            process.wait()
            print((tmp_path / setup).read_text("utf-8", "replace"))
    assert codes == dict.fromkeys(setups, 0)


def start(setup: str, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.soak"]
    command += ["--setup", setup, "--seconds", str(SECONDS)]
    with output.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
