"""Run a command beside a Redis of its own, whose URL it finds in CHANNELS_URL.

with_redis.py PORT COMMAND…; Redis listens on a Unix socket whose place follows from the port, so
that a client finds it, too. It keeps nothing on a disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def folder_of(port: str) -> Path:
    """Where the Redis of a server is."""
    return Path(tempfile.gettempdir()) / f"faye_wsgi-benchmark-{port}"


def url_of(port: str) -> str:
    """The URL of the Redis of a server."""
    return f"unix://{folder_of(port)}/redis"


def main() -> None:
    port, *command = sys.argv[1:]
    folder = folder_of(port)
    folder.mkdir(mode=0o700)
    redis = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", f"{folder}/redis", "--save", ""],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )

    def stop(*_: Any) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    try:
        while not (folder / "redis").exists():
            time.sleep(0.02)
        run_beside(command, folder, url_of(port))
    finally:
        redis.terminate()
        redis.wait()
        shutil.rmtree(folder, ignore_errors=True)


def run_beside(command: list[str], folder: Path, url: str) -> None:
    """Run a server until it ends, or this process does."""
    server = subprocess.Popen(command, env={**os.environ, "CHANNELS_URL": url})
    try:
        # Those who reload it need this: a signal to this process is not one to the server.
        (folder / "pid").write_text(str(server.pid))
        server.wait()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
