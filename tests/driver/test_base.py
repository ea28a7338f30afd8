"""What every driver keeps to: any bytes, one end, and silence after it."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faye_wsgi.driver.base import Driver, ReadyState
from faye_wsgi.driver.events import CloseEvent, ErrorEvent, Event
from faye_wsgi.driver.eventstream import EventStream
from faye_wsgi.driver.hixie75 import Hixie75
from faye_wsgi.driver.hixie76 import Hixie76
from faye_wsgi.driver.hybi import Hybi

from ..support import frames

Make = Callable[[], Driver]

DRIVERS: dict[str, Make] = {
    "hybi": Hybi,
    "hybi client": lambda: Hybi(client=True),
    "hixie-75": Hixie75,
    "hixie-76": lambda: Hixie76(bytes(8)),
    "eventstream": EventStream,
}
EVERY = pytest.mark.parametrize("make", DRIVERS.values(), ids=DRIVERS)
BYTES = st.lists(
    st.binary(max_size=40)
    | st.sampled_from(
        [
            frames.text("x"),
            frames.text("x", mask=None),
            frames.close(1000),
            frames.close(1000, mask=None),
            frames.frame(frames.PING, b"p"),
            b"\x00text\xff",
            b"\xff\x00",
            b"\x80\x01x",
        ]
    ),
    max_size=6,
)


def closes(events: list[Event]) -> list[CloseEvent]:
    return [event for event in events if isinstance(event, CloseEvent)]


def test_states_have_the_numbers_of_the_w3c() -> None:
    names = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"]
    assert [(state.name, state.value) for state in ReadyState] == list(zip(names, range(4)))
    assert str(ReadyState.OPEN) == f"{ReadyState.OPEN}" == "1"


@EVERY
def test_a_driver_knows_its_version_and_protocol(make: Make) -> None:
    driver = make()
    assert isinstance(driver, Driver) and isinstance(driver.version, str)
    assert driver.protocol == ""


@EVERY
@given(data=BYTES)
def test_there_is_one_end_whatever_arrives(make: Make, data: list[bytes]) -> None:
    driver = make()
    events: list[Event] = []
    for piece in data:
        events += driver.receive_data(piece)
    events += driver.receive_eof()
    assert len(closes(events)) == 1
    assert sum(isinstance(event, ErrorEvent) for event in events) <= 1
    # Messages, pings and pongs of a peer that has ended would come from nowhere.
    assert isinstance(events[-1], CloseEvent)
    for piece in data:
        assert driver.receive_data(piece) == []
    assert driver.receive_eof() == []


@EVERY
def test_the_end_of_tcp_is_told_once(make: Make) -> None:
    driver = make()
    (end,) = closes(driver.receive_eof())
    has_codes: Any = isinstance(driver, Hybi)
    assert end.code == (1006 if has_codes else None)
    assert driver.receive_eof() == []


@EVERY
def test_drivers_share_nothing(make: Make) -> None:
    one, other = make(), make()
    one.receive_eof()
    assert closes(other.receive_eof())
