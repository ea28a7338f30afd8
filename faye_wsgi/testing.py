"""Testing views: ``connect`` for WebSockets, ``connect_events`` for event streams.

    def test_chat(client):                  # Flask's or Django's own test client
        with connect(client, '/rooms/1', protocols=['chat']) as ws:
            ws.send_json({'text': 'hi'})
            assert ws.receive_json()['text'] == 'hi'
        assert ws.close_code == 1000

The application is the real one, with its routing, middleware, sessions and cookies. So is the
wire: the view gets one end of a socket pair, and a real ``Client`` has the other. Nothing is
mocked. The view runs in a thread of its own, which is a greenlet where threads are patched.

Every wait is bounded. What the view raises is raised in the test. At the end of the block the
connection is closed, the view has ended, and nothing may be left behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Callable

from gevent.event import Event

from faye_wsgi.client import Client
from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.events import Data
from faye_wsgi.driver.eventstream import ServerEvent
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.eventsource_client import EventSourceClient
from faye_wsgi.http.headers import HeadersLike
from faye_wsgi.testkit.exchange import TIMEOUT, Exchange
from faye_wsgi.testkit.request import Line
from faye_wsgi.transport.connection import Sendable

__all__ = ["EventSourceSession", "WebSocketSession", "connect", "connect_events", "ws_url"]


def connect(
    client: Any,
    path: str,
    protocols: str | Iterable[str] | None = None,
    *,
    headers: HeadersLike = None,
    keeps: Iterable[str] = (),
    **options: Any,
) -> WebSocketSession:
    """Open a WebSocket to a view: ``with connect(client, '/rooms/1') as ws:``.

    :param client: a test client of Flask, Werkzeug or Django, whose cookies, session and headers
        are sent, and which gets the cookies that the handshake sets; or any WSGI application.
    :param path: the path with its query, or a URL for another host (or ``wss://``).
    :param protocols: subprotocols to offer, best first.
    :param headers: dict or pairs added to the request: ``{'Origin': 'https://example.com'}``.
    :param keeps: what the application keeps on purpose after the view, and may leave behind:
        'connections', 'greenlets', 'threads', 'descriptors' (a pool of a database's).
    :param options: all others of ``Client``.

    Entering the block raises HandshakeError, with the ``status_code``, ``headers`` and ``body`` of
    the answer, if the handshake is refused; or what the view has raised.
    """
    return WebSocketSession(client, path, protocols, headers, keeps, options)


def connect_events(
    client: Any,
    path: str,
    *,
    last_event_id: str | int | None = None,
    headers: HeadersLike = None,
    keeps: Iterable[str] = (),
) -> EventSourceSession:
    """Open an event stream of a view: ``with connect_events(client, '/feed') as es:``.

    ``last_event_id`` is what a client that comes back tells. The other arguments are those of
    ``connect``. HandshakeError if the answer is anything else than an event stream.
    """
    return EventSourceSession(client, path, last_event_id, headers, keeps)


def ws_url(live_server: Any, path: str = "/") -> str:
    """The WebSocket URL of a path on a live server of a test.

    ``live_server`` is Django's LiveServerTestCase, the fixture of pytest-django or of pytest-flask,
    or a URL.
    """
    for name in ("live_server_url", "url"):
        base = getattr(live_server, name, None)
        if base is not None:
            break
    else:
        base = live_server
    base = base() if callable(base) else base  # pytest-flask: a method
    if not isinstance(base, str) or not base.startswith(("http://", "https://")):
        raise TypeError(f"this is no live server, and no http URL: {live_server!r}")
    return f"ws{base[4:].rstrip('/')}/{path.lstrip('/')}"


class WebSocketSession:
    """The client's side of a test's WebSocket; ``client`` is the ``Client`` itself."""

    client: Client

    def __init__(
        self,
        client: Any,
        path: str,
        protocols: str | Iterable[str] | None,
        headers: HeadersLike,
        keeps: Iterable[str],
        options: dict[str, Any],
    ) -> None:
        self._exchange = Exchange(client, path, headers, keeps)
        self._options = {"close_timeout": TIMEOUT, **options, "protocols": protocols}
        self._is_stalled = False

    def __repr__(self) -> str:
        client = getattr(self, "client", None)
        return f"<{type(self).__name__} {client!r}>"

    def __enter__(self) -> WebSocketSession:
        """Open it; HandshakeError if that is refused, or what the view has raised."""
        self._exchange.begin()
        try:
            self._open()
        except BaseException as error:
            self._finish(error)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Close, wait for the view's end, raise what it has raised, find what is left behind."""
        self._finish(error)

    def _open(self) -> None:
        exchange = self._exchange
        self.client = _PairClient(
            lambda: exchange.new_request().line,
            exchange.target.url,
            headers=exchange.headers,
            **self._options,
        )
        try:
            self.client.wait_open()
        except HandshakeError as error:
            exchange.raise_for(error)
            raise
        finally:
            exchange.target.store_cookies(self.client.headers.getall("Set-Cookie"))
        exchange.note("**", f"opened {exchange.target.url}")

    def _finish(self, error: BaseException | None) -> None:
        self._exchange.finish(error, lambda: self._close(1000 if error is None else 1011))

    def _close(self, code: int) -> None:
        if not hasattr(self, "client"):
            return  # its options were wrong
        if self._is_stalled:
            self.reset()
        self.client.close(code)
        for request in self._exchange.requests:
            request.line.release()  # a client that has vanished ends its TCP now
        try:
            self.client.wait_closed(TIMEOUT)
        except TimeoutError:
            self.reset()

    def wait_ended(self, timeout: float = TIMEOUT) -> None:
        """Wait until the view has ended; AssertionError, with its place, after ``timeout``."""
        self._exchange.wait_ended(timeout)

    # As a Client

    @property
    def protocol(self) -> str:
        """The subprotocol that was agreed on."""
        return self.client.protocol

    @property
    def headers(self) -> Any:
        """The headers of the handshake's response."""
        return self.client.headers

    @property
    def ready_state(self) -> ReadyState:
        """As of ``Client``."""
        return self.client.ready_state

    @property
    def close_code(self) -> int | None:
        """The close code, once closed."""
        return self.client.close_code

    @property
    def close_reason(self) -> str | None:
        """The close reason, once closed."""
        return self.client.close_reason

    def send(self, message: Sendable, timeout: float | None = TIMEOUT) -> None:
        """Send a message, as ``Client.send``; AssertionError if the view does not take it."""
        self._exchange.note("->", message)
        self._send(lambda: self.client.send(message, timeout), timeout)

    def send_json(
        self,
        value: Any,
        *,
        encoder: Callable[[Any], str | bytes] = json.dumps,
        timeout: float | None = TIMEOUT,
    ) -> None:
        """Send a value as JSON, in a text message."""
        self._exchange.note("->", value)
        self._send(lambda: self.client.send_json(value, encoder=encoder, timeout=timeout), timeout)

    def _send(self, send: Callable[[], None], timeout: float | None) -> None:
        try:
            send()
        except TimeoutError:
            self._exchange.raise_view_error()
            self._exchange.fail(
                f"the view has not read for {timeout} seconds{self._exchange.where()}"
            )
        except ConnectionClosed as error:
            self._exchange.raise_for(error)
            raise

    def receive(self, timeout: float = TIMEOUT) -> Data:
        """The next message; AssertionError with the conversation if there is none in time.

        Raises what the view has raised, if that has ended the connection; ConnectionClosed after
        any other end.
        """
        self._check_reading()
        try:
            message = self.client.receive(timeout)
        except TimeoutError:
            self._exchange.raise_view_error()
            self._exchange.fail(f"no message within {timeout} seconds{self._exchange.where()}")
        except ConnectionClosed as error:
            self._exchange.note("**", str(error))
            self._exchange.raise_for(error)
            raise
        self._exchange.note("<-", message)
        return message

    def receive_json(
        self, timeout: float = TIMEOUT, *, decoder: Callable[[Data], Any] = json.loads
    ) -> Any:
        """The next message, decoded; AssertionError as of ``receive``, or if it is not JSON."""
        message = self.receive(timeout)
        try:
            return decoder(message)
        except ValueError as error:
            self._exchange.fail(f"the message is not JSON: {error}")

    def assert_silent(self, seconds: float) -> None:
        """AssertionError if a message comes, or the connection ends, within these seconds."""
        self._check_reading()
        try:
            message = self.client.receive(seconds)
        except TimeoutError:
            self._exchange.raise_view_error()
            return
        except ConnectionClosed as error:
            self._exchange.raise_for(error)
            self._exchange.fail(f"it should have been silent: {error}")
        self._exchange.note("<-", message)
        self._exchange.fail(f"it should have been silent: {message!r}")

    def ping(self, message: str | bytes = "", timeout: float = TIMEOUT) -> None:
        """Send a ping and wait for its pong: all that was sent before has arrived."""
        pong = Event()
        if not self.client.ping(message, pong.set):
            raise ConnectionClosed(self.close_code, self.close_reason)
        if not pong.wait(timeout):
            self._exchange.fail(f"no pong within {timeout} seconds")

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake; ``wait_closed`` waits for its end."""
        self._exchange.note("->", f"close {code} {reason}".rstrip())
        self.client.close(code, reason)

    def wait_closed(self, timeout: float = TIMEOUT) -> int | None:
        """Wait for the close, whoever begins it; the close code."""
        try:
            self.client.wait_closed(timeout)
        except TimeoutError:
            self._exchange.raise_view_error()
            self._exchange.fail(f"the connection was not closed within {timeout} seconds")
        return self.close_code

    # Faults

    def stall(self) -> None:
        """Stop reading: what the view sends fills the buffers, and pings get no pong."""
        self._is_stalled = True
        self._stream.pause_reading()

    def resume(self) -> None:
        """Read again, after ``stall``."""
        self._is_stalled = False
        self._stream.resume_reading()

    def vanish(self) -> None:
        """Disappear without FIN, as a laptop that is closed: only a ping finds that out.

        The view hears of the end when the test leaves the block, as of one that TCP finds.
        """
        self._exchange.note("**", "vanished")
        self._exchange.requests[-1].line.manner = "vanish"
        self.client._connection.closing.lose("the client has vanished")

    def reset(self) -> None:
        """Reset the connection, as a process that crashed: no close frame, and no FIN."""
        if self.ready_state == ReadyState.CLOSED:
            return
        self._exchange.note("**", "reset")
        connection = self.client._connection
        if connection.stream is not None:
            connection.stream.pause_reading()  # or it could read what makes it a reset
        for request in self._exchange.requests:
            request.reset()
        connection.closing.lose("the client has reset the connection")

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, after what was sent before: broken frames, halves of frames."""
        self._exchange.note("->", f"raw {data!r}")
        self._stream.write(bytes(data))

    @property
    def _stream(self) -> Any:
        if self.ready_state != ReadyState.OPEN:
            raise ConnectionClosed(self.close_code, self.close_reason)
        return self.client._connection.stream

    def _check_reading(self) -> None:
        if self._is_stalled:
            raise RuntimeError("this client has stalled: call resume() before it receives")


class _PairClient(Client):
    """A Client whose server is at the other end of a socket pair."""

    def __init__(self, line: Callable[[], Line], url: str, **options: Any) -> None:
        self._dial: Any = lambda *way: line()
        super().__init__(url, **options)


class EventSourceSession:
    """The client's side of a test's event stream; ``client`` is the EventSourceClient itself."""

    client: EventSourceClient

    def __init__(
        self,
        client: Any,
        path: str,
        last_event_id: str | int | None,
        headers: HeadersLike,
        keeps: Iterable[str],
    ) -> None:
        self._exchange = Exchange(client, path, headers, keeps)
        self._first_id = last_event_id

    def __enter__(self) -> EventSourceSession:
        """Open it; HandshakeError if that is refused, or what the view has raised."""
        self._exchange.begin()
        try:
            self._open()
        except BaseException as error:
            self._exchange.finish(error, self.close)
            raise
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Close, wait for the view's end, raise what it has raised, find what is left behind."""
        self._exchange.finish(error, self.close)

    def _open(self) -> None:
        exchange, target = self._exchange, self._exchange.target
        self.client = _PairEventSourceClient(
            lambda: exchange.new_request().line,
            f"{target.scheme}://{target.host}{target.path}",
            headers=exchange.headers,
            last_event_id=self._first_id,
        )
        try:
            self.client.wait_open(TIMEOUT)
        except TimeoutError:
            exchange.raise_view_error()
            exchange.fail(f"no answer within {TIMEOUT} seconds{exchange.where()}")
        except HandshakeError as error:
            exchange.raise_for(error)
            target.store_cookies(error.headers.getall("Set-Cookie"))
            raise
        target.store_cookies(self.headers.getall("Set-Cookie"))
        exchange.note("**", f"opened {target.path}")

    @property
    def headers(self) -> Any:
        """The headers of the response."""
        return self.client.headers

    @property
    def last_event_id(self) -> str:
        """The id of the last event that had one, or what the stream was opened with."""
        return self.client.last_event_id

    @property
    def retry(self) -> float | None:
        """The seconds that a client waits before it connects again, as the view says."""
        return self.client.retry

    def receive(self, timeout: float = TIMEOUT) -> ServerEvent:
        """The next event (``data``, ``event``, ``id``); AssertionError if there is none in time.

        Raises what the view has raised, if that has ended the stream; ConnectionClosed after any
        other end.
        """
        try:
            event = self._receive(timeout)
        except TimeoutError:
            self._exchange.raise_view_error()
            self._exchange.fail(f"no event within {timeout} seconds{self._exchange.where()}")
        except ConnectionClosed as error:
            self._exchange.raise_for(error)
            raise
        self._exchange.note("<-", tuple(event))
        return event

    def assert_silent(self, seconds: float) -> None:
        """AssertionError if an event comes, or the stream ends, within these seconds."""
        try:
            event = self._receive(seconds)
        except TimeoutError:
            self._exchange.raise_view_error()
            return
        except ConnectionClosed:
            self._exchange.fail("it should have been silent: the stream has ended")
        self._exchange.fail(f"it should have been silent: {event}")

    def _receive(self, timeout: float) -> ServerEvent:
        if not hasattr(self, "client"):
            raise RuntimeError("the stream is not open: use it in its block")
        return self.client.receive(timeout)

    def close(self) -> None:
        """End the stream, as a page that is left."""
        if hasattr(self, "client"):
            self.client.close()

    def wait_ended(self, timeout: float = TIMEOUT) -> None:
        """Wait until the view has ended; AssertionError, with its place, after ``timeout``."""
        self._exchange.wait_ended(timeout)


class _PairEventSourceClient(EventSourceClient):
    """An EventSourceClient whose server is at the other end of a socket pair."""

    def __init__(self, line: Callable[[], Line], url: str, **options: Any) -> None:
        self._dial: Any = lambda *way: line()
        super().__init__(url, reconnect=False, max_redirects=0, **options)
