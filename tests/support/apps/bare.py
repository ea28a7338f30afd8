"""An application without the package: it proves that a server starts, answers and stops."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

PAGE = b"bare\n"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", str(len(PAGE)))])
    return [PAGE]
