"""Listeners: ``on``, ``remove_listener``, ``onmessage`` and its kin."""

from __future__ import annotations

from typing import Any, Callable, cast, overload

from faye_wsgi.driver.events import Event, EventType

__all__ = ['EventTarget', 'Listener']

Listener = Callable[[Any], object]


class EventTarget:
    """Something that happens to, and that tells its listeners.

    For each event type there is an attribute ``on<type>`` with one listener, which runs
    before those that ``on`` registered; these run in the order of their registration.
    """

    __slots__ = ('_after_listeners', '_handlers', '_listeners', '_told_handler')

    EVENTS: frozenset[EventType] = frozenset()

    def __init__(self) -> None:
        # Tuples: a round of calls is not disturbed by listeners that come and go.
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._handlers: dict[str, Listener | None] = {}
        self._told_handler: Listener | None = None  # ``onclose``, when it has run
        self._after_listeners: Callable[[], object] | None = None

    @overload
    def on(self, type: EventType) -> Callable[[Listener], Listener]: ...

    @overload
    def on(self, type: EventType, listener: Listener) -> Listener: ...

    def on(
        self, type: EventType, listener: Listener | None = None
    ) -> Listener | Callable[[Listener], Listener]:
        """Register ``listener`` for the events of a type; ``@target.on(type)`` does the same.

        The listener is called with the event. One for ``close`` that comes after the end
        runs all the same, once, and not before this returns. ValueError if there is no such
        type.
        """
        self._check_type(type)
        if listener is None:
            return lambda function: self.on(type, function)
        if not callable(listener):
            raise TypeError('a listener is a function of one event')
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
        """Whether anybody listens for the events of a type."""
        return bool(self._listeners.get(type) or self._handlers.get(type))

    def sole_listener(self, type: EventType) -> Listener | None:
        """Who alone is to be called with the events of a type; None where there is more to do."""
        listeners = self._listeners.get(type, ())
        handler = self._handlers.get(type)
        if handler is not None:
            listeners = (handler, *listeners)
        return listeners[0] if len(listeners) == 1 and self._after_listeners is None else None

    @property
    def has_any_listeners(self) -> bool:
        """Whether anybody listens for anything."""
        return any(self._listeners.values()) or any(self._handlers.values())

    def dispatch(self, event: Event) -> None:
        """Run the listeners of an event, one after the other; what one raises ends it.

        Those of ``close`` are forgotten before they run, so that each runs once: what is
        registered later is told by another dispatch of the same event.
        """
        event.target = self
        type = event.type
        listeners = self._listeners.get(type, ())
        if self._handlers:
            handler = self._handlers.get(type)
            if handler is not None:
                listeners = (handler, *listeners)
        if type == 'close':
            self._listeners.pop(type, None)
            self._told_handler = self._handlers.pop(type, None) or self._told_handler
        try:
            for listener in listeners:
                listener(event)
        finally:
            if self._after_listeners is not None:
                self._after_listeners()

    def _check_type(self, type: str) -> None:
        if type not in self.EVENTS:
            names = ', '.join(sorted(self.EVENTS))
            raise ValueError(f'there is no event {type!r}: there are {names}')

    def _listeners_changed(self) -> None:
        """Listeners came or went."""


def handler(type: str) -> Any:
    """The property ``on<type>``: one listener, or None."""

    def get(self: EventTarget) -> Listener | None:
        told = self._told_handler if type == 'close' else None
        return self._handlers.get(type) or told

    def set(self: EventTarget, listener: Listener | None) -> None:
        if listener is not None and not callable(listener):
            raise TypeError('a listener is a function of one event, or None')
        self._handlers[type] = listener
        if type == 'close':
            self._told_handler = None
        self._listeners_changed()

    return cast(Any, property(get, set, doc=f'The first listener for {type!r} events, or None.'))
