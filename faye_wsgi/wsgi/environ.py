"""Reading a WSGI environ: the kind of the request, its headers, its host and URL."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from faye_wsgi.http.headers import split_list
from faye_wsgi.http.messages import Request

__all__ = [
    "Environ",
    "environ_of",
    "host_of",
    "is_eventsource",
    "is_websocket",
    "read_request",
    "text_of",
    "url_of",
]

Environ = dict[str, Any]
MAX_KEPT = 16384  # bytes
_KEPT_FIRST = (
    "REQUEST_METHOD",
    "SERVER_PROTOCOL",
    "wsgi.url_scheme",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "SERVER_NAME",
    "SERVER_PORT",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REMOTE_USER",
    "HTTP_HOST",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_SCHEME",
    "HTTP_X_FORWARDED_SSL",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_ORIGIN",
    "HTTP_COOKIE",
    "HTTP_SEC_WEBSOCKET_PROTOCOL",
    "HTTP_SEC_WEBSOCKET_EXTENSIONS",
    "HTTP_SEC_WEBSOCKET_VERSION",
    "HTTP_SEC_WEBSOCKET_KEY",
    "HTTP_CONNECTION",
    "HTTP_UPGRADE",
    "HTTP_AUTHORIZATION",
    "HTTP_LAST_EVENT_ID",
    "HTTP_USER_AGENT",
)
# All connections share one copy of these names and values. No others are shared by
# ``sys.intern``: a client chooses them, and CPython 3.12.0 to 3.12.4 never frees an interned
# string. A client could fill the memory.
_KNOWN = {
    text: text
    for text in (
        *_KEPT_FIRST,
        "GATEWAY_INTERFACE",
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_ACCEPT_LANGUAGE",
        "HTTP_CACHE_CONTROL",
        "HTTP_PRAGMA",
        "HTTP_REFERER",
        "HTTP_SEC_FETCH_DEST",
        "HTTP_SEC_FETCH_MODE",
        "HTTP_SEC_FETCH_SITE",
        "HTTP_X_REAL_IP",
        "RAW_URI",
        "REMOTE_HOST",
        "REQUEST_URI",
        "SERVER_SOFTWARE",
        *("GET", "HTTP/1.1", "http", "https", "websocket", "Upgrade", "13", "no-cache"),
        *("127.0.0.1", "CGI/1.1"),
    )
}
_PATH = "/:@!$&'()*+,;=~"  # RFC 3986 §3.3: what may stand in a path as it is


def environ_of(request: Any) -> Environ:
    """The environ of an environ, or of a WebOb, Werkzeug, Flask or Django request."""
    if isinstance(request, dict):
        return request
    environ = getattr(request, "environ", None) or getattr(request, "META", None)
    if isinstance(environ, dict):
        return environ
    raise TypeError(f"neither a WSGI environ nor a request with one: {type(request).__name__}")


def read_request(environ: Environ) -> Request:
    """The environ's request line and headers, as the handshake reads them."""
    headers = _Headers(environ)
    has_body = environ.get("CONTENT_LENGTH") not in (None, "", "0")
    return Request(
        method=environ.get("REQUEST_METHOD", ""),
        headers=headers,
        http_version=environ.get("SERVER_PROTOCOL", ""),
        has_body=has_body or "transfer-encoding" in headers,
    )


class _Headers(Mapping[str, str]):
    """The headers of an environ by their lower-case names.

    It reads the environ and copies nothing, since a handshake needs only a few headers.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return str(value)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a header."""
        value = self._environ.get(_key_of(name))
        return value if isinstance(value, str) else default

    def __contains__(self, name: object) -> bool:
        return self.get(str(name)) is not None

    def __iter__(self) -> Iterator[str]:
        for key, value in self._environ.items():
            if key.startswith("HTTP_") and isinstance(value, str):
                yield key[5:].replace("_", "-").lower()

    def __len__(self) -> int:
        return sum(1 for _ in self)


@lru_cache(maxsize=64)
def _key_of(name: str) -> str:
    return "HTTP_" + name.replace("-", "_").upper()


def text_of(environ: Environ) -> Environ:
    """The text in an environ, which is kept when the view has returned.

    A server's and a framework's objects in it take more room than a connection. So do all the
    headers that a client may send. So 16 KiB are kept at most, names and values as they are
    stored, in this order: the request line, the server, the remote address; Host, Origin,
    Cookie and the other headers of a handshake; all that is no header; all other headers. What
    does not fit is left out as a whole, name and value.
    """
    kept: Environ = {}
    room = MAX_KEPT
    others = [key for key in environ if not key.startswith("HTTP_")]
    for key in (*_KEPT_FIRST, *others, *environ):
        value = environ.get(key)
        if type(value) is str and key not in kept:
            size = sys.getsizeof(key) + sys.getsizeof(value)
            if size <= room:
                room -= size
                kept[_KNOWN.get(key, key)] = _KNOWN.get(value, value)
    return kept


def is_websocket(request: Any) -> bool:
    """Whether this request asks for a WebSocket; an HTTP/2 request never does."""
    environ = environ_of(request)
    return (
        environ.get("REQUEST_METHOD") == "GET"
        and "upgrade" in _tokens(environ, "HTTP_CONNECTION")
        and "websocket" in _tokens(environ, "HTTP_UPGRADE")
        and str(environ.get("SERVER_PROTOCOL", "HTTP/1.1")).startswith("HTTP/1.")
    )


def is_eventsource(request: Any) -> bool:
    """Whether this request asks for an event stream (WHATWG HTML §9.2)."""
    environ = environ_of(request)
    accepted = (item.partition(";")[0].strip() for item in _tokens(environ, "HTTP_ACCEPT"))
    return environ.get("REQUEST_METHOD") == "GET" and "text/event-stream" in accepted


def is_secure(environ: Environ, trust_forwarded: bool = False) -> bool:
    """Whether the client speaks TLS to us, or to a proxy that is trusted to say so."""
    if environ.get("wsgi.url_scheme") == "https":
        return True
    if not trust_forwarded:
        return False
    schemes = _tokens(environ, "HTTP_X_FORWARDED_PROTO") + _tokens(
        environ, "HTTP_X_FORWARDED_SCHEME"
    )
    return bool({"https", "wss"}.intersection(schemes[:1])) or (
        environ.get("HTTP_X_FORWARDED_SSL", "").lower() == "on"
    )


def host_of(environ: Environ, trust_forwarded: bool = False) -> str:
    """The host, and the port where one was named, that the client asked for."""
    forwarded = environ.get("HTTP_X_FORWARDED_HOST", "") if trust_forwarded else ""
    hosts = split_list(forwarded) if forwarded else ()
    host: str = hosts[0] if hosts else environ.get("HTTP_HOST", "")
    if host:
        return host
    return f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"


def url_of(environ: Environ, scheme: str, trust_forwarded: bool = False) -> str:
    """The request's URL; ``scheme`` is that of a plain one, and gets an s for a secure one."""
    scheme += "s" if is_secure(environ, trust_forwarded) else ""
    # PEP 3333: a server decodes the bytes of the path as ISO 8859-1.
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    query = environ.get("QUERY_STRING", "")
    tail = f"?{query}" if query else ""
    return f"{scheme}://{host_of(environ, trust_forwarded)}{quote(path, _PATH) or '/'}{tail}"


def _tokens(environ: Environ, key: str) -> list[str]:
    return [item.lower() for item in split_list(environ.get(key, ""))]
