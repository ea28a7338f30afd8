"""Messages, and their text."""

from __future__ import annotations

import json
import logging

import pytest

from faye_wsgi.brokers.base import Cursor, Position
from faye_wsgi.delivery.messages import Message, encode_item, to_json

PLACE = Cursor((Position(12, "e"),))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message('"a"', "1-e", "[1]"), {"channel": '"a"', "id": "1-e", "data": [1]}),
        (Message("a", "1-e", reset=True), {"channel": "a", "id": "1-e", "reset": True}),
        (Message("a", joined={"7": {}}), {"channel": "a", "joined": {"7": {}}}),
        (Message("a", left=["7"]), {"channel": "a", "left": ["7"]}),
        (Message("a", count=1001), {"channel": "a", "count": 1001}),
        (Message("a"), {"channel": "a", "joined": {}}),
    ],
)
def test_its_json(message: Message, expected: object) -> None:
    assert json.loads(to_json(message)) == expected


def test_data_is_parsed_once_and_only_where_it_is_asked_for() -> None:
    message = Message("a", "1-e", "[1]")
    assert message.data is message.data == [1]
    assert to_json(Message("a", "1-e", "not parsed")).endswith('"data":not parsed}')


def test_one_item_for_each_kind() -> None:
    message = Message("a", "12-e", "1")
    text = to_json(message)
    assert encode_item("websocket", None, message, 12, PLACE).message == text
    event = encode_item("eventsource", None, message, 12, PLACE)
    assert event.message == f"id: 12-e\r\ndata: {text}\r\n\r\n".encode()
    assert encode_item("function", None, message, 12, PLACE).message is message
    assert event.before == (Position(11, "e"),)


def test_a_format_may_leave_out(caplog: pytest.LogCaptureFixture) -> None:
    message = Message("a", "12-e", "1")
    assert encode_item("websocket", lambda one: "x", message, 12, PLACE).message == "x"
    assert encode_item("websocket", lambda one: None, message, 12, PLACE) is None
    with caplog.at_level(logging.ERROR):
        assert encode_item("websocket", lambda one: 1 / 0, message, 12, PLACE) is None
        assert encode_item("websocket", lambda one: "\udc00", message, 12, PLACE) is None
    assert len(caplog.records) == 2
