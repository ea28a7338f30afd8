"""What our URLs of engines have, and those of their clients do not: options, and several hosts."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode

__all__ = ["ENCODE", "Address", "split_hosts", "take_options", "truth"]

Address = tuple[str, int]

# No part of a URL is shown that cannot be read: it may be a part of the password.
ENCODE = "Percent-encode the user and the password: %2F for /, %3F for ?, %23 for #, %40 for @"

_URL = re.compile(r"(\w+)\+\w+://(?:([^/?#]*)@)?([^/?#@]*)(.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")


def take_options(url: str, *names: str) -> tuple[str, dict[str, str]]:
    """A URL without some options of its query, and these."""
    base, mark, text = url.partition("?")
    query = parse_qsl(text, keep_blank_values=True)
    others = [(name, value) for name, value in query if name not in names]
    ours = {name: value for name, value in query if name in names}
    # libpq takes a plus sign for itself.
    return f"{base}?{urlencode(others, quote_via=quote)}" if others else base, ours


def truth(text: str) -> bool:
    """The value of an option that is true or false; ValueError."""
    if text.lower() not in ("0", "1", "false", "true", "no", "yes"):
        raise ValueError(f"this is neither true nor false: {text!r}")
    return text.lower() in ("1", "true", "yes")


def split_hosts(url: str, port: int) -> tuple[list[Address], str, str]:
    """The hosts of ``redis+kind://user:password@host:port,host:port/path?query``.

    Then the same URL as far as it is the same for all (``redis://user:password@``), and what
    follows the hosts. ``port`` is that of hosts without one. Raises ValueError.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("the URL is not like redis+cluster://host:port,host:port")
    scheme, user, hosts, rest = match.groups()
    start = f"{scheme}://" if user is None else f"{scheme}://{user}@"
    return [_address(host, port) for host in hosts.split(",")], start, rest


def _address(text: str, port: int) -> Address:
    match = _HOST.fullmatch(text)
    if match is None or int(match[3] or port) > 65535:
        raise ValueError(f"the URL has what is not a host, or host:port. {ENCODE}")
    return match[1] or match[2], int(match[3] or port)
