"""WebSocket: a WSGI environ becomes a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, ClassVar, cast

from faye_wsgi.driver import server_handshake
from faye_wsgi.endpoint import Endpoint
from faye_wsgi.errors import HandshakeError, is_end_of
from faye_wsgi.extensions.negotiation import Extensions, check_extensions
from faye_wsgi.http.headers import HeadersLike, check_headers
from faye_wsgi.http.origins import Origins, check_origins
from faye_wsgi.transport import checks
from faye_wsgi.transport.settings import Options, Settings, make_settings, takes_options
from faye_wsgi.wsgi.admission import PerUser, check_limits
from faye_wsgi.wsgi.environ import is_websocket
from faye_wsgi.wsgi.handover import Handover

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["WebSocket"]


class _Lazy:
    """A class attribute that is loaded when it is first used."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load

    def __get__(self, instance: object, owner: type) -> Any:
        return self._load()


def _client() -> Any:
    from faye_wsgi.client import Client

    return Client


def _eventsource() -> Any:
    from faye_wsgi.eventsource import EventSource

    return EventSource


class WebSocket(Endpoint):
    """The server's side of a WebSocket, made from the request that asks for it.

    The constructor answers the opening handshake and takes the connection from the
    server. A bad handshake does not raise: the object is CLOSED from the start, and its
    ``response`` is the HTTP error for the server to send.

    ``environ`` is the request's environ. Where the connection lives on when the view has
    returned, only its text (the path, the headers, ...) is kept, at most 16 KiB: headers that
    have nothing to do with the handshake are left out first. On threaded servers that is so
    from the start.
    """

    __slots__ = ("_handover",)

    # As in faye. A server that opens no connections of its own never loads the client.
    Client: ClassVar[Any] = _Lazy(_client)
    EventSource: ClassVar[Any] = _Lazy(_eventsource)

    is_websocket = staticmethod(is_websocket)

    @takes_options
    def __init__(
        self,
        request: Any,
        protocols: server_handshake.Protocols = None,
        *,
        extensions: Extensions = (),
        headers: HeadersLike = None,
        origins: Origins = "same",
        trust_forwarded: bool = False,
        allow_drafts: bool = False,
        max_connections: int | None = None,
        max_per_address: int | None = None,
        max_per_user: PerUser | None = None,
        check: Callable[[WebSocket], object] | None = None,
        check_every: float = 30,
        **options: Unpack[Options],
    ) -> None:
        """Answer the handshake of ``request``: an environ, or a request that has one.

        :param protocols: the subprotocols that we speak: names, a comma string, or a
            function that gets the client's list and returns one of them or None.
        :param extensions: one extension, or several in the order of preference.
        :param headers: dict or pairs added to the response.
        :param origins: 'same' (default): a page must come from this host; a list of
            origins (``https://example.com``) or compiled patterns; None for any page.
        :param trust_forwarded: believe ``X-Forwarded-Host`` and ``-Proto``: only behind
            a proxy that sets them.
        :param allow_drafts: accept the drafts hixie-75 and hixie-76, too. Default False.
        :param max_connections: WebSockets and event streams that this process serves, of all
            endpoints, from which on a handshake gets 503. Default None: no limit.
        :param max_per_address: the same for one ``REMOTE_ADDR``, above which it gets 429. Default
            None: no limit.
        :param max_per_user: the same for one user: a number, and a function of the request that
            returns the user's name, or None for no limit: ``(5, lambda request: ...)``.
        :param check: ``check(ws)`` is asked again and again whether this connection may go on; a
            false value closes it with 4401. It runs as a listener does, one after the other of
            this worker. If it raises, that is logged, and the connection goes on.
        :param check_every: the most seconds between two checks; each time up to a quarter less,
            at random. Default 30.
        :param options: those of every connection, on a server as on a client, which
            :class:`faye_wsgi.transport.settings.Settings` describes.

        Raises TypeError and ValueError for wrong arguments, HijackError if the server's socket
        cannot be taken, and RuntimeError if this request's connection has been taken before: a
        request has one WebSocket or EventSource.
        """
        check_limits(max_connections, max_per_address, max_per_user)
        checks.check_options(check, check_every)
        settings, arguments = _check(protocols, extensions, headers, origins, options)
        handover = Handover(request, "ws", trust_forwarded)
        super().__init__(settings)
        self._handover = handover
        self._after_listeners = handover.after_listeners
        try:
            driver, answer = handover.negotiate(
                request,
                allow_drafts=allow_drafts,
                max_connections=max_connections,
                max_per_address=max_per_address,
                max_per_user=max_per_user,
                **arguments,
            )
        except HandshakeError as error:
            error.target = self
            self._handshake_error = error
            handover.refuse(self._connection, error)
        else:
            handover.take_over(self, self._connection, driver, answer, 101)
            if check is not None:
                self._ask_every(check_every, check, self._connection.clock)

    @staticmethod
    def check_options(
        *,
        protocols: Any,
        extensions: Any,
        headers: Any,
        origins: Any,
        max_connections: Any,
        max_per_address: Any,
        max_per_user: Any,
        check: Any,
        check_every: Any,
        **options: Any,
    ) -> None:
        """TypeError or ValueError for arguments that the constructor would not take.

        All of its arguments are given, but for the request.
        """
        for flag in ("trust_forwarded", "allow_drafts"):
            del options[flag]
        check_limits(max_connections, max_per_address, max_per_user)
        checks.check_options(check, check_every)
        _check(protocols, extensions, headers, origins, cast(Options, options))

    @property
    def environ(self) -> dict[str, Any]:
        """The request's environ; only text of it where the connection outlives its view."""
        return self._handover.environ

    @property
    def url(self) -> str:
        """The URL that the client asked for: ``ws://`` or ``wss://``."""
        return self._handover.url

    @property
    def response(self) -> Any:
        """What the view returns: a WSGI application, or Django's response to its request.

        It is always safe to return: what the server writes does not reach the client,
        and the access log shows 101. Where the handshake failed, it is the HTTP error.
        """
        return self._handover.response

    def _refuse(self, seconds: float) -> None:
        self.close(checks.CODE, checks.REASON)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        """Close: with 1000, or with 1011 if an exception leaves the block.

        A ConnectionClosed of this WebSocket does not leave it: that is the ordinary end.
        """
        if is_end_of(self, error):
            self.close()
            return True
        super().__exit__(kind, error, traceback)
        if error is not None:
            self._handover.end_in_thread()
        return False


def _check(
    protocols: server_handshake.Protocols,
    extensions: Extensions,
    headers: HeadersLike,
    origins: Origins,
    options: Options,
) -> tuple[Settings, dict[str, Any]]:
    """The options, checked: the connection's, and those that the handshake needs."""
    settings = make_settings(**options)
    return settings, {
        "protocols": server_handshake.check_protocols(protocols),
        "headers": check_headers(headers, server_handshake.RESERVED_HEADERS),
        "extensions": check_extensions(extensions),
        "max_length": settings.max_length,
        "max_fragments": settings.max_fragments,
        "origins": check_origins(origins),
    }
