"""Run a command beside a Postgres of its own, whose URL it finds in CHANNELS_URL.

with_postgres.py PORT COMMAND…; a client finds the URL by the port. Its disk is real: a commit that
waits for it takes as long as it takes.
"""

from __future__ import annotations

import shutil
import signal
import sys
from typing import Any

from with_redis import folder_of, run_beside

from tests.support.postgres import PostgresServer, programs


def url_of(port: str) -> str:
    """The URL of the Postgres of a server."""
    return (folder_of(port) / "url").read_text("utf-8")


def main() -> None:
    port, *command = sys.argv[1:]
    signal.signal(signal.SIGTERM, stop)
    folder = folder_of(port)
    folder.mkdir(mode=0o700)
    try:
        with PostgresServer(programs(), "fsync=on", "shared_buffers=128MB") as server:
            (folder / "url").write_text(server.url)
            run_beside(command, folder, server.url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stop(*_: Any) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
