"""Events: values with a type, which are made for every message."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from faye_wsgi.driver.events import (
    CloseEvent,
    DrainEvent,
    ErrorEvent,
    Event,
    EventType,
    MessageEvent,
    OpenEvent,
    PingEvent,
    PongEvent,
)

EVENTS: list[tuple[Event, str]] = [
    (OpenEvent(), "OpenEvent()"),
    (MessageEvent("a"), "MessageEvent(data='a')"),
    (MessageEvent(b"a"), "MessageEvent(data=b'a')"),
    (PingEvent(b"a"), "PingEvent(data=b'a')"),
    (PongEvent(b""), "PongEvent(data=b'')"),
    (DrainEvent(), "DrainEvent()"),
    (ErrorEvent("why"), "ErrorEvent(message='why')"),
    (CloseEvent(1000, "bye"), "CloseEvent(code=1000, reason='bye')"),
    (CloseEvent(None, None), "CloseEvent(code=None, reason=None)"),
]


def test_each_type_has_one_class() -> None:
    types = {event.type for event, _ in EVENTS}
    assert types == set(get_args(EventType))
    assert len({type(event) for event, _ in EVENTS}) == len(types)


@pytest.mark.parametrize("event, shown", EVENTS)
def test_what_is_shown(event: Event, shown: str) -> None:
    assert repr(event) == shown
    event.target = "somewhere"
    assert repr(event) == shown, "a target may be large, and hold secrets"
    del event.target


def test_equal_are_events_of_one_type_with_the_same_values() -> None:
    for index, (event, _) in enumerate(EVENTS):
        assert [event == other for other, _ in EVENTS].index(True) == index
    assert CloseEvent(1000, "bye") == CloseEvent(1000, "bye") != CloseEvent(1000, "")
    assert MessageEvent("1") != "1" and OpenEvent() != None  # noqa: E711
    assert PingEvent(b"x") != PongEvent(b"x")


def test_the_target_does_not_count() -> None:
    one, other = MessageEvent("a"), MessageEvent("a")
    one.target = object()
    assert one == other


def test_equal_events_are_different_keys() -> None:
    """Each happened by itself."""
    assert len({MessageEvent("a"), MessageEvent("a")}) == 2


@pytest.mark.parametrize("event", [event for event, _ in EVENTS])
def test_an_event_takes_no_more_than_its_values(event: Any) -> None:
    assert not hasattr(event, "__dict__")
    with pytest.raises(AttributeError):
        event.other = 1
