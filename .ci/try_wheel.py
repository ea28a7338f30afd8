"""Tries the faye_wsgi that is installed: `python .ci/try_wheel.py compiled`, or `pure`.

Imports all of it, looks which modules are compiled, and echoes a message through a server.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gevent import monkey

monkey.patch_all()

from gevent.pywsgi import WSGIServer  # noqa: E402

import faye_wsgi  # noqa: E402
from faye_wsgi import Client, WebSocket  # noqa: E402

FOLDER = Path(faye_wsgi.__file__).parent
# The modules that have C, or types for Cython, beside them.
COMPILED = {
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
    for path in [*FOLDER.glob("*/*.c"), *FOLDER.glob("*/*.pxd")]
}


def main(kind: str) -> None:
    found = {name for name in import_all() if name in COMPILED}
    assert COMPILED and found == (COMPILED if kind == "compiled" else set()), sorted(found)
    try_echo()
    print(f"{kind}: {FOLDER}")


def import_all() -> Iterable[str]:
    """Import each module; the names of those that are compiled."""
    for module in pkgutil.walk_packages([str(FOLDER)], "faye_wsgi."):
        try:
            file = importlib.import_module(module.name).__file__
        except ModuleNotFoundError as error:
            if str(error.name).startswith("faye_wsgi"):
                raise
            continue  # a framework or a broker that is not installed
        if str(file).endswith(".so"):
            yield module.name


def try_echo() -> None:
    server = WSGIServer(("127.0.0.1", 0), echo, log=None)
    server.start()
    with Client(f"ws://127.0.0.1:{server.server_port}/") as ws:
        ws.send("hello")
        assert ws.receive(30) == "hello"
    server.stop()


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    ws = WebSocket(environ)
    for message in ws:
        ws.send(message)
    return ws.response(environ, start_response)


if __name__ == "__main__":
    main(sys.argv[1])
