"""EventSource: a WSGI environ becomes a one-way stream of events (WHATWG HTML §9.2)."""

from __future__ import annotations

import logging
from functools import cache, partial
from random import uniform
from typing import Any, Callable
from urllib.parse import parse_qs

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.eventstream import (
    EventStream,
    encode_comment,
    encode_event,
    encode_retry,
    response,
)
from faye_wsgi.endpoint import EventTarget, handler
from faye_wsgi.errors import HandshakeError, HijackError, is_end_of
from faye_wsgi.http.headers import HeadersLike
from faye_wsgi.http.url import without_query
from faye_wsgi.transport import checks, hubs
from faye_wsgi.transport.connection import Connection
from faye_wsgi.transport.iterable import Body, IterableStream
from faye_wsgi.transport.settings import (
    Settings,
    check_seconds,
    check_timeout,
    make_settings,
    takes_options,
)
from faye_wsgi.wsgi.admission import PerUser, check_limits
from faye_wsgi.wsgi.environ import is_eventsource
from faye_wsgi.wsgi.handover import Handover

__all__ = ["EventSource"]

log = logging.getLogger("faye_wsgi")


class EventSource(EventTarget):
    """A stream of server-sent events to one client.

    Send from the view, or return ``es.response`` and send from elsewhere. When the view has
    returned, the stream lives on as long as something refers to the object, or it has
    listeners. The client's disconnect is noticed at once, without a write.

    Where the server's socket cannot be taken (HTTP/2, an unknown server), the same
    object streams through the WSGI iterable of its response. There, nothing goes out
    before the view has returned (1 MiB is kept, then ``send`` raises RuntimeError), and
    a client that has gone is noticed only when something is sent, a ping at the latest.

    A HEAD request is answered with the head alone; its stream is closed from the start.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_connection",
        "_handover",
        "last_event_id",
    )

    CONNECTING, OPEN, CLOSING, CLOSED = ReadyState
    EVENTS = frozenset(("open", "drain", "error", "close"))

    onopen = handler("open")
    ondrain = handler("drain")
    onerror = handler("error")
    onclose = handler("close")

    is_eventsource = staticmethod(is_eventsource)

    @takes_options
    def __init__(
        self,
        request: Any,
        *,
        headers: HeadersLike = None,
        retry: float | None = 5,
        ping: float | None = 10,
        high_water: int = Settings.high_water,
        close_timeout: float = Settings.close_timeout,
        send_timeout: float | None = Settings.send_timeout,
        last_event_id_param: str | None = None,
        trust_forwarded: bool = False,
        max_connections: int | None = None,
        max_per_address: int | None = None,
        max_per_user: PerUser | None = None,
        check: Callable[[EventSource], object] | None = None,
        check_every: float = 30,
    ) -> None:
        """Answer ``request``, an environ or a request that has one, with an event stream.

        :param headers: dict or pairs added to the response; they replace ours.
        :param retry: seconds after which the client connects again; default 5, None
            leaves it to the client. A worker that stops tells each client a random time from
            there to twice as much, so that not all of them come back at once.
        :param ping: seconds between comment lines that keep the connection alive; default
            10; None or 0 sends none.
        :param high_water: bytes waiting for the peer above which ``send`` blocks.
            Default 65536.
        :param close_timeout: seconds that the peer has to take what was sent before
            ``close``. Default 30.
        :param send_timeout: seconds that the peer may read nothing while bytes wait for it;
            then the stream is closed. Default 60; None or 0 waits for ever.
        :param last_event_id_param: a query parameter that gives ``last_event_id`` where
            the header does not (for clients that cannot set it).
        :param trust_forwarded: believe ``X-Forwarded-Host`` and ``-Proto`` in ``url``.
        :param max_connections: WebSockets and event streams that this process serves, of all
            endpoints, from which on the answer is 503, and the object is CLOSED from the start.
            Default None: no limit.
        :param max_per_address: the same for one ``REMOTE_ADDR``, above which it gets 429. Default
            None: no limit.
        :param max_per_user: the same for one user: a number, and a function of the request that
            returns the user's name, or None for no limit: ``(5, lambda request: ...)``.
        :param check: ``check(es)`` is asked again and again whether this stream may go on; a
            false value ends it, and tells the client not to come back at once. It runs as a
            listener does, one after the other of this worker. If it raises, that is logged, and
            the stream goes on.
        :param check_every: the most seconds between two checks; each time up to a quarter less,
            at random. Default 30.

        Raises TypeError and ValueError for wrong arguments, and RuntimeError where this
        request's connection has been taken before: a request has one WebSocket or EventSource.
        """
        check_limits(max_connections, max_per_address, max_per_user)
        settings = _check(retry, ping, close_timeout, send_timeout, high_water)
        checks.check_options(check, check_every)
        head = response(headers)
        retry_line = b"" if retry is None else encode_retry(retry)
        super().__init__()
        handover = Handover(request, "http", trust_forwarded, needs_owner=True)
        self._handover = handover
        self._after_listeners = handover.after_listeners
        self.last_event_id = _last_event_id(handover.environ, last_event_id_param)
        if handover.environ.get("REQUEST_METHOD") == "HEAD":  # RFC 9110 §9.3.2: it has no body
            self._connection: Any = IterableStream(self, settings, b"")
            self._connection.end_unread()
            handover.send_through(head.headers, ())
            return
        try:
            handover.check_room(request, max_connections, max_per_address, max_per_user)
        except HandshakeError as error:
            self._connection = IterableStream(self, settings, b"")
            self._connection.end_unread()
            handover.refuse_stream(error)
            return
        try:
            # Before the Connection is made, which makes a hub for its thread. In the threads of an
            # unknown server that hub would never be destroyed, and its descriptors never closed.
            handover.check_server()
        except HijackError as error:
            _warn_once(str(error))
            self._connection = IterableStream(self, settings, encode_comment())
            handover.enter(self._connection)
            handover.send_through(head.headers, Body(self._connection))
            if retry_line:
                self._connection.outbox.send(retry_line)
        else:
            self._connection = Connection(self, settings)
            opening = head.encode() + retry_line
            driver = EventStream(None if retry is None else partial(uniform, retry, 2 * retry))
            handover.take_over(self, self._connection, driver, opening, 200)
        if check is not None:
            self._ask_every(check_every, check, self._connection.clock)

    @staticmethod
    def check_options(
        *,
        headers: Any,
        retry: Any,
        ping: Any,
        high_water: Any,
        close_timeout: Any,
        send_timeout: Any,
        max_connections: Any,
        max_per_address: Any,
        max_per_user: Any,
        check: Any,
        check_every: Any,
        **others: Any,
    ) -> None:
        """TypeError or ValueError for arguments that the constructor would not take.

        All of its arguments are given, but for the request.
        """
        check_limits(max_connections, max_per_address, max_per_user)
        _check(retry, ping, close_timeout, send_timeout, high_water)
        checks.check_options(check, check_every)
        response(headers)

    def __enter__(self) -> EventSource:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        """Close, after what was sent; a ConnectionClosed of this stream ends the block quietly."""
        self.close()
        is_end = is_end_of(self, error)
        if error is not None and not is_end:
            self._handover.end_in_thread()
        return is_end

    def __repr__(self) -> str:
        return f"<EventSource {without_query(self.url)} {self._connection.state.name}>"

    @property
    def url(self) -> str:
        """The URL that the client asked for."""
        return self._handover.url

    @property
    def environ(self) -> dict[str, Any]:
        """The request's environ; only text of it where the stream outlives its view."""
        return self._handover.environ

    @property
    def ready_state(self) -> ReadyState:
        """CONNECTING 0, OPEN 1, CLOSING 2 or CLOSED 3."""
        self._connection.outbox.give_turn()
        state: ReadyState = self._connection.state
        return state

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more: ``while not es.closed: …``."""
        return self.ready_state > ReadyState.OPEN

    @property
    def buffered_amount(self) -> int:
        """Bytes accepted by ``send`` that have not been taken yet."""
        amount: int = self._connection.outbox.buffered
        return amount

    @property
    def response(self) -> Any:
        """What the view returns: a WSGI application, or Django's response to its request."""
        return self._handover.response

    def send(
        self,
        message: str,
        *,
        event: str | None = None,
        id: str | int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send one event.

        :param message: its data; each line of it becomes a ``data:`` line.
        :param event: its type, for ``addEventListener``; 'message' where there is none.
        :param id: what the client tells as ``Last-Event-ID`` when it comes back.
        :param timeout: seconds to wait for room, before sending, while the peer is slow.
            None sends at once and then waits without a bound.

        Raises ValueError if ``event`` or ``id`` has a CR, LF or NUL, and nothing is sent;
        ConnectionClosed on a closed stream; TimeoutError when the time is up: then nothing
        was sent.
        """
        if timeout is not None:
            check_timeout(timeout)
        self._connection.outbox.send(encode_event(message, event=event, id=id), timeout)

    def ping(self) -> bool:
        """Send a comment line, which the client ignores; False on a closed stream."""
        if self.closed:
            return False
        self._connection.outbox.send(encode_comment())
        return True

    def close(self) -> bool:
        """End the stream after what was sent; True the first time. Does not wait."""
        if self.closed:
            return False
        self._connection.close()
        return True

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the connection is closed; TimeoutError after ``timeout`` seconds."""
        check_timeout(timeout)
        self._connection.wait_closed(timeout)

    def write(self, message: str) -> bool:
        """Send one event; True while there is room for more."""
        self.send(message)
        return bool(self._connection.outbox.has_room)

    def end(self, message: str | None = None) -> None:
        """Send a last event, if there is one, and close."""
        if message is not None:
            self.send(message)
        self.close()

    def _refuse(self, seconds: float) -> None:
        # A stream has no close codes: its client comes back, and the view refuses it then. Not all
        # at once, where many are refused, nor soon, where a view lets them in again.
        later = encode_retry(seconds * uniform(1, 2))
        self._connection.outbox.send_shared(later, {})  # which does not wait for a slow client
        self.close()

    def _listeners_changed(self) -> None:
        if self._connection.closing.is_over:
            # The sink may be a weak reference. A late listener for ``close`` is called in the next
            # turn of the hub, and this object must live until then.
            self._connection.dispatcher.sink = self
        if self._connection.listeners_changed():
            hubs.tell_in_thread(self._connection.dispatcher)


def _check(
    retry: float | None,
    ping: float | None,
    close_timeout: float,
    send_timeout: float | None,
    high_water: int,
) -> Settings:
    check_seconds("retry", retry)
    return make_settings(
        ping=ping, close_timeout=close_timeout, send_timeout=send_timeout, high_water=high_water
    )


@cache
def _warn_once(reason: str) -> None:
    log.warning("event streams go out only when their views have returned: %s", reason)


def _last_event_id(environ: dict[str, Any], param: str | None) -> str:
    header: str = environ.get("HTTP_LAST_EVENT_ID", "")
    if header:
        # PEP 3333 shows the header's bytes as ISO 8859-1; the client sent UTF-8.
        return header.encode("latin-1").decode("utf-8", "replace")
    if param is None:
        return ""
    query: str = environ.get("QUERY_STRING", "")
    return parse_qs(query).get(param, [""])[0]
