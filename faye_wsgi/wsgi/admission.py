"""Which requests may connect: those of the right pages, while there is room for them.

Clients decide how often they are refused. So the log says little of it: one WARNING for each
origin, and one a minute while the process is full.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, Callable

from faye_wsgi.driver.server_handshake import refusal
from faye_wsgi.http.origins import Origins, is_allowed
from faye_wsgi.transport import served
from faye_wsgi.transport.settings import check_size
from faye_wsgi.wsgi.environ import Environ, environ_of, host_of, is_secure

__all__ = [
    "PerUser",
    "check_limits",
    "check_room",
    "check_share",
    "is_from",
    "is_from_allowed_page",
]

log = logging.getLogger("faye_wsgi")

RETRY_AFTER = 10  # seconds
TELL_AGAIN = 60.0  # seconds between two warnings that the process is full
MAX_TOLD = 100  # origins that are remembered
MAX_SHOWN = 200  # characters of an origin
PerUser = tuple[int, Callable[[Any], object]]  # a limit, and what names the user of a request

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


def check_limits(
    max_connections: int | None, max_per_address: int | None, max_per_user: PerUser | None
) -> None:
    """TypeError or ValueError for wrong options."""
    if max_connections is not None:
        check_size("max_connections", max_connections)
    if max_per_address is not None:
        check_size("max_per_address", max_per_address)
    if max_per_user is not None:
        if not isinstance(max_per_user, tuple) or len(max_per_user) != 2:
            raise TypeError("max_per_user is a number, and a function of the request: (5, user_of)")
        check_size("max_per_user", max_per_user[0])
        if not callable(max_per_user[1]):
            raise TypeError("max_per_user has a function of the request, which names its user")


def check_share(
    request: Any, max_per_address: int | None, max_per_user: PerUser | None
) -> list[served.Owner]:
    """The owners of a new connection; HandshakeError with 429 if one has as many as it may."""
    found: list[tuple[str, object, int]] = []
    if max_per_user is not None:  # first: it may wait, and the count must be that of now
        most, user_of = max_per_user
        found.append(("user", user_of(request), most))
    if max_per_address is not None:
        found.append(("address", environ_of(request).get("REMOTE_ADDR"), max_per_address))
    owners = []
    for kind, name, most in found:
        if name is None or name == "":
            continue  # not logged in; a Unix socket
        owner = (kind, str(name))
        if served.count(owner) >= most:
            headers = (("Retry-After", str(RETRY_AFTER)),)
            raise refusal(429, f"too many connections of one {kind}: try again later", headers)
        owners.append(owner)
    return owners


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
