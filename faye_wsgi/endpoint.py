"""The user's side of a connection, on servers and clients: an endpoint (RFC 6455 §1.2).

``EventTarget`` has events and their listeners; EventSource is one, too. ``Endpoint`` adds the
state, the blocking calls and the streams of a WebSocket. ``pipe`` joins an endpoint to a
destination, ``broadcast`` sends to many. Nothing here does I/O: the ``Connection`` does.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union, cast, overload

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.events import CloseEvent, Data, Event, EventType
from faye_wsgi.driver.frames import MAX_CONTROL_PAYLOAD, CloseCode, check_close
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.http.url import without_query
from faye_wsgi.transport import hubs
from faye_wsgi.transport.connection import Connection, Sendable
from faye_wsgi.transport.settings import Settings, check_timeout

__all__ = ["Destination", "Endpoint", "EventTarget", "Listener", "broadcast", "handler", "pipe"]

Listener = Callable[[Any], object]
Self = TypeVar("Self", bound="Endpoint")
Destination = TypeVar("Destination")
Message = Union[str, bytes, bytearray, memoryview]


# Events


class EventTarget:
    """An object with events, which calls their listeners.

    For each event type there is an attribute ``on<type>`` (made by ``handler``) with one
    listener, which runs before those that ``on`` registered; these run in the order of their
    registration.

    Any thread may add and remove listeners, while the connection's thread calls them. So the
    listeners of a type are a tuple, which is replaced and never changed.
    """

    __slots__ = ("_after_listeners", "_called_handler", "_handlers", "_listeners")

    EVENTS: frozenset[EventType] = frozenset()

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._handlers: dict[str, Listener | None] = {}
        self._called_handler: Listener | None = None  # ``onclose``, when it has been called
        self._after_listeners: Callable[[], object] | None = None  # must run after each

    @overload
    def on(self, type: EventType) -> Callable[[Listener], Listener]: ...

    @overload
    def on(self, type: EventType, listener: Listener) -> Listener: ...

    def on(
        self, type: EventType, listener: Listener | None = None
    ) -> Listener | Callable[[Listener], Listener]:
        """Register ``listener`` for the events of a type; ``@target.on(type)`` does the same.

        The listener is called with the event. A listener for ``close`` that is registered after
        the end runs all the same, once, and not before this returns. ValueError if there is no
        such type.
        """
        self._check_type(type)
        if listener is None:
            return lambda function: self.on(type, function)
        if not callable(listener):
            raise TypeError("a listener is a function of one event")
        self._listeners[type] = (*self._listeners.get(type, ()), listener)
        self._listeners_changed()
        return listener

    def remove_listener(self, type: EventType, listener: Listener) -> None:
        """Take back one registration of ``listener``; nothing happens if there is none."""
        self._check_type(type)
        listeners = list(self._listeners.get(type, ()))
        if listener in listeners:
            listeners.remove(listener)
            self._listeners[type] = tuple(listeners)
            self._listeners_changed()

    def has_listeners(self, type: EventType) -> bool:
        """Whether there are listeners for the events of a type."""
        return bool(self._listeners.get(type) or self._handlers.get(type))

    def sole_listener(self, type: EventType) -> Listener | None:
        """The only listener for the events of a type, if ``dispatch`` would do nothing else.

        The dispatcher calls it directly, which is faster.
        """
        listeners = self._listeners.get(type, ())
        handler = self._handlers.get(type)
        if handler is not None:
            listeners = (handler, *listeners)
        return listeners[0] if len(listeners) == 1 and self._after_listeners is None else None

    @property
    def has_any_listeners(self) -> bool:
        """Whether there are listeners for events of any type."""
        return any(self._listeners.values()) or any(self._handlers.values())

    def dispatch(self, event: Event) -> None:
        """Call the listeners of an event, one after the other, until one raises.

        Those of ``close`` are removed before they are called, so that each is called once:
        those that are registered later get another dispatch of the same event.
        """
        event.target = self
        type = event.type
        listeners = self._listeners.get(type, ())
        if self._handlers:
            handler = self._handlers.get(type)
            if handler is not None:
                listeners = (handler, *listeners)
        if type == "close":
            self._listeners.pop(type, None)
            self._called_handler = self._handlers.pop(type, None) or self._called_handler
        try:
            for listener in listeners:
                listener(event)
        finally:
            if self._after_listeners is not None:
                self._after_listeners()

    def _ask_every(self, seconds: float, check: Callable[[Any], object], clock: Any) -> None:
        """Ask ``check(self)`` at an interval whether this may go on; ``_refuse`` ends it else."""
        me = weakref.ref(self)  # an EventSource ends when nothing refers to it any more

        def ask() -> None:
            target = me()
            if target is not None and not target._may_go_on(check):
                target._refuse(seconds)

        clock.ask_every(seconds, ask)

    def _may_go_on(self, check: Callable[[Any], object]) -> bool:
        try:
            return bool(check(self))
        finally:
            if self._after_listeners is not None:
                self._after_listeners()

    def _refuse(self, seconds: float) -> None:
        """For servers: the check has refused; it is asked every ``seconds``."""

    def _check_type(self, type: str) -> None:
        if type not in self.EVENTS:
            names = ", ".join(sorted(self.EVENTS))
            raise ValueError(f"there is no event {type!r}: there are {names}")

    def _listeners_changed(self) -> None:
        """For subclasses: listeners were added or removed."""


def handler(type: str) -> Any:
    """The property ``on<type>``: one listener, or None."""

    def get(self: EventTarget) -> Listener | None:
        called = self._called_handler if type == "close" else None
        return self._handlers.get(type) or called

    def set(self: EventTarget, listener: Listener | None) -> None:
        if listener is not None and not callable(listener):
            raise TypeError("a listener is a function of one event, or None")
        self._handlers[type] = listener
        if type == "close":
            self._called_handler = None
        self._listeners_changed()

    return cast(Any, property(get, set, doc=f"The first listener for {type!r} events, or None."))


# The endpoint


class Endpoint(EventTarget):
    """A WebSocket connection, for blocking use or with listeners.

    Blocking: ``receive``, ``for message in ws``, ``send``, ``close``. With listeners:
    ``on``, ``onmessage`` and its kin; they run one at a time, in order, in a greenlet of
    their own. Messages have one consumer: with ``message`` listeners, ``receive`` and
    iteration raise RuntimeError. ``send``, ``ping`` and ``close`` may be called from any
    greenlet and any thread.
    """

    # Users may set attributes of their own on it, and keep it in weak sets.
    __slots__ = ("__dict__", "__weakref__", "_connection", "_handshake_error", "_outbox")

    CONNECTING, OPEN, CLOSING, CLOSED = ReadyState
    EVENTS: frozenset[EventType] = frozenset(
        ("open", "message", "ping", "pong", "drain", "error", "close")
    )

    onopen = handler("open")
    onmessage = handler("message")
    onping = handler("ping")
    onpong = handler("pong")
    ondrain = handler("drain")
    onerror = handler("error")
    onclose = handler("close")

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._handshake_error: HandshakeError | None = None
        self._connection = Connection(self, settings)
        self._outbox = self._connection.outbox  # on the hot path

    def __repr__(self) -> str:
        url = without_query(self.url)
        return f"<{type(self).__name__} {url} {self._connection.state.name}>"

    # State

    if TYPE_CHECKING:

        @property
        def url(self) -> str: ...  # a server reads it from the request, a client is given it

    @property
    def ready_state(self) -> ReadyState:
        """CONNECTING 0, OPEN 1, CLOSING 2 or CLOSED 3."""
        self._outbox.give_turn()
        return self._connection.state

    @property
    def protocol(self) -> str:
        """The subprotocol that both sides agreed on; '' until open, and where there is none."""
        driver = self._connection.driver
        return driver.protocol if driver is not None else ""

    @property
    def version(self) -> str:
        """The protocol's version: 'hybi-13' (RFC 6455); '' until the handshake."""
        driver = self._connection.driver
        return driver.version if driver is not None else ""

    @property
    def buffered_amount(self) -> int:
        """Bytes accepted by ``send`` that the kernel has not taken yet."""
        return self._outbox.buffered

    @property
    def _close_event(self) -> CloseEvent | None:
        is_closed = self._connection.state == ReadyState.CLOSED
        return self._connection.closing.close_event if is_closed else None

    @property
    def close_code(self) -> int | None:
        """The close code, once closed (RFC 6455 §7.4); None before."""
        event = self._close_event
        return event.code if event is not None else None

    @property
    def close_reason(self) -> str | None:
        """The close reason, once closed; None before."""
        event = self._close_event
        return event.reason if event is not None else None

    @property
    def latency(self) -> float | None:
        """Seconds between the last answered ping and its pong; None before one."""
        keepalive = self._connection.keepalive
        return None if keepalive is None else keepalive.latency

    # Blocking use

    def receive(self, timeout: float | None = None) -> Data:
        """Wait for the next message: str for a text message, bytes for a binary one.

        ``timeout`` is in seconds, None waits for ever. Raises ConnectionClosed at the
        end (HandshakeError if the connection never opened), after all messages that came
        before it; TimeoutError when the time is up.
        """
        self._check_consumer()
        if timeout is not None:
            check_timeout(timeout)
        if self._handshake_error is not None:
            raise self._handshake_error
        return self._connection.inbox.receive(timeout)

    def __iter__(self) -> Iterator[Data]:
        """All messages until the close, whatever its code."""
        self._check_consumer()
        self._connection.check_thread("iterating")
        return iter(self._connection.inbox.take, None)  # None is the end

    def _check_consumer(self) -> None:
        if self.has_listeners("message"):
            raise RuntimeError(
                "this WebSocket has message listeners, which get its messages: remove them "
                "to receive or iterate, or return ws.response where it was returned itself"
            )

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Close: with 1000, or with 1011 if an exception leaves the block."""
        self.close(CloseCode.NORMAL_CLOSURE if error is None else CloseCode.INTERNAL_ERROR)
        return None

    def send(self, message: Sendable, timeout: float | None = None) -> None:
        """Send a message.

        ``str`` goes as text; ``bytes``, ``bytearray`` and ``memoryview`` as binary; a
        generator or iterator of ``str``, or of ``bytes``, as one message in fragments. Before
        open it is kept and sent at open. While more than the high-water mark waits for the peer,
        this blocks the calling greenlet (or thread) after sending, without a bound.

        With ``timeout`` (seconds, from 0 on) it waits before sending instead, until there is
        room: TimeoutError says that the message was not sent. A message in fragments waits
        so for each of them; where the time is up after the first, it is given up and the
        connection closed with 1011, as where its iterator raises.

        Raises TypeError for anything else, ConnectionClosed on a closing or closed
        connection (HandshakeError if it never opened).
        """
        if timeout is not None:
            check_timeout(timeout)
        try:
            self._outbox.send(message, timeout)
        except ConnectionClosed:
            if self._handshake_error is not None:
                raise self._handshake_error from None
            raise

    def send_json(
        self,
        value: Any,
        *,
        encoder: Callable[[Any], str | bytes] = json.dumps,
        timeout: float | None = None,
    ) -> None:
        """Send a value as JSON, in a text message; ``timeout`` as in ``send``.

        ``encoder`` makes the text of it, or the text's bytes in UTF-8. What the encoder raises
        (TypeError for a value that has no JSON) is raised, and nothing is sent.
        """
        text = encoder(value)
        # Some encoders make bytes. As a binary message a browser would get them as a Blob.
        self.send(text.decode() if isinstance(text, bytes) else text, timeout)

    def receive_json(
        self, timeout: float | None = None, *, decoder: Callable[[Data], Any] = json.loads
    ) -> Any:
        """Wait for the next message, as ``receive`` does, and decode it as JSON.

        A message that is not JSON raises ValueError. It is taken then, and the connection
        stays as it is: answer it, receive the next one, or close.
        """
        message = self.receive(timeout)
        try:
            return decoder(message)
        except RecursionError:  # a short message can have thousands of levels
            raise ValueError("the message is not JSON that can be read: too many levels") from None

    def ping(self, message: str | bytes = "", callback: Callable[[], object] | None = None) -> bool:
        """Send a ping; True if and only if it was sent.

        ``callback`` runs once, when its pong arrives (a later pong answers earlier pings
        too; of more than 64 unanswered ones, the last 64 are remembered). ValueError if
        ``message`` is longer than 125 bytes.
        """
        data = message.encode() if isinstance(message, str) else bytes(memoryview(message))
        if len(data) > MAX_CONTROL_PAYLOAD:
            raise ValueError("a ping has at most 125 bytes")
        return self._connection.ping(data, callback)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin the closing handshake, after all that was sent; does not wait for its end.

        ``code`` is one of 1000-1003, 1007-1014 and 3000-4999, ``reason`` has at most 123
        bytes of UTF-8, else ValueError. Closing again does nothing. Before open the
        connection is given up, and the close event follows at once.
        """
        check_close(code, reason)
        self._connection.close(code, reason)

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the connection is closed; TimeoutError after ``timeout`` seconds."""
        check_timeout(timeout)
        self._connection.wait_closed(timeout)

    # Streams

    def write(self, data: Sendable) -> bool:
        """Send a message, as ``send`` does; True while there is room for more."""
        self.send(data)
        return self._outbox.has_room

    def end(self, data: Sendable | None = None) -> None:
        """Send a last message, if there is one, and close."""
        if data is not None:
            self.send(data)
        self.close()

    def pause(self) -> None:
        """Hold messages back from listeners, and what follows them, until ``resume``.

        When ``max_queue`` messages wait, reading stops.
        """
        self._connection.dispatcher.pause()

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._connection.dispatcher.resume()

    def pipe(self, destination: Destination, end: bool = True) -> Destination:
        """Send all messages on to ``destination`` and return it; ``ws.pipe(ws)`` is an echo.

        The destination has ``write`` or ``send``, or is a function. While it blocks,
        reading stops after ``max_queue`` messages. At the close its ``end`` is called,
        if it has one and ``end`` is true; where it is closed itself, this side closes.
        """
        pipe(self, destination, end)
        return destination

    def _listeners_changed(self) -> None:
        if self._connection.listeners_changed():
            hubs.tell_in_thread(self._connection.dispatcher)


# Pipes


def pipe(source: Any, destination: Any, end: bool = True) -> None:
    """Write the messages of ``source`` to ``destination``, and end it at the close."""
    write = _writer(destination)

    def forward(event: Any) -> None:
        # Listeners run one at a time. So while this blocks, messages wait in the source's backlog,
        # and when that is full, reading stops and TCP slows the peer down.
        try:
            write(event.data)
        except ConnectionClosed:
            source.remove_listener("message", forward)
            source.close(CloseCode.GOING_AWAY)

    def finish(event: Any) -> None:
        if end and hasattr(destination, "end"):
            try:
                destination.end()
            except ConnectionClosed:
                pass

    source.on("message", forward)
    source.on("close", finish)


def _writer(destination: Any) -> Callable[[Any], object]:
    for name in ("write", "send"):
        method = getattr(destination, name, None)
        if callable(method):
            return method  # type: ignore[no-any-return]
    if callable(destination):
        return destination  # type: ignore[no-any-return]
    raise TypeError("the destination of a pipe has write or send, or is a function")


# Many connections


def broadcast(connections: Iterable[Endpoint], message: Message) -> list[Endpoint]:
    """Send ``message`` to all ``connections`` that are open, and wait for none of them.

    ``str`` goes as text, anything else as binary; TypeError for what is neither. Before
    open it is kept and sent at open; a closing or closed connection is passed over, and so
    is one of the drafts where the message is binary, which they do not have.

    Returns the connections that did not get it, because more than their ``high_water``
    waits for the peer already: close them, or send to them once more at their ``drain``
    event. Connections of other threads count as open until they are known not to be.

    With permessage-deflate the message is compressed without regard to earlier ones, once
    for all connections that agreed on the same parameters (RFC 7692 §7.2.1).
    """
    if isinstance(message, (bytearray, memoryview)):
        message = bytes(message)
    if not isinstance(message, (str, bytes)):
        raise TypeError(
            f"a message to many is str or bytes, not {type(message).__name__}: "
            "json.dumps(...) makes a str of it"
        )
    shared: dict[Any, Any] = {}
    # A copy, since other threads may add to ``connections`` meanwhile, and a set that grows
    # while it is iterated raises.
    return [one for one in tuple(connections) if not one._outbox.send_shared(message, shared)]
