"""EventSourceClient: a URL becomes the events of a stream, which is opened again when it ends."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from webob.headers import ResponseHeaders

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.eventstream import EventStreamDecoder, ServerEvent
from faye_wsgi.driver.eventstream_request import RESERVED_HEADERS, EventStreamRequest
from faye_wsgi.driver.hybi import MAX_LENGTH
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.http.headers import HeadersLike, check_headers
from faye_wsgi.http.url import HTTP_SCHEMES, parse_url, without_query
from faye_wsgi.transport import dial, hubs
from faye_wsgi.transport.backoff import Backoff
from faye_wsgi.transport.feed import Feed
from faye_wsgi.transport.opening import ProxyOption, prepare
from faye_wsgi.transport.settings import (
    check_seconds,
    check_size,
    check_timeout,
    takes_options,
)
from faye_wsgi.transport.tls import TlsOption
from faye_wsgi.wsgi import worker

__all__ = ["EventSourceClient"]


class EventSourceClient(Iterator[ServerEvent]):
    """The client's side of an EventSource: ``for event in EventSourceClient(url):``.

    An event has ``data``, ``event`` (its type, 'message' where the server says none) and ``id``.
    The constructor returns at once, and the connection is made in the background. ``receive`` and
    the loop wait by themselves; ``with EventSourceClient(url) as es:`` waits until it is open.

    When the stream has ended, it connects again, and tells ``Last-Event-ID``. So it does after an
    error of the network or of the server (5xx, 408, 425, 429). It does not after 204, which ends
    the loop; nor after any other answer, or a certificate that is not valid: that raises
    HandshakeError. It stops when nothing refers to the object any more.

    It belongs to the thread that made it; ``close`` may be called from any thread.
    """

    # Gives the socket to a server. The testing kit's client has one that is connected already.
    _dial = staticmethod(dial.dial)

    @takes_options
    def __init__(
        self,
        url: str,
        *,
        headers: HeadersLike = None,
        last_event_id: str | int | None = None,
        reconnect: bool = True,
        first_delay: float = 1.0,
        max_delay: float = 60.0,
        idle_timeout: float | None = None,
        max_length: int = MAX_LENGTH,
        proxy: ProxyOption = None,
        tls: TlsOption = None,
        ca: Any = None,
        max_redirects: int = 5,
        open_timeout: float | None = 10.0,
    ) -> None:
        """Begin to connect to ``url``.

        :param url: ``http://`` or ``https://``. A user and password in it become Basic
            ``Authorization``.
        :param headers: dict or pairs added to each request: ``Authorization``, ``Cookie``, ….
        :param last_event_id: the id of the last event that was seen, to go on behind it.
        :param reconnect: False for one connection: its end ends the loop, and each failure is
            raised.
        :param first_delay: seconds before connecting again, cut by up to a half at random. Default
            1. Where the stream says ``retry``, that counts, lengthened by up to a half. The delay
            doubles with each connection that brings no event.
        :param max_delay: seconds that a delay grows to, and the most that ``retry`` can ask for.
            Default 60.
        :param idle_timeout: seconds without a byte, not even a comment, after which the connection
            is taken for lost. Default None: TCP's keepalive finds a dead one, after two minutes.
        :param max_length: most characters in an event, and in a line. Default 2^26 - 1. A longer
            one raises ConnectionClosed with 1009.
        :param proxy: as of ``Client``.
        :param tls: as of ``Client``. Certificates and host names are verified by default.
        :param ca: short for ``tls={'ca': ...}``.
        :param max_redirects: redirects to follow each time. Default 5. Credentials and headers of
            yours do not go to another origin, nor anything from ``https://`` to ``http://``.
        :param open_timeout: seconds until a connection must be open, all in all. Default 10.

        Raises TypeError and ValueError for wrong arguments, OSError for files of ``tls`` that
        cannot be read. All other failures are raised by ``receive``, ``wait_open`` and the loop.
        """
        for name, seconds in (("first_delay", first_delay), ("max_delay", max_delay)):
            check_seconds(name, seconds)
        check_seconds("idle_timeout", idle_timeout)
        check_size("max_length", max_length)
        shown_id = _check_id(last_event_id)
        target = parse_url(url, HTTP_SCHEMES)
        opening = prepare(
            target,
            lambda url, headers: EventStreamRequest(url, headers, EventStreamDecoder(shown_id)),
            headers=tuple(check_headers(headers, RESERVED_HEADERS)),
            proxy=proxy,
            tls=tls,
            ca=ca,
            max_redirects=max_redirects,
            open_timeout=open_timeout,
        )
        worker.watch()
        hubs.watch_thread()
        self._url = str(target)
        self._feed = Feed(
            replace(opening, reach=self._dial),
            last_event_id=shown_id,
            max_length=max_length,
            open_timeout=open_timeout,
            idle_timeout=idle_timeout,
            backoff=Backoff(first_delay, max_delay) if reconnect else None,
        )
        # It may be called in any thread, in the middle of any code: ``stop`` only wakes the hub.
        weakref.finalize(self, self._feed.stop).atexit = False

    def __repr__(self) -> str:
        return f"<EventSourceClient {without_query(self._url)} {self.ready_state.name}>"

    @property
    def url(self) -> str:
        """The URL to which it connects, without user and password."""
        return self._url

    @property
    def ready_state(self) -> ReadyState:
        """OPEN while a connection is open; CLOSED at the end; CONNECTING before and in between."""
        if self._feed.end is not None:
            return ReadyState.CLOSED
        return ReadyState.OPEN if self._feed.is_open else ReadyState.CONNECTING

    @property
    def headers(self) -> ResponseHeaders:
        """The headers of the latest stream that has opened, in any case of their names."""
        latest = self._feed.latest
        return ResponseHeaders([] if latest is None else latest.headers)

    @property
    def last_event_id(self) -> str:
        """The id of the last event that was received and had one; to go on there another time."""
        return self._feed.last_event_id

    @property
    def retry(self) -> float | None:
        """The seconds that the stream asks to wait before connecting again; None if it does not."""
        return self._feed.retry

    def wait_open(self, timeout: float | None = None) -> None:
        """Wait until a stream has opened, or the server has answered 204.

        HandshakeError, with the ``status_code``, ``headers`` and start of the ``body`` of what was
        answered, if it will not open; TimeoutError after ``timeout`` seconds.
        """
        check_timeout(timeout)
        if not self._feed.wait_opened(timeout):
            raise TimeoutError("the stream did not open in time")
        if self._feed.latest is None:
            self._raise_failure()
            if not self._feed.is_finished:
                raise HandshakeError("the stream was closed before it was open", code=1006)

    def receive(self, timeout: float | None = None) -> ServerEvent:
        """Wait for the next event.

        TimeoutError after ``timeout`` seconds, and it may be called again. HandshakeError if the
        stream cannot be opened; ConnectionClosed at the end, with 1009 for an event that is too
        large, and with 1006 if the only connection was lost.
        """
        check_timeout(timeout)
        event = self._feed.take(timeout)
        if event is None:
            self._raise_failure()
            raise self._closed()
        return event

    def __next__(self) -> ServerEvent:
        """The next event. The loop ends after ``close``, 204, or the end of the only stream."""
        event = self._feed.take(None)
        if event is None:
            self._raise_failure()
            raise StopIteration
        return event

    def __enter__(self) -> EventSourceClient:
        """Wait until it is open."""
        try:
            self.wait_open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and make no more; any thread may call this."""
        if self._feed.is_elsewhere:
            self._feed.stop()
        elif self._feed.end is None:
            self._feed.close(ConnectionClosed(None, "closed here"))
            if hubs.is_alone():  # the hub runs only while this waits
                self._feed.join()
                hubs.release_own_hub()

    def _raise_failure(self) -> None:
        end = self._feed.end
        if isinstance(end, HandshakeError):
            end.target = self
            raise end
        if end is not None and end.code is not None:
            raise self._closed()

    def _closed(self) -> ConnectionClosed:
        end = self._feed.end
        assert end is not None
        closed = ConnectionClosed(end.code, end.reason)
        closed.target = self
        return closed


def _check_id(last_event_id: str | int | None) -> str:
    if last_event_id is None:
        return ""
    if isinstance(last_event_id, bool) or not isinstance(last_event_id, (str, int)):
        raise TypeError(f"last_event_id is a str or a number, not {type(last_event_id).__name__}")
    return str(last_event_id)
