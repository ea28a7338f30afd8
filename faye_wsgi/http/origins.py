"""Which pages may connect: the ``Origin`` header, RFC 6455 §10.2 and RFC 6454.

Browsers send cookies with every handshake, from a page of any site. So a server that does not look
at ``Origin`` is open to cross-site hijacking.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import Pattern
from typing import Union

__all__ = ["Origins", "check_origins", "is_allowed"]

Origins = Union[str, Iterable[Union[str, Pattern[str]]], None]

_OPAQUE = "null"  # RFC 6454 §7.1: a page of a file, or in a sandbox
_ANY = "'*' is no origin: write origins=None, which lets the pages of any site connect"
_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?"
)


def check_origins(origins: Origins) -> Origins:
    """The option ``origins``, ready for :func:`is_allowed`; ValueError if it is none."""
    if origins is None or origins == "same":
        return origins
    if isinstance(origins, str):
        if origins == "*":
            raise ValueError(_ANY)
        raise ValueError(
            f"origins={origins!r} is no list: write origins=[{origins!r}], or 'same', or None "
            "for the pages of any site"
        )
    origins = tuple(origins)
    for origin in origins:
        if origin == "*":
            raise ValueError(_ANY)
        if isinstance(origin, re.Pattern) and isinstance(origin.pattern, str):
            continue
        if not isinstance(origin, str) or (origin != _OPAQUE and _parse(origin) is None):
            raise ValueError(
                f"{origin!r} is no origin: write scheme://host, scheme://host:port, null or "
                "a compiled pattern"
            )
    return origins


def is_allowed(origin: str | None, host: str, origins: Origins, is_secure: bool = False) -> bool:
    """Whether a page from ``origin`` may connect to ``host`` (a ``Host`` header's value).

    A request without an origin passes: it does not come from a browser. ``is_secure`` says that
    the client speaks TLS. Then a page of ``http://host`` is not the same: an attacker in the
    network can write that page, and the cookies of ``https://host`` come with its handshake.
    Without ``is_secure`` a page of ``https://host`` passes, too: TLS may end at a proxy.
    """
    if origin is None or origins is None:
        return True
    if isinstance(origins, str):
        return _is_same(origin, host, is_secure)
    parsed = _parse(origin)
    for allowed in origins:
        if isinstance(allowed, str):
            if allowed == origin or (parsed is not None and _parse(allowed) == parsed):
                return True
        elif allowed.fullmatch(origin):
            return True
    return False


def _is_same(origin: str, host: str, is_secure: bool) -> bool:
    # A Host without a port means the default one of the page's scheme: behind a proxy
    # that ends TLS, ours is http while the page's is https.
    parsed = _parse(origin)
    return (
        parsed is not None
        and parsed[0] in (("https",) if is_secure else _PORTS)
        and parsed == _parse(f"{parsed[0]}://{host.strip()}")
    )


def _parse(origin: str) -> tuple[str, str, int | None] | None:
    match = _ORIGIN.fullmatch(origin)
    if not match or int(match.group(3) or 0) > 65535:
        return None
    scheme, host, port = match.groups()
    scheme = scheme.lower()
    return scheme, host.lower().removesuffix("."), int(port) if port else _PORTS.get(scheme)
