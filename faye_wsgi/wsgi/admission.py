"""Which requests may connect: those of the right pages, while the process has room.

Clients decide how often they are refused. So the log says little of it: one WARNING for each
origin, and one a minute while the process is full.
"""

from __future__ import annotations

import logging
from time import monotonic

from faye_wsgi.driver.server_handshake import refusal
from faye_wsgi.http.origins import Origins, is_allowed
from faye_wsgi.transport import served
from faye_wsgi.transport.settings import check_size
from faye_wsgi.wsgi.environ import Environ, host_of, is_secure

__all__ = ["check_limit", "check_room", "is_from", "is_from_allowed_page"]

log = logging.getLogger("faye_wsgi")

RETRY_AFTER = 10  # seconds
TELL_AGAIN = 60.0  # seconds between two warnings that the process is full
MAX_TOLD = 100  # origins that are remembered
MAX_SHOWN = 200  # characters of an origin

_told: set[str] = set()
_told_full_at = [-TELL_AGAIN]


def is_from_allowed_page(environ: Environ, origins: Origins, trust_forwarded: bool) -> bool:
    """Whether the page that sent this request may connect; the log names each that may not."""
    if is_from(environ, origins, trust_forwarded):
        return True
    _tell(environ["HTTP_ORIGIN"][:MAX_SHOWN], host_of(environ, trust_forwarded)[:MAX_SHOWN])
    return False


def is_from(environ: Environ, origins: Origins, trust_forwarded: bool) -> bool:
    """Whether a request is from a page of ``origins``, or from no page."""
    host = host_of(environ, trust_forwarded)
    return is_allowed(
        environ.get("HTTP_ORIGIN"), host, origins, is_secure(environ, trust_forwarded)
    )


def _tell(origin: str, host: str) -> None:
    if origin in _told or len(_told) > MAX_TOLD:
        log.debug("a page of %r may not connect to %r", origin, host)
        return
    _told.add(origin)
    if len(_told) > MAX_TOLD:
        log.warning("pages of more than %d origins were refused: no more is said", MAX_TOLD)
        return
    log.warning(
        "a page of %r may not connect to %r: if it should, pass origins=[%r] (or "
        "trust_forwarded=True behind a proxy that sets X-Forwarded-Host and -Proto). This is said "
        "once for each origin",
        origin,
        host,
        origin,
    )


def check_limit(max_connections: int | None) -> None:
    """TypeError or ValueError for a wrong option ``max_connections``."""
    if max_connections is not None:
        check_size("max_connections", max_connections)


def check_room(max_connections: int | None) -> None:
    """HandshakeError with 503 if the process serves ``max_connections``; None for no limit."""
    if max_connections is None or served.count() < max_connections:
        return
    now = monotonic()
    if now - _told_full_at[0] >= TELL_AGAIN:
        _told_full_at[0] = now
        log.warning(
            "this process is full: it serves %d connections (max_connections=%d), and answers 503",
            served.count(),
            max_connections,
        )
    headers = (("Retry-After", str(RETRY_AFTER)),)
    raise refusal(503, "too many connections: try again later", headers)
