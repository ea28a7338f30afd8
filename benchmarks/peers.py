"""Installs the peers into a folder of their own, so that faye_wsgi's environment stays clean.

Each peer is installed by itself: one that cannot be had is left out, and the others stay. What
faye_wsgi and a peer both stand on (gevent, gunicorn, Flask) gets the version that is in use here.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence

from .servers import PEER_PYTHON, PEERS, Server

PATIENCE = 600


def pinned(requirement: str) -> str:
    """The requirement, with the version of this environment if it is here too."""
    try:
        version = importlib.metadata.version(requirement.split("[")[0])
    except importlib.metadata.PackageNotFoundError:
        return requirement
    return f"{requirement}=={version}"


def run(command: Sequence[str]) -> str | None:
    """Run a command; None if it worked, else why it did not."""
    try:
        done = subprocess.run(
            command,
            cwd=PEERS,
            stdin=subprocess.DEVNULL,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines: list[str] = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else None


def install(server: Server) -> str | None:
    """Install what one server needs; None if it is there, else why it is not."""
    PEERS.mkdir(exist_ok=True)
    problem = None
    if server.pip and not PEER_PYTHON.exists():
        problem = run([sys.executable, "-m", "venv", "venv"])
    if server.pip and not problem:
        pip = [str(PEER_PYTHON), "-m", "pip", "install", "--quiet"]
        problem = run(pip + [pinned(requirement) for requirement in server.pip])
    if server.npm and any(not (PEERS / "node_modules" / name).exists() for name in server.npm):
        problem = run(["npm", "install", "--silent", "--prefix", str(PEERS), *server.npm])
    return problem
