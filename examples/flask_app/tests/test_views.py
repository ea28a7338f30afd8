"""The chat's views, with a real WebSocket for each window and no server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from app import FIRST_ROOMS, MAX_NAME, MAX_ROOMS, MAX_TEXT, list_rooms

from faye_wsgi import HandshakeError
from faye_wsgi.testing import connect, connect_events


def test_a_visitor_gets_a_name_and_stays_the_same(client: Any) -> None:
    assert client.get("/me").get_json()["you"] is None
    client.post("/me", json={"name": "  Zo\u00eb\u202e \n of  " + "x" * 40})
    first = client.get("/me").get_json()["you"]
    assert first["name"] == ("Zo\u00eb of " + "x" * 40)[:MAX_NAME]
    client.post("/me", json={"name": "Ann"})
    assert client.get("/me").get_json()["you"] == {"person": first["person"], "name": "Ann"}


@pytest.mark.parametrize("name", ["", " \n", "\u202e"])
def test_a_name_that_is_none_is_refused(client: Any, name: str) -> None:
    assert client.post("/me", json={"name": name}).status_code == 400
    assert client.get("/me").get_json()["you"] is None


def test_two_persons_of_one_name_are_told_apart(join: Any, client: Any) -> None:
    ann = join("Ann")
    ann.ask(subscribe="rooms")
    assert client.post("/me", json={"name": "ann"}).get_json() == {"name": "ann 2"}
    assert ann.client.post("/me", json={"name": "Ann"}).get_json() == {"name": "Ann"}


def test_all_subscribers_get_a_message_with_its_author(join: Any) -> None:
    ann, bob = join("ann"), join("bob")
    for window in (ann, bob):
        assert window.ask(subscribe="room:general")["subscribed"] == "room:general"
    forged = {"id": "1", "text": "hello", "person": "bob", "name": "bob", "time": 0}
    ann.ws.send_json({"publish": "room:general", "data": forged})
    for window in (ann, bob):
        message = window.hear()
        assert (message["name"], message["text"]) == ("ann", "hello")
        assert message["person"] == ann.client.get("/me").get_json()["you"]["person"]
        assert message["time"] > 0


def test_a_message_that_is_sent_twice_comes_once(join: Any) -> None:
    ann = join("ann")
    ann.ask(subscribe="room:projects")
    assert ann.say("one", "projects") == ann.say("one", "projects")
    ann.say("two", "projects")
    answer = ann.ask(history="room:projects")
    assert [message["data"]["text"] for message in answer["messages"]] == ["one", "two"]


def test_who_is_in_a_room_is_seen(join: Any) -> None:
    ann, bob = join("ann"), join("bob")
    ann.ask(subscribe="here:general")
    bob.ws.send_json({"subscribe": "here:general"})
    joined = ann.until(lambda one: any(m["name"] == "bob" for m in one.get("joined", {}).values()))
    assert joined["channel"] == "here:general"
    bob.ask(publish="here:general", data={"name": "forged"})
    assert ann.hear("here:general")["name"] == "bob"


def test_a_room_can_be_started_once(join: Any) -> None:
    ann = join("ann")
    assert ann.say("hello", "lunch")["error"] == "forbidden"
    assert "published" in ann.ask(publish="rooms", data={"room": "lunch"})
    assert "published" in ann.say("hello", "lunch")
    assert "lunch" in ann.client.get("/me").get_json()["rooms"]
    assert ann.ask(publish="rooms", data={"room": "lunch"})["error"] == "invalid"


def test_the_oldest_rooms_make_room_for_new_ones(join: Any) -> None:
    ann = join("ann")
    for number in range(MAX_ROOMS + 2):
        ann.ask(publish="rooms", data={"room": f"room-{number}"})
    rooms = list_rooms()
    assert len(rooms) == len(FIRST_ROOMS) + MAX_ROOMS
    assert rooms[: len(FIRST_ROOMS)] == list(FIRST_ROOMS)
    assert "room-1" not in rooms and "room-2" in rooms


@pytest.mark.parametrize("channel", ["secret", "room:", "room:Big", "room:a/b", "rooms:a", "x:y"])
def test_no_other_channels(join: Any, channel: str) -> None:
    ann = join("ann")
    assert ann.ask(subscribe=channel)["error"] == "forbidden"
    assert ann.ask(publish=channel, data={"id": "1", "text": "x"})["error"] == "forbidden"


def test_without_a_name_nothing_is_allowed(client: Any) -> None:
    with connect(client, "/channels") as ws:
        ws.send_json({"subscribe": "room:general"})
        assert ws.receive_json()["error"] == "forbidden"


@pytest.mark.parametrize(
    "data", [None, 7, [], {}, {"id": 1, "text": "x"}, {"id": "1", "text": ""}, {"id": "1" * 37}]
)
def test_what_is_no_message_is_refused(join: Any, data: Any) -> None:
    ann = join("ann")
    assert ann.ask(publish="room:general", data=data)["error"] == "invalid"
    assert ann.ask(publish="rooms", data=data)["error"] == "invalid"


def test_a_long_text_is_cut_and_a_longer_message_closes(join: Any) -> None:
    ann = join("ann")
    ann.ask(subscribe="room:general")
    ann.say("x" * (MAX_TEXT + 1), id="long")
    assert len(ann.hear()["text"]) == MAX_TEXT
    ann.ws.send("x" * 20_000)
    assert ann.ws.wait_closed() == 1009


def test_a_page_of_another_origin(client: Any) -> None:
    with pytest.raises(HandshakeError) as refused:
        connect(client, "/channels", headers={"Origin": "https://evil.example"}).__enter__()
    assert refused.value.status_code == 403


def test_the_policy_allows_our_own_files_only(client: Any) -> None:
    for path in ("/", "/activity", "/channels"):
        with client.get(path) as response:
            assert response.status_code == 200
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")


# The stream of the activity


def events(client: Any, last_id: str = "") -> Any:
    return connect_events(client, "/activity/events", last_event_id=last_id)


def message_of(stream: Any, room: str) -> Any:
    """The next event of a message in a room."""
    while True:
        event = stream.receive()
        told = json.loads(event.data)
        if told["channel"] == f"room:{room}":
            return event, told["data"]


def test_the_activity_tells_no_texts_and_resumes(join: Any, client: Any) -> None:
    ann = join("ann")
    with events(client) as stream:
        ann.say("between us", "tea-break", id="told")
        event, data = message_of(stream, "tea-break")
    assert data["name"] == "ann" and "between us" not in event.data
    ann.say("missed", "tea-break")
    with events(client, event.id) as stream:
        assert message_of(stream, "tea-break")[1]["id"] == "missed"


@pytest.mark.parametrize("id", ["x", "1-", "99-\u00e9", "9" * 5000])
def test_an_id_that_is_not_ours_begins_anew(join: Any, client: Any, id: str) -> None:
    join("ann").say("kept", "tea-break", id=f"kept {id[:9]}")
    with events(client, id) as stream:
        assert message_of(stream, "tea-break")[1]["name"] == "ann"
