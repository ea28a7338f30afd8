"""URLs of WebSockets (RFC 6455 §3), of proxies and event streams, taken apart and checked."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urljoin, urlsplit

__all__ = ["HTTP_SCHEMES", "WEBSOCKET_SCHEMES", "Url", "parse_url", "resolve", "without_query"]

UNIX = "ws+unix"
WEBSOCKET_SCHEMES = ("ws", "wss", UNIX)
HTTP_SCHEMES = ("http", "https")

_PORTS = {UNIX: 0, "ws": 80, "wss": 443, "http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._~-]+)?")
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_SAFE = "!#$%&'()*+,/:;=?@[\\]^_`{|}~"  # characters that need no escape in a request line


@dataclass(frozen=True, repr=False)
class Url:
    """An address to connect to, and the target to request there.

    ``host`` is in its ASCII form, without brackets; ``authorization`` is the header that follows
    from the user and password of the URL; ``path`` is that of a Unix socket.
    """

    scheme: str
    host: str
    port: int
    target: str
    authorization: str = ""
    path: str = ""

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken there."""
        return self.scheme in ("wss", "https")

    @property
    def authority(self) -> str:
        """Host and port, in the form of CONNECT (RFC 9110 §7.1)."""
        return f"{self._host}:{self.port}"

    @property
    def host_header(self) -> str:
        """The host, with the port where it is not the scheme's own (RFC 6455 §4.1)."""
        return self._host if self.port == _PORTS.get(self.scheme) else self.authority

    @property
    def origin(self) -> tuple[str, str, int, str]:
        """Credentials are sent to this origin only."""
        return self.scheme, self.host, self.port, self.path

    @property
    def _host(self) -> str:
        # RFC 6874 §4: the zone of a link-local address has a meaning on this machine only, and is
        # not sent.
        host = self.host.partition("%")[0]
        return f"[{host}]" if ":" in host else host

    def __str__(self) -> str:
        """The URL, without user and password."""
        if self.path:
            return f"{UNIX}:{self.path}:{self.target}"
        return f"{self.scheme}://{self.host_header}{self.target}"

    def __repr__(self) -> str:
        return f"<Url {without_query(str(self))}>"


def parse_url(text: str, schemes: Iterable[str] = WEBSOCKET_SCHEMES) -> Url:
    """Take a URL apart; ValueError where it is none of ``schemes``, or malformed."""
    if not isinstance(text, str):
        raise TypeError("a URL is a str")
    if _CONTROL.search(text):
        raise ValueError("a URL has no control characters")
    whole = text.strip(" ").partition("#")[0]  # RFC 6455 §3: fragments mean nothing
    scheme = whole.partition(":")[0].lower()
    if scheme not in schemes:
        raise ValueError(f"this URL must begin with {', '.join(schemes)}: {_hide(whole)!r}")
    if scheme == UNIX:
        return _parse_unix(whole)
    split = urlsplit(whole)
    target = (split.path or "/") + (f"?{split.query}" if split.query else "")
    return Url(
        scheme=scheme,
        host=_parse_host(split),
        port=_parse_port(split),
        target=quote(target, safe=_SAFE),
        authorization=_parse_userinfo(split),
    )


def resolve(base: Url, location: str) -> Url:
    """The URL that a redirect from ``base`` names; for ws and wss it may say http and https."""
    joined = urljoin(str(base), location)
    if base.scheme in HTTP_SCHEMES:
        return parse_url(joined, HTTP_SCHEMES)
    scheme, colon, rest = joined.partition(":")
    scheme = {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme)
    return parse_url(f"{scheme}{colon}{rest}", ("ws", "wss"))


def _parse_unix(whole: str) -> Url:
    # ws+unix:/path/of/socket:/path/of/request
    rest = whole.partition(":")[2]
    if rest.startswith("//"):
        rest = rest[2:]
    path, _, target = rest.partition(":")
    if not path:
        raise ValueError("a ws+unix URL is ws+unix:/path/of/socket:/path/of/request")
    if not target.startswith("/"):
        target = f"/{target}"
    return Url(UNIX, "localhost", 0, quote(target, safe=_SAFE), "", unquote(path))


def _parse_host(split: SplitResult) -> str:
    host = split.hostname or ""
    if "%25" in host:  # RFC 6874
        host = host.replace("%25", "%", 1)
    try:
        ascii_host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_host = ""
    if not _HOST.fullmatch(ascii_host) or (":" in ascii_host) != ("[" in split.netloc):
        raise ValueError(f"a URL with a bad host: {host!r}")
    return ascii_host


def _parse_port(split: SplitResult) -> int:
    port = split.port  # ValueError where it is too large, or no number
    if port == 0:
        raise ValueError("there is no port 0")
    return port or _PORTS[split.scheme]


def _parse_userinfo(split: SplitResult) -> str:
    if split.username is None:
        return ""
    user = unquote_to_bytes(split.username)
    password = unquote_to_bytes(split.password or "")
    if b":" in user:  # RFC 7617 §2
        raise ValueError("a user name has no colon")
    if not user and not password:
        return ""
    return "Basic " + base64.b64encode(user + b":" + password).decode("ascii")


def _hide(url: str) -> str:
    # The text of an error may end in a log, which must have no passwords and tokens.
    return without_query(re.sub(r"//[^/?]*@", "//", url))


def without_query(url: str) -> str:
    """A URL for logs, errors and reprs: the query may hold a token."""
    return url.partition("?")[0]
