"""Client: a URL becomes a WebSocket."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Callable

from webob.headers import ResponseHeaders

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.client_handshake import RESERVED_HEADERS, ClientHandshake, Opened
from faye_wsgi.driver.events import Data
from faye_wsgi.driver.server_handshake import check_protocols
from faye_wsgi.endpoint import Endpoint
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.extensions.negotiation import Extensions, check_extensions
from faye_wsgi.http.headers import HeadersLike, check_headers
from faye_wsgi.http.url import Url, parse_url, without_query
from faye_wsgi.transport import dial, hubs
from faye_wsgi.transport.backoff import Backoff
from faye_wsgi.transport.opening import Opening, Pairs, ProxyOption, heals, prepare
from faye_wsgi.transport.settings import (
    Options,
    Settings,
    check_names,
    check_seconds,
    check_timeout,
    make_settings,
    takes_options,
)
from faye_wsgi.transport.tls import TlsOption
from faye_wsgi.wsgi import worker

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Client", "Reconnecting", "heals"]

log = logging.getLogger("faye_wsgi")

# Close codes that are no errors; None: it has not ended yet, or a draft has no codes.
_ORDINARY = (None, 1000, 1001, 1005, 1012)


class Client(Endpoint):
    """The client's side of a WebSocket, made from its URL.

    The constructor returns at once, and the connection is made in the background: with
    listeners, wait for ``open``; ``receive`` waits by itself, what is sent before is
    kept. ``with Client(url) as ws:`` waits until it is open, as ``wait_open`` does.
    """

    __slots__ = ("_headers", "_status_code", "_url")

    # Gives the socket to a server. The testing kit's client has one that is connected already.
    _dial = staticmethod(dial.dial)

    @takes_options
    def __init__(
        self,
        url: str,
        protocols: str | Iterable[str] | None = None,
        *,
        headers: HeadersLike = None,
        extensions: Extensions = (),
        proxy: ProxyOption = None,
        tls: TlsOption = None,
        ca: Any = None,
        max_redirects: int = 0,
        open_timeout: float | None = 10.0,
        **options: Unpack[Options],
    ) -> None:
        """Begin to connect to ``url``.

        :param url: ``ws://``, ``wss://`` or ``ws+unix:/path/of/socket:/path/of/request``.
            A user and password in it become Basic ``Authorization``.
        :param protocols: subprotocols to offer, best first.
        :param headers: dict or pairs added to the request.
        :param extensions: one extension, or several in the order of preference.
        :param proxy: the URL of an HTTP proxy (``http://user:password@host:port``, or
            ``https://``); or a dict of that ``origin``, ``headers`` and ``tls``; or
            'env', which reads HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
        :param tls: an ``ssl.SSLContext``; or a dict of ``ca`` (file, folder or PEM text),
            ``cert``, ``key`` (files), ``server_hostname`` and ``verify``. Certificates
            and host names are verified by default. For many connections make one context.
        :param ca: short for ``tls={'ca': ...}``.
        :param max_redirects: redirects to follow. Default 0. Credentials and headers of
            yours do not go to another origin, nor anything from ``wss://`` to ``ws://``.
        :param open_timeout: seconds until it must be open, all in all. Default 10.
        :param options: those of every connection, on a client as on a server, which
            :class:`faye_wsgi.transport.settings.Settings` describes.

        Raises TypeError and ValueError for wrong arguments, OSError for files of ``tls``
        that cannot be read. All other failures come as the ``error`` and ``close`` events,
        and as the HandshakeError that ``wait_open`` and ``receive`` raise.
        """
        settings, opening = _prepare(
            url,
            protocols,
            headers=headers,
            extensions=extensions,
            proxy=proxy,
            tls=tls,
            ca=ca,
            max_redirects=max_redirects,
            open_timeout=open_timeout,
            **options,
        )
        opening = replace(opening, reach=self._dial)
        worker.watch()
        hubs.watch_thread()
        super().__init__(replace(settings, awaits_server=True))
        self._url = str(opening.url)
        self._headers = ResponseHeaders()
        self._status_code: int | None = None
        dial.begin(self._connection, opening.run, open_timeout, self._opened, self._failed)

    @property
    def url(self) -> str:
        """The URL to which it connects."""
        return self._url

    @property
    def headers(self) -> ResponseHeaders:
        """The headers of the response (``ws.headers['Set-Cookie']``, in any case)."""
        return self._headers

    @property
    def status_code(self) -> int | None:
        """The status of the response: 101 when open; None before, and where none came."""
        return self._status_code

    def wait_open(self, timeout: float | None = None) -> None:
        """Wait until the connection is open.

        HandshakeError, with the ``status_code``, ``headers`` and start of the ``body`` of
        what was answered, if it did not open; TimeoutError after ``timeout`` seconds.
        """
        check_timeout(timeout)
        self._connection.wait_opened(timeout)
        if self._handshake_error is not None:
            raise self._handshake_error
        if self._status_code is None:
            code = self.close_code or 1006
            raise HandshakeError("the connection was closed before it was open", code=code)

    def receive(self, timeout: float | None = None) -> Data:
        try:
            return super().receive(timeout)
        except ConnectionClosed:
            if self._handshake_error is not None:  # connecting has failed while this waited
                raise self._handshake_error from None
            raise

    receive.__doc__ = Endpoint.receive.__doc__

    def __enter__(self) -> Client:
        """Wait until it is open: a block that ends before would close it, with nothing sent."""
        try:
            self.wait_open()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Close: with 1000, or with 1011 if an exception leaves the block.

        Outside a greenlet of gevent's this waits for the end, ``close_timeout`` seconds at
        most: there the hub runs only while something waits.
        """
        super().__exit__(kind, error, traceback)
        hubs.end_alone(self._connection)

    @classmethod
    def reconnecting(
        cls,
        url: str,
        protocols: str | Iterable[str] | None = None,
        *,
        first_delay: float = 1.0,
        max_delay: float = 60.0,
        retry: Callable[[HandshakeError], bool] = heals,
        **options: Any,
    ) -> Reconnecting:
        """Open connections, one after the other: ``for ws in Client.reconnecting(url):``.

        When the body of the loop has ended, its connection is closed and the next one is made.
        Before each new attempt there is a delay: ``first_delay`` seconds, twice that the next
        time, up to ``max_delay``, each cut by up to a half at random. A refusal for which
        ``retry(error)`` is false (by default any 4xx but 408, 425 and 429, and a certificate that
        is not valid) is raised as HandshakeError. All other failures are logged as a warning and
        tried again, without an end, and so are connections that end with an error code, from the
        second in a row.

        Leave the loop to stop, or call ``stop()`` of what this returns, from any thread: the
        connection is closed, and the loop ends after its body.
        """
        for name, seconds in (("first_delay", first_delay), ("max_delay", max_delay)):
            check_seconds(name, seconds)
        names = [name for name in signature(cls).parameters if name not in ("url", "protocols")]
        check_names(options, ["protocols", "first_delay", "max_delay", "retry", *names])
        offer = _check_offer(protocols)
        if options.get("headers") is not None:  # which may be an iterator
            options["headers"] = check_headers(options["headers"], RESERVED_HEADERS)
        options["extensions"] = check_extensions(options.get("extensions"))
        arguments = signature(Client).bind(url, offer, **options)
        arguments.apply_defaults()
        _prepare(**arguments.arguments)  # now, and not when the loop begins
        backoff = Backoff(first_delay, max_delay)
        return Reconnecting(lambda: cls(url, offer, **options), backoff, retry)

    def _opened(self, opened: Opened) -> None:
        self._status_code = opened.status_code
        self._headers = ResponseHeaders(opened.headers)

    def _failed(self, error: HandshakeError) -> None:
        if self.ready_state != ReadyState.CONNECTING:
            return  # closed meanwhile
        error.target = self
        self._handshake_error = error
        self._status_code = error.status_code
        self._headers = ResponseHeaders(error.headers)
        self._connection.fail(str(error.reason), error.code, str(error.reason))


class Reconnecting(Iterator[Client]):
    """Connections, one after the other, as ``Client.reconnecting`` makes them."""

    def __init__(
        self,
        connect: Callable[[], Client],
        backoff: Backoff,
        retry: Callable[[HandshakeError], bool],
    ) -> None:
        self._backoff = backoff
        self._made: list[Client] = []  # the latest one
        self._clients = _reconnect(connect, backoff, retry, self._made)

    def __next__(self) -> Client:
        return next(self._clients)

    def stop(self) -> None:
        """Close the connection, and make no more; any thread may call this."""
        # In this order: ``_reconnect`` enters a new connection, and then looks whether to stop.
        self._backoff.stop()
        for ws in self._made[:]:
            ws.close()


def _reconnect(
    connect: Callable[[], Client],
    backoff: Backoff,
    retry: Callable[[HandshakeError], bool],
    made: list[Client],
) -> Iterator[Client]:
    def report(delay: float) -> None:
        level = logging.INFO if failure is None and ended_badly < 2 else logging.WARNING
        reason = failure or f"closed with {ws.close_code}"
        shown = without_query(ws.url)
        log.log(level, "%s: %s: trying again in %.1f seconds", shown, reason, delay)

    ended_badly = 0  # how many in a row
    while not backoff.is_stopped:
        failure = None
        has_opened = False
        ws = connect()
        made[:] = [ws]
        try:
            if backoff.is_stopped:
                return
            ws.wait_open()
            has_opened = True
            backoff.opened()
            yield ws
        except HandshakeError as error:
            if backoff.is_stopped and not has_opened:
                return
            if error.target is not ws or not retry(error):
                raise
            failure = str(error)
        finally:
            # Before our own close, which has an ordinary code.
            is_bad = failure is None and ws.close_code not in _ORDINARY
            ended_badly = ended_badly + 1 if is_bad else 0
            ws.__exit__(None, None, None)
        if not backoff.is_stopped:
            backoff.wait(report)


# Options


def _prepare(
    url: str,
    protocols: str | Iterable[str] | None,
    *,
    headers: HeadersLike,
    extensions: Extensions,
    proxy: ProxyOption,
    tls: TlsOption,
    ca: Any,
    max_redirects: int,
    open_timeout: float | None,
    **options: Unpack[Options],
) -> tuple[Settings, Opening]:
    """The constructor's arguments, checked; nothing is connected yet."""
    settings = make_settings(**options)
    make_handshake = partial(
        _make_handshake,
        protocols=_check_offer(protocols),
        extensions=check_extensions(extensions),
        max_length=settings.max_length,
        max_fragments=settings.max_fragments,
    )
    opening = prepare(
        parse_url(url),
        make_handshake,
        headers=tuple(check_headers(headers, RESERVED_HEADERS)),
        proxy=proxy,
        tls=tls,
        ca=ca,
        max_redirects=max_redirects,
        open_timeout=open_timeout,
    )
    return settings, opening


def _make_handshake(url: Url, headers: Pairs, **options: Any) -> ClientHandshake:
    return ClientHandshake(url, headers=headers, **options)


def _check_offer(protocols: str | Iterable[str] | None) -> list[str]:
    if callable(protocols):
        raise TypeError("a client offers subprotocols: their names, no function")
    offer = check_protocols(protocols)
    assert isinstance(offer, list)
    if len(set(offer)) < len(offer):  # RFC 6455 §4.1
        raise ValueError("a subprotocol is offered twice")
    return offer
