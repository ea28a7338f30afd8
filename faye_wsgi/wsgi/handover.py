"""The way of a request: out of its WSGI server's hands, into a ``Connection``.

A request goes this way once, for a WebSocket as for an EventSource:

1. read: ``Handover(request)`` finds the environ, and the framework of the response.
2. check and negotiate: ``negotiate`` makes a driver and the handshake's answer of it. A bad
   handshake takes nothing from the server: ``refuse`` makes its HTTP error.
3. take over: ``take_over`` moves the socket, and opens the ``Connection`` on it. Where it
   cannot be taken (``check_server``), an event stream goes through ``send_through`` instead.
4. learn that the view has ended: ``_view_ended`` gets the status of its response.

What serves the connection afterwards depends on the server.

- On greenlets (gunicorn's gevent workers, gevent.pywsgi) it is the hub, which runs for ever.
  The server is left with a ``Void``, which sees the status that the server writes, and calls
  ``_view_ended`` in the hub when the server closes it.
- On threads the hub runs only while the view waits for something. So the response is an iterable,
  and the server's thread serves the connection inside of it (``_serve``). A view that raises,
  or returns another response, never gets there, and no call reports that. So the server's
  environ carries a token, which is collected together with it (``_end_with_environ``). The
  danger is a reference to that environ, or to the request: as long as one of our objects has it,
  the token is not collected, and the connection stays without a thread.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import chain, repeat
from typing import Any, Callable

import gevent
from gevent import monkey

from faye_wsgi.driver import server_handshake
from faye_wsgi.driver.base import Driver, ReadyState
from faye_wsgi.driver.events import Event, EventType
from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.driver.hixie76 import find_handshake
from faye_wsgi.errors import HandshakeError
from faye_wsgi.http.origins import Origins
from faye_wsgi.transport import hubs, served, tally, watchdog
from faye_wsgi.transport.connection import Connection
from faye_wsgi.wsgi import debug, hints, worker
from faye_wsgi.wsgi.admission import PerUser, check_room, check_share, is_from_allowed_page
from faye_wsgi.wsgi.environ import Environ, environ_of, read_request, text_of, url_of
from faye_wsgi.wsgi.hijack import Void, VoidPair, take
from faye_wsgi.wsgi.responses import responses_for
from faye_wsgi.wsgi.routes import route_of
from faye_wsgi.wsgi.servers import UNDER_ASGI, check_http_version, find_place, is_asgi

__all__ = ["TOKEN_KEY", "Handover"]

log = logging.getLogger("faye_wsgi")

# A view that returns without listeners does so each time: the first time it is shown.
_hint_levels = chain([logging.INFO], repeat(logging.DEBUG))
# For metrics: the reasons of refusals by their status.
_REASONS = {400: "handshake", 403: "origin", 426: "upgrade", 429: "share", 503: "full"}
_IS_PATCHED_EARLY = monkey.is_module_patched("socket")


class Handover:
    """The way of one request.

    ``environ`` is the request's, later a copy of the text in it. ``response`` is what the view
    returns; None when the view has ended. ``after_listeners`` must run after each listener.

    ``needs_owner`` decides what happens where a view has returned and left no listeners. A
    WebSocket is closed, since nothing will ever deal with its messages. An EventSource may
    still be sent to, so it is closed when nothing refers to it any more.
    """

    __slots__ = (
        "_connection",
        "_endpoint",
        "_is_served_in_thread",
        "_needs_owner",
        "_responses",
        "_route",
        "_scheme",
        "_trust_forwarded",
        "environ",
        "owners",
        "response",
    )

    def __init__(
        self, request: Any, scheme: str, trust_forwarded: bool, needs_owner: bool = False
    ) -> None:
        self.environ = environ_of(request)
        self.response: Any = None
        self.owners: list[served.Owner] = []  # whose share of the connections it is in
        self._responses = responses_for(request)
        self._route = route_of(request, self.environ) if tally.is_on else ""
        self._scheme = scheme
        self._trust_forwarded = trust_forwarded
        self._needs_owner = needs_owner
        self._endpoint: Any = None
        self._connection: Any = None
        self._is_served_in_thread = False

    @property
    def url(self) -> str:
        """The URL that the client asked for."""
        return url_of(self.environ, self._scheme, self._trust_forwarded)

    @property
    def after_listeners(self) -> Callable[[], object] | None:
        """What must be called after each listener, for Django; None for all others."""
        return self._responses.after_listeners

    # Check and negotiate

    def negotiate(
        self,
        original: Any,
        *,
        protocols: server_handshake.Protocols,
        headers: Sequence[tuple[str, str]],
        extensions: Sequence[Any],
        max_length: int,
        max_fragments: int,
        origins: Origins,
        allow_drafts: bool,
        max_connections: int | None,
        max_per_address: int | None,
        max_per_user: PerUser | None,
    ) -> tuple[Driver, bytes]:
        """Check the opening handshake: the driver for its version, and the answer to send.

        ``original`` is the request as the view has it. It is not kept: see above.
        HandshakeError, with the HTTP error in it, where the handshake is bad, the origin may
        not connect or there is no room; HijackError where it came over HTTP/2.
        """
        request = read_request(self.environ)
        if request.method == "CONNECT" or "upgrade" in request.headers:
            check_http_version(self.environ)
        elif is_asgi(self.environ):
            _warn_asgi()
            raise server_handshake.refusal(426, UNDER_ASGI)
        draft = find_handshake(request) if allow_drafts else None
        if draft is not None:
            driver, answer = draft(
                request, url=self.url, protocols=protocols, headers=headers, max_length=max_length
            )
        else:
            driver, answer = server_handshake.handshake(
                request,
                protocols=protocols,
                headers=headers,
                max_length=max_length,
                max_fragments=max_fragments,
                extensions=extensions,
            )
        if not is_from_allowed_page(self.environ, origins, self._trust_forwarded):
            raise server_handshake.refusal(403, "this origin may not connect")
        self.check_room(original, max_connections, max_per_address, max_per_user)
        return driver, answer.encode()

    def check_room(
        self,
        original: Any,
        max_connections: int | None,
        max_per_address: int | None,
        max_per_user: PerUser | None,
    ) -> None:
        """HandshakeError with 503 or 429 where there is no room for this request's connection."""
        self.owners = check_share(original, max_per_address, max_per_user)
        check_room(max_connections)

    def refuse(self, connection: Connection, error: HandshakeError) -> None:
        """Answer a bad handshake with its HTTP error; ``connection`` has never opened."""
        if error.reason == server_handshake.STRIPPED:
            _warn_stripped()
        self._count_refusal(error)
        connection.fail(str(error.reason), error.code, str(error.reason))
        self.response = self._responses.error(self.environ, error, partial(_settle, connection))

    def refuse_stream(self, error: HandshakeError) -> None:
        """Answer with an HTTP error, where no connection has been made."""
        self._count_refusal(error)
        self.response = self._responses.error(self.environ, error, lambda: None)

    def _count_refusal(self, error: HandshakeError) -> None:
        reason = _REASONS.get(error.status_code or 0, str(error.status_code))
        tally.count(tally.REFUSED, (self._kind, self._route, reason))

    @property
    def _kind(self) -> str:
        return "websocket" if self._scheme == "ws" else "eventsource"

    # Take over

    def enter(self, end: Any) -> None:
        """Count a connection that begins, by the object that sees its end."""
        served.enter(end, self.owners)
        tally.enter(end, self._kind, self._route)

    def check_server(self) -> None:
        """HijackError where this server's socket cannot be taken."""
        find_place(self.environ)

    def send_through(self, headers: list[tuple[str, str]], body: Iterable[bytes]) -> None:
        """Leave the socket to the server, which sends what comes out of ``body``."""
        self.response = self._responses.stream(headers, body)

    def take_over(
        self, endpoint: Any, connection: Connection, driver: Driver, head: bytes, status: int
    ) -> None:
        """Take the socket from the server, and open ``connection`` on it with ``head``.

        The access log shows ``status``. RuntimeError where the socket has been taken before,
        HijackError where it cannot be.
        """
        try:
            taken = take(find_place(self.environ))
        except BaseException:
            connection.closing.discard()  # or it would keep the hub of this thread alive
            raise
        worker.watch()
        hints.give()
        self._endpoint, self._connection = endpoint, connection
        self.enter(connection.closing)
        connection.open(driver, taken.socket, head, taken.read_ahead)
        if isinstance(taken.void, Void):
            if not monkey.is_module_patched("socket"):
                _warn_unpatched()
            elif not _IS_PATCHED_EARLY:
                _warn_late()
            if debug.is_on():
                watchdog.watch(gevent.get_hub())
            taken.void.watch(partial(connection.guard, self._view_ended))
            self.response = self._responses.taken(status, None)
        else:
            self._is_served_in_thread = True
            token = _end_with_environ(self.environ, connection, taken.void)
            self.environ = own_environ(self.environ)
            self.response = self._responses.taken(status, lambda: self._serve(token()))

    def _serve(self, token: object) -> Iterator[bytes]:
        """What a threaded server iterates: it has no items, but ends with the connection.

        The generator holds ``token`` so long, for middleware may have passed on a copy of the
        environ, which is collected as soon as the view has returned.
        """
        self._view_ended(101)
        hubs.end_in_thread(self._connection)
        return
        yield b""

    # The view has ended

    def end_in_thread(self) -> None:
        """An exception leaves the view: wait for the end, if the view's thread serves it.

        The thread will not come back: the server does not iterate the response of a view that
        raised.
        """
        if self._is_served_in_thread:
            hubs.end_in_thread(self._connection)

    def close_failed(self) -> None:
        """Close with 1011: the view has failed without an exception."""
        if self._connection is not None:
            self._connection.close(CloseCode.INTERNAL_ERROR, "")

    def _view_ended(self, status: int | None) -> None:
        """The view has ended; ``status`` is that of its response, None where there was none."""
        endpoint, connection = self._endpoint, self._connection
        if endpoint is None:
            return  # the response was called twice
        # From here on the connection alone keeps its endpoint alive, and not even that does
        # where it needs an owner.
        self.response = self._endpoint = None
        state = connection.state
        if state != ReadyState.CLOSED:
            self.environ = text_of(self.environ)
        if has_failed(status):
            connection.close(CloseCode.INTERNAL_ERROR, "")
        elif endpoint.has_any_listeners:
            pass  # the listeners go on with the connection
        elif self._needs_owner:
            connection.dispatcher.sink = _WeakSink(endpoint)
            weakref.finalize(endpoint, connection.close).atexit = False
        elif state == ReadyState.OPEN:
            log.log(
                next(_hint_levels),
                "%r is closed with 1000: its view has returned, and it has no listeners. Register "
                "one before the view returns to keep it, or wait in the view",
                endpoint,
            )
            connection.close(CloseCode.NORMAL_CLOSURE, "")


@cache
def _warn_unpatched() -> None:
    log.warning(
        "this process runs on gevent without monkey patching: what blocks in one view (time.sleep, "
        "a database, an HTTP client) stops all connections. Put 'from gevent import monkey; "
        "monkey.patch_all()' before all other imports"
    )


@cache
def _warn_late() -> None:
    log.warning(
        "this process was monkey patched after faye_wsgi had been imported: what other modules had "
        "taken from time, socket, ssl or threading by then (from time import sleep) stops all "
        "connections. Put 'from gevent import monkey; monkey.patch_all()' before all other "
        "imports; for gunicorn with --preload, at the top of gunicorn.conf.py"
    )


@cache
def _warn_asgi() -> None:
    log.warning("WebSockets cannot be served: %s", UNDER_ASGI)


@cache
def _warn_stripped() -> None:
    log.warning(server_handshake.STRIPPED)


def has_failed(status: int | None) -> bool:
    """Whether a view has failed, by the status of its response: 5xx, or none at all.

    Every server that is known writes a status where the view returns. gunicorn writes none
    where it raises StopIteration, SystemExit or GreenletExit, or is killed; nor do servers
    with threads, where what it raises ends the thread.
    """
    return status is None or status >= 500


def _settle(connection: Connection) -> None:
    # In a plain thread the hub runs only while the thread waits. Without this, the listeners of a
    # refused WebSocket would never be called, and the hub never be destroyed.
    if hubs.is_alone():
        hubs.end_in_thread(connection)


class _WeakSink:
    """Passes a connection's events on to an endpoint, without keeping it alive."""

    __slots__ = ("_target",)

    def __init__(self, target: Any) -> None:
        self._target: Callable[[], Any] = weakref.ref(target)

    def __repr__(self) -> str:
        return repr(self._target())

    def has_listeners(self, type: EventType) -> bool:
        target = self._target()
        return target is not None and bool(target.has_listeners(type))

    def sole_listener(self, type: EventType) -> None:
        """None: the dispatcher would keep the listener, which may refer to the endpoint."""

    def dispatch(self, event: Event) -> None:
        target = self._target()
        if target is not None:
            target.dispatch(event)


# Threaded servers: the end of the environ

TOKEN_KEY = "faye_wsgi.request"
_PLAIN = (bool, int, tuple)


class _Token:
    """An object that can be referred to weakly, which a dict cannot."""

    __slots__ = ("__weakref__",)


def _end_with_environ(
    environ: Environ, connection: Connection, void: VoidPair
) -> weakref.ref[object]:
    """End ``connection``, if it has not ended yet, when the server drops ``environ``.

    The danger is a reference to the token from one of our objects: then the connection would stay
    for ever, without a thread that serves it. So the return value is a weak reference, and the
    endpoint gets ``own_environ``.
    """
    token = environ[TOKEN_KEY] = _Token()
    weakref.finalize(token, _environ_dropped, connection, void).atexit = False
    return weakref.ref(token)


def own_environ(environ: Environ) -> Environ:
    """The environ for an endpoint: the server's own, or a copy where that carries a token.

    The copy has the text, the numbers and the like, and no objects: any object may refer to
    the environ itself, as Werkzeug's request does.
    """
    if TOKEN_KEY not in environ:
        return environ
    plain = {key: value for key, value in environ.items() if type(value) in _PLAIN}
    return {**text_of(environ), **plain}


def _environ_dropped(connection: Connection, void: VoidPair) -> None:
    # This may run in any thread, and in the middle of anything, as garbage collection does.
    failed = has_failed(void.finish())
    code = CloseCode.INTERNAL_ERROR if failed else CloseCode.NORMAL_CLOSURE
    hubs.abandon(connection.closing, code)
    if not connection.is_elsewhere:
        hubs.release_hub()
