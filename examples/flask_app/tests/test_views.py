"""The chat's views, with a real WebSocket for each window and no server."""

from __future__ import annotations

from typing import Any

import pytest

from faye_wsgi import HandshakeError
from faye_wsgi.testing import connect


def until(ws: Any, type: str) -> Any:
    """The next event of that type; others may come before it."""
    event = ws.receive_json()
    while event["type"] != type:
        event = ws.receive_json()
    return event


def test_who_joins_is_welcomed(join: Any) -> None:
    welcome = until(join("ann"), "welcome")
    assert welcome["you"]["name"] == "ann"
    assert welcome["channel"] == "tests"


def test_all_members_get_a_message(join: Any) -> None:
    ann, bob = join("ann"), join("bob")
    until(ann, "welcome"), until(bob, "welcome")
    ann.send_json({"type": "message", "id": "1", "text": "hello"})
    for ws in (ann, bob):
        message = until(ws, "message")
        assert (message["name"], message["text"]) == ("ann", "hello")


def test_who_leaves_is_no_longer_here(join: Any) -> None:
    ann, bob = join("ann"), join("bob")
    until(bob, "welcome")
    bob.close()
    bob.wait_ended()
    names = [one["name"] for one in until(ann, "here")["people"]]
    while names != ["ann"]:
        names = [one["name"] for one in until(ann, "here")["people"]]


def test_a_bad_name_of_a_channel_is_refused(join: Any) -> None:
    ws = join("ann", channel="No-Such-Name")
    assert ws.wait_closed() == 4000
    assert ws.close_reason.startswith("A channel name has")


def test_a_message_that_is_too_long(join: Any) -> None:
    ws = join("ann")
    ws.send("x" * 20_000)
    assert ws.wait_closed() == 1009


def test_what_is_not_understood_is_ignored(join: Any) -> None:
    ws = join("ann")
    ws.send("no JSON")
    ws.send_json({"type": "message", "id": "2", "text": "still here"})
    assert until(ws, "message")["text"] == "still here"


def test_a_page_of_another_origin(client: Any) -> None:
    headers = {"Origin": "https://evil.example"}
    with pytest.raises(HandshakeError) as refused:
        connect(client, "/channels/tests", headers=headers).__enter__()
    assert refused.value.status_code == 403
