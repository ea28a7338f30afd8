"""Opening a connection from a URL: the options of all clients, and the redirects.

An ``Opening`` has all that an attempt needs. ``run`` makes attempts until one succeeds, and a
redirect makes a new Opening. The danger is a redirect to another origin: credentials, headers of
the user and certificates must not go there, and nothing may go from TLS to plain TCP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Callable, Union
from urllib.request import getproxies_environment, proxy_bypass

from faye_wsgi.errors import HandshakeError
from faye_wsgi.http.headers import check_headers
from faye_wsgi.http.proxy import RESERVED_PROXY_HEADERS, ProxyHandshake
from faye_wsgi.http.url import HTTP_SCHEMES, Url, parse_url, resolve, without_query
from faye_wsgi.transport import dial
from faye_wsgi.transport.settings import check_seconds, check_size
from faye_wsgi.transport.tls import ClientTls, TlsOption, make_client_tls

__all__ = ["Opening", "Pairs", "ProxyOption", "heals", "prepare"]

ProxyOption = Union[str, Mapping[str, Any], None]
Pairs = tuple[tuple[str, str], ...]

_REDIRECTS = (301, 302, 303, 307, 308)
# RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4: the only 4xx that ask the client to try again.
_HEALING = (408, 425, 429)
# The headers that are sent on to another origin after a redirect: others may be secrets.
_HARMLESS = ("accept-language", "origin", "user-agent")


def heals(error: HandshakeError) -> bool:
    """Whether it makes sense to try again.

    Not after a 4xx, but for 408, 425 and 429; nor where a certificate was refused.
    """
    if dial.is_unverified(error):
        return False
    status = error.status_code or 0
    return not 400 <= status < 500 or status in _HEALING


def prepare(
    url: Url,
    make_handshake: Callable[[Url, Pairs], Any],
    *,
    headers: Pairs,
    proxy: ProxyOption,
    tls: TlsOption,
    ca: Any,
    max_redirects: int,
    open_timeout: float | None,
) -> Opening:
    """The options of a client, checked; nothing is connected yet.

    ``make_handshake(url, headers)`` makes the request of each attempt, as a step of
    ``dial.exchange``. TypeError, ValueError and OSError as of ``Client``.
    """
    check_seconds("open_timeout", open_timeout)
    if max_redirects != 0:
        check_size("max_redirects", max_redirects)
    tls = _merge_ca(tls, ca)
    opening = Opening(
        url=url,
        make_handshake=make_handshake,
        headers=headers,
        proxy=_check_proxy(proxy, url),
        tls_option=tls,
        tls=make_client_tls(tls) if tls is not None or url.secure else None,
        redirects=max_redirects,
    )
    opening.check()
    return opening


@dataclass(frozen=True, repr=False)
class Opening:
    """All that is needed to open a connection; each redirect makes a new one.

    Its repr does not show the fields: gevent logs a greenlet with its function, and the headers
    may have secrets.
    """

    url: Url
    make_handshake: Callable[[Url, Pairs], Any]
    headers: Pairs
    proxy: Callable[[Url], dial.Proxy | None]
    tls_option: TlsOption
    tls: ClientTls | None
    redirects: int
    reach: Callable[..., Any] = dial.dial  # makes the connection

    def check(self) -> None:
        """ValueError for a request that could not be sent."""
        self.make_handshake(self.url, self.headers)
        proxy = self.proxy(self.url)
        if proxy is not None:
            ProxyHandshake(proxy.url, self.url, proxy.headers)

    def run(self) -> tuple[Any, Any]:
        """The socket, and the result of the handshake on it; HandshakeError."""
        opening = self
        while True:
            try:
                return opening._attempt()
            except HandshakeError as error:
                opening = opening._redirected(error)

    def _attempt(self) -> tuple[Any, Any]:
        handshake = self.make_handshake(self.url, self.headers)
        sock = self.reach(self.url, self._client_tls, self.proxy(self.url))
        return sock, dial.shake_hands(sock, handshake)

    def _client_tls(self) -> ClientTls:
        return self.tls or make_client_tls()

    def _redirected(self, error: HandshakeError) -> Opening:
        """The opening that ``error`` redirects to; raises ``error`` if there is none."""
        location = error.headers.get("location")
        if error.status_code not in _REDIRECTS or not location or not self._follows(error):
            raise error
        try:
            url = resolve(self.url, location)
        except ValueError as reason:
            raise _changed(error, f"the redirect cannot be followed: {reason}") from None
        shown = without_query(str(url))
        if self.url.secure and not url.secure:
            raise _changed(error, f"the redirect to {shown} would lose TLS")
        here = replace(self, url=url, redirects=self.redirects - 1)
        if url.origin != self.url.origin:
            if url.secure and not isinstance(self.tls_option, (Mapping, type(None))):
                raise _changed(error, f"no SSLContext goes with a redirect to {shown}")
            return here._without_secrets()
        if not url.authorization:
            url = replace(url, authorization=self.url.authorization)
        return replace(here, url=url)

    def _follows(self, error: HandshakeError) -> bool:
        # A refusal with another code than 1002 comes from the proxy. Its redirects are not the
        # server's, and are not followed.
        if self.url.path or error.code != 1002 or self.redirects < 0:
            return False
        if self.redirects == 0:
            error.reason = f"{error.reason}: a redirect, and max_redirects allows no more"
            return False
        return True

    def _without_secrets(self) -> Opening:
        """The same for another origin, without the credentials and headers for the first one."""
        headers = tuple(pair for pair in self.headers if pair[0].lower() in _HARMLESS)
        tls = self.tls
        if isinstance(self.tls_option, Mapping):
            option = {k: v for k, v in self.tls_option.items() if k in ("ca", "verify")}
            tls = make_client_tls(option)
        return replace(self, headers=headers, tls=tls, tls_option=None)


def _changed(error: HandshakeError, reason: str) -> HandshakeError:
    return HandshakeError(
        reason, status_code=error.status_code, headers=error.headers, body=error.body
    )


def _merge_ca(tls: TlsOption, ca: Any) -> TlsOption:
    if ca is None:
        return tls
    if tls is not None and not isinstance(tls, Mapping):
        raise TypeError("ca goes with a dict of tls options: give yours to the SSLContext")
    return {"ca": ca, **(tls or {})}


def _check_proxy(proxy: ProxyOption, url: Url) -> Callable[[Url], dial.Proxy | None]:
    """The option as a function: with 'env', a redirect may need another proxy."""
    if proxy is None:
        return lambda url: None
    if proxy == "env":
        return _proxy_of_environment
    if url.path:
        raise ValueError("there is no proxy to a Unix socket")
    fixed = _make_proxy(proxy)
    return lambda url: fixed


def _make_proxy(proxy: str | Mapping[str, Any]) -> dial.Proxy:
    options: dict[str, Any] = {"origin": proxy} if isinstance(proxy, str) else dict(proxy)
    unknown = options.keys() - {"origin", "headers", "tls"}
    if unknown:
        raise TypeError(f"proxy has no option {sorted(unknown)[0]!r}")
    if "origin" not in options:
        raise ValueError("a proxy needs its origin")
    url = parse_url(options["origin"], HTTP_SCHEMES)
    headers = check_headers(options.get("headers"), RESERVED_PROXY_HEADERS)
    tls = make_client_tls(options.get("tls")) if url.secure else None
    return dial.Proxy(url, tuple(headers), tls)


def _proxy_of_environment(url: Url) -> dial.Proxy | None:
    if url.path:
        return None
    proxies = getproxies_environment()
    origin = proxies.get("https" if url.secure else "http") or proxies.get("all")
    if not origin or proxy_bypass(url.host if ":" in url.host else url.authority):
        return None
    return _make_proxy(origin if "://" in origin else f"http://{origin}")
