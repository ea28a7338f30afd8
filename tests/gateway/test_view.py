"""The endpoint as its clients see it: in plain WSGI, WebOb, Flask and Django."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from webob import Request
from webob.dec import wsgify

from faye_wsgi import Channels, ConnectionClosed, HandshakeError
from faye_wsgi.gateway.view import SCRIPT
from faye_wsgi.testing import connect, connect_events

FOREIGN = {"Origin": "https://evil.example"}


@pytest.fixture
def channels() -> Channels:
    return Channels(history=100)


def authorize(request: Any, action: str, channel: str) -> Any:
    """Everything, but for channels whose name says otherwise."""
    if channel.startswith("secret"):
        return False
    if action == "publish":
        return not channel.startswith("readonly")
    if channel.startswith("people"):
        return {"user": "7", "presence": {"id": "7", "name": "Ada"}}
    return True


@pytest.fixture
def view(channels: Channels) -> Any:
    return channels.view(authorize)


def post(app: Any, message: Any, **options: Any) -> tuple[int, Any]:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    values = {"content_type": "application/json", "headers": {}, **options}
    request = Request.blank("/", method="POST", body=body, content_type=values["content_type"])
    request.headers.update(values["headers"])
    response = request.get_response(app)
    return response.status_code, response.json


def without_id(message: dict[str, Any]) -> dict[str, Any]:
    assert message.pop("id")
    return message


# WebSocket


def test_subscribe_publish_unsubscribe(view: Any) -> None:
    with connect(view, "/") as ws:
        ws.send_json({"subscribe": "a", "ref": 1})
        answer = ws.receive_json()
        assert without_id(answer) == {"subscribed": "a", "recovered": None, "ref": 1}
        ws.send_json({"publish": "a", "data": {"x": "ü"}, "ref": "p"})
        got = {("channel" in one): one for one in (ws.receive_json(), ws.receive_json())}
        assert got[False] == {"published": got[True]["id"], "ref": "p"}
        assert without_id(got[True]) == {"channel": "a", "data": {"x": "ü"}}
        ws.send_json({"unsubscribe": "a"})
        assert ws.receive_json() == {"unsubscribed": "a"}
        ws.send_json({"publish": "a", "data": 2})
        assert "published" in ws.receive_json()
        ws.send_json({"subscribe": "a"})
        assert ws.receive_json()["subscribed"] == "a"


def test_a_list_is_answered_as_a_list(view: Any) -> None:
    with connect(view, "/") as ws:
        ws.send_json({"subscribe": ["a", "b", "secret"], "ref": 1})
        answers = [ws.receive_json(), ws.receive_json()]
        by_kind = {next(iter(answer)): answer for answer in answers}
        assert by_kind["subscribed"]["subscribed"] == ["a", "b"]
        assert by_kind["error"]["error"] == "forbidden"
        assert by_kind["error"]["channel"] == "secret" and by_kind["error"]["ref"] == 1


def test_it_resumes_several_channels_at_once(channels: Channels, view: Any) -> None:
    cursor = channels.cursor("a", "b")
    sent = [channels.publish("ab"[number % 2], number) for number in range(6)]
    with connect(view, "/") as ws:
        ws.send_json({"subscribe": ["a", "b"], "since": cursor})
        assert [ws.receive_json()["id"] for _ in sent] == sent
        answer = ws.receive_json()
        assert without_id(answer) == {"subscribed": ["a", "b"], "recovered": True}


def test_what_is_lost_is_a_reset() -> None:
    channels = Channels(history=1)
    cursor = channels.cursor("a")
    for number in range(3):
        channels.publish("a", number)
    with connect(channels.view(authorize), "/") as ws:
        ws.send_json({"subscribe": "a", "since": cursor})
        assert ws.receive_json()["reset"] is True
        assert ws.receive_json()["recovered"] is False


def test_the_last_messages_and_the_history(channels: Channels) -> None:
    for number in range(5):
        channels.publish("a", number)
    view = channels.view(lambda request, action, channel: {"last": 2, "history": 3})
    with connect(view, "/") as ws:
        ws.send_json({"subscribe": "a", "last": 100})
        assert [ws.receive_json()["data"] for _ in range(2)] == [3, 4]
        assert ws.receive_json()["subscribed"] == "a"
        ws.send_json({"history": "a", "limit": 100})
        answer = ws.receive_json()
        assert [message["data"] for message in answer["messages"]] == [2, 3, 4]
        ws.send_json({"history": "a", "since": answer["messages"][1]["id"]})
        assert [message["data"] for message in ws.receive_json()["messages"]] == [4]


def test_an_old_cursor_gets_what_is_granted(channels: Channels) -> None:
    """A client that has seen one message can make up the cursor of any other one."""
    cursor = channels.cursor("a")
    sent = [channels.publish("a", number) for number in range(6)]
    view = channels.view(lambda request, action, channel: {"history": 3})
    with connect(view, "/") as ws:
        ws.send_json({"subscribe": "a", "since": sent[2]})
        assert [ws.receive_json()["id"] for _ in range(3)] == sent[3:]
        assert ws.receive_json()["recovered"] is True
    for since in (cursor, sent[1]):
        with connect(view, "/") as ws:
            ws.send_json({"subscribe": "a", "since": since})
            assert ws.receive_json()["reset"] is True
            assert ws.receive_json()["recovered"] is False
            for limit, expected in ((100, sent[3:]), (2, sent[3:5])):
                ws.send_json({"history": "a", "since": since, "limit": limit})
                answer = ws.receive_json()
                assert [message["id"] for message in answer["messages"]] == expected
        with connect_events(view, f"/?channel=a&since={since}") as es:
            assert json.loads(es.receive().data)["reset"] is True


def test_presence(channels: Channels, view: Any) -> None:
    with connect(view, "/") as ada, connect(view, "/") as ben:
        ada.send_json({"subscribe": "people"})
        got = [ada.receive_json(), ada.receive_json()]
        assert {"channel": "people", "joined": {"7": {"name": "Ada"}}} in got
        ben.send_json({"presence": "people", "ref": 1})
        members = {"7": [{"name": "Ada"}]}
        assert ben.receive_json() == {
            "presence": "people",
            "count": 1,
            "members": members,
            "ref": 1,
        }


def test_publishing_again_with_a_key_does_nothing(view: Any) -> None:
    with connect(view, "/") as ws:
        for _ in range(2):
            ws.send_json({"publish": "a", "data": 1, "key": "k"})
        assert ws.receive_json() == ws.receive_json()
        ws.send_json({"history": "a"})
        assert len(ws.receive_json()["messages"]) == 1


def test_the_application_makes_what_is_published(channels: Channels) -> None:
    def make(said: Any) -> dict[str, Any]:
        if not isinstance(said, str):
            raise ValueError("only texts")
        return {"text": said, "author": 7}

    with connect(channels.view(lambda request, action, channel: {"data": make}), "/") as ws:
        ws.send_json({"publish": "a", "data": {"text": "forged", "author": 8}})
        refused = {"error": "invalid", "message": "only texts", "channel": "a"}
        assert ws.receive_json() == refused
        ws.send_json({"publish": "a", "data": "hello"})
        assert "published" in ws.receive_json()
        ws.send_json({"history": "a"})
        (message,) = ws.receive_json()["messages"]
        assert message["data"] == {"text": "hello", "author": 7}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"subscribe": "secret"}, "forbidden"),
        ({"publish": "readonly", "data": 1}, "forbidden"),
        ({"presence": "secret"}, "forbidden"),
        ({"history": "secret"}, "forbidden"),
        ({"subscribe": "secret", "token": "secret.forged"}, "forbidden"),
        ({"subscribe": "$control"}, "invalid"),
        ({"subscribe": "a\nb"}, "invalid"),
        ({"subscribe": "\ud800"}, "invalid"),
        ({"subscribe": "a" * 300}, "invalid"),
        ({"subscribe": "a", "since": "not a cursor"}, "invalid"),
        ({"subscribe": [f"a{number}" for number in range(129)]}, "limit"),
        ({"publish": "a", "data": "x" * 70_000}, "invalid"),
        ({"nonsense": 1}, "invalid"),
    ],
)
def test_what_is_refused_leaves_the_connection(view: Any, message: Any, code: str) -> None:
    with connect(view, "/") as ws:
        ws.send_json(message)
        assert ws.receive_json()["error"] == code
        ws.send(b"binary")
        assert ws.receive_json()["error"] == "invalid"
        ws.send_json({"ping": 1, "ref": 1})
        assert ws.receive_json() == {"pong": 1}


def test_names_are_checked_before_the_application_is_asked(channels: Channels) -> None:
    def never(request: Any, action: str, channel: str) -> bool:
        raise AssertionError(channel)

    with connect(channels.view(never), "/") as ws:
        ws.send_json({"publish": "$control", "data": 1})
        assert ws.receive_json()["error"] == "invalid"


def test_a_channel_is_subscribed_to_once(view: Any) -> None:
    with connect(view, "/") as ws:
        ws.send_json({"subscribe": "a"})
        ws.receive_json()
        ws.send_json({"subscribe": "a", "since": "1-0"})
        assert ws.receive_json()["error"] == "invalid"


def test_a_signed_name_is_enough() -> None:
    channels = Channels(secret="a long random text")
    view = channels.view()
    with connect(view, "/") as ws:
        ws.send_json({"subscribe": "a"})
        assert ws.receive_json()["error"] == "forbidden"
        ws.send_json({"subscribe": ["a", "b"], "token": [channels.sign("a"), channels.sign("c")]})
        got = [ws.receive_json(), ws.receive_json()]
        assert {one.get("channel") for one in got if "error" in one} == {"b"}
        assert ["a"] in [one.get("subscribed") for one in got]
        ws.send_json({"publish": "a", "data": 1})
        assert ws.receive_json()["error"] == "forbidden"


def test_a_thousand_subscriptions_stop_at_the_limit(channels: Channels, view: Any) -> None:
    with connect(view, "/") as ws:
        for number in range(200):
            ws.send_json({"subscribe": f"a{number}"})
        answers = [ws.receive_json() for _ in range(200)]
        refused = [answer for answer in answers if "error" in answer]
        assert len(refused) == 72 and {answer["error"] for answer in refused} == {"limit"}


def test_a_flood_of_subscriptions_is_closed(channels: Channels) -> None:
    view = channels.view(authorize, rate=500, burst=1)
    with connect(view, "/") as ws:
        with pytest.raises(ConnectionClosed):
            for _ in range(1_000):
                ws.send_json({"unsubscribe": "a"})
                ws.receive()
        assert ws.wait_closed() == 1008


def test_a_large_message_is_closed(view: Any) -> None:
    with connect(view, "/") as ws:
        with pytest.raises(ConnectionClosed):
            ws.send("x" * 10_000_000)
            ws.receive()
        assert ws.wait_closed() == 1009


def test_another_origin_is_refused(view: Any) -> None:
    with pytest.raises(HandshakeError) as caught:
        with connect(view, "/", headers=FOREIGN):
            pass
    assert caught.value.status_code == 403


def test_what_authorize_raises_closes_the_connection(channels: Channels) -> None:
    def fail(request: Any, action: str, channel: str) -> bool:
        raise LookupError(channel)

    with pytest.raises(LookupError):
        with connect(channels.view(fail), "/") as ws:
            ws.send_json({"subscribe": "a"})
            ws.receive()


def test_an_unknown_option_of_authorize(channels: Channels) -> None:
    with pytest.raises(TypeError, match="colour"):
        with connect(channels.view(lambda *_: {"colour": 1}), "/") as ws:
            ws.send_json({"subscribe": "a"})
            ws.receive()


def test_release_is_called_after_each_message(channels: Channels) -> None:
    calls: list[int] = []
    with connect(channels.view(authorize, release=lambda: calls.append(1)), "/") as ws:
        for _ in range(3):
            ws.send_json({"publish": "a", "data": 1})
            ws.receive()
    assert len(calls) == 3


# Event streams


def test_an_event_stream(channels: Channels, view: Any) -> None:
    cursor = channels.cursor("a", "b")
    first = channels.publish("a", 1)
    with connect_events(view, f"/?channel=a&channel=b&channel=secret&since={cursor}") as es:
        event = es.receive()
        assert (event.id, json.loads(event.data)["data"]) == (first, 1)
        assert json.loads(es.receive().data)["recovered"] is True
        assert json.loads(es.receive().data)["channel"] == "secret"
        second = channels.publish("b", 2)
        assert es.receive().id == second
    with connect_events(view, f"/?channel=b&since={cursor}", last_event_id=first) as es:
        assert es.receive().id == second  # the header goes before the parameter


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("channel=secret", 403),
        ("", 400),
        ("channel=a&last=x", 400),
        ("channel=$a", 400),
        ("&".join(f"channel={number}" for number in range(129)), 413),
    ],
)
def test_an_event_stream_is_refused(view: Any, query: str, status: int) -> None:
    with pytest.raises(HandshakeError) as caught:
        with connect_events(view, f"/?{query}"):
            pass
    assert caught.value.status_code == status


def test_an_event_stream_of_another_origin(view: Any) -> None:
    with pytest.raises(HandshakeError) as caught:
        with connect_events(view, "/?channel=a", headers=FOREIGN):
            pass
    assert caught.value.status_code == 403


def test_an_origin_is_told_once(view: Any, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        with pytest.raises(HandshakeError), connect(view, "/", headers=FOREIGN):
            pass
        with pytest.raises(HandshakeError), connect_events(view, "/?channel=a", headers=FOREIGN):
            pass
    assert len(caplog.records) == 1 and "https://evil.example" in caplog.text


def test_a_full_process_refuses_both_kinds(channels: Channels) -> None:
    view = channels.view(authorize, max_connections=1)
    with connect(view, "/"):
        for refused in (connect(view, "/"), connect_events(view, "/?channel=a")):
            with pytest.raises(HandshakeError) as caught, refused:
                pass
            assert caught.value.status_code == 503


def test_both_kinds_are_checked_again(channels: Channels) -> None:
    view = channels.view(authorize, check=lambda connection: False, check_every=0.01)
    with connect(view, "/") as ws:
        assert ws.wait_closed() == 4401
    with connect_events(view, "/?channel=a") as es:
        es.wait_ended()


# Single requests


def test_post(channels: Channels, view: Any) -> None:
    status, answer = post(view, {"publish": "a", "data": 1, "ref": 5})
    assert status == 200 and answer == {"published": channels.history("a")[0].id, "ref": 5}
    status, answer = post(view, {"history": "a"})
    assert status == 200 and answer["messages"][0]["data"] == 1
    assert post(view, {"presence": "a"}) == (200, {"presence": "a", "count": 0, "members": {}})


@pytest.mark.parametrize(
    ("message", "options", "status"),
    [
        ({"publish": "readonly", "data": 1}, {}, 403),
        ({"publish": "a", "data": 1}, {"headers": FOREIGN}, 403),
        ({"publish": "a", "data": 1}, {"headers": {"Origin": "null"}}, 403),
        ({"publish": "a", "data": 1}, {"headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
        ({"publish": "a", "data": 1}, {"content_type": "text/plain"}, 400),
        ({"publish": "a", "data": 1}, {"content_type": "application/x-www-form-urlencoded"}, 400),
        ({"subscribe": "a"}, {}, 400),
        ({"publish": "a"}, {}, 400),
        (b"\xff", {}, 400),
        (b"x" * 10_000_000, {}, 413),
    ],
)
def test_a_post_is_refused(
    channels: Channels, view: Any, message: Any, options: Any, status: int
) -> None:
    assert post(view, message, **options)[0] == status
    assert channels.history("a") == []


def test_posts_have_a_rate(channels: Channels) -> None:
    """As messages of a WebSocket have. An address has it; the next one is served."""
    view = channels.view(authorize, rate=0.1, burst=3)
    here = {"REMOTE_ADDR": "192.0.2.1"}
    for message in ({"publish": "a", "data": 1}, {"history": "a"}, {"nonsense": 1}):
        send(view, message, here)
    response = send(view, {"publish": "a", "data": 2}, here)
    assert response.status_code == 429 and response.json["error"] == "rate"
    assert 1 <= int(response.headers["Retry-After"]) <= 10
    response = send(view, {"publish": "a", "data": 3}, {**here, "HTTP_X_FORWARDED_FOR": "1.1.1.1"})
    assert response.status_code == 429  # a header that a client can write
    assert send(view, {"publish": "a", "data": 4}, {"REMOTE_ADDR": "192.0.2.2"}).status_code == 200
    assert [message.data for message in channels.history("a")] == [1, 4]


def test_behind_a_proxy_the_rate_is_of_the_address_that_it_names(channels: Channels) -> None:
    view = channels.view(authorize, rate=0.1, burst=1, trust_forwarded=True)
    said = ["1.1.1.1", "2.2.2.2", "2.2.2.2", "3.3.3.3, 2.2.2.2", "2.2.2.2, 3.3.3.3"]
    answers = [send(view, {"history": "a"}, {"HTTP_X_FORWARDED_FOR": one}) for one in said]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 200]


def send(view: Any, message: Any, environ: dict[str, str]) -> Any:
    body = json.dumps(message).encode()
    kind = "application/json"
    request = Request.blank("/", environ, method="POST", body=body, content_type=kind)
    return request.get_response(view)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"HTTP_ORIGIN": "https://evil.example"},
        {"CONTENT_TYPE": "text/plain"},
        {"REMOTE_ADDR": "192.0.2.9"},  # too fast
    ],
)
def test_a_body_that_is_not_wanted_is_discarded(channels: Channels, more: dict[str, str]) -> None:
    """The server would do that, and nothing else meanwhile."""
    view = channels.view(authorize, rate=0.1, burst=1)
    send(view, {"history": "a"}, {"REMOTE_ADDR": "192.0.2.9"})
    body = io.BytesIO(b"x" * 300_000 + b"the next request")
    kinds = {"content_type": "application/json", "content_length": 300_000}
    request = Request.blank("/", method="POST", **kinds)
    request.environ.update({"wsgi.input": body, **more})
    assert request.get_response(view).status_code in (400, 403, 413, 429)
    assert body.read() == b"the next request"


def test_a_body_without_its_length_is_not_read(view: Any) -> None:
    request = Request.blank("/", method="POST", content_type="application/json")
    request.environ.pop("CONTENT_LENGTH", None)
    request.environ["wsgi.input"] = SimpleNamespace(read=None)
    assert request.get_response(view).status_code == 400


def test_allowed_origins_get_the_headers_for_them(channels: Channels) -> None:
    view = channels.view(authorize, origins=["https://pages.example"])
    headers = {"Origin": "https://pages.example"}
    request = Request.blank("/", method="OPTIONS", headers=headers)
    response = request.get_response(view)
    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Origin"] == "https://pages.example"
    assert response.headers["Access-Control-Allow-Headers"] == "Content-Type"
    assert post(view, {"publish": "a", "data": 1}, headers=headers)[0] == 200
    assert Request.blank("/", method="OPTIONS").get_response(view).headers.get("Vary") is None


# The script


def test_any_other_get_is_the_script(view: Any) -> None:
    response = Request.blank("/").get_response(view)
    assert response.body == SCRIPT.read_bytes()
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    again = Request.blank("/", headers={"If-None-Match": response.headers["ETag"]})
    assert again.get_response(view).status_code == 304
    assert Request.blank("/", method="DELETE").get_response(view).status_code == 405


def test_wrong_options_are_refused_at_once(channels: Channels) -> None:
    for options in ({"colour": 1}, {"authorize": 1}):
        with pytest.raises(TypeError):
            channels.view(**options)  # type: ignore[arg-type]
    for values in ({"rate": 0}, {"burst": 0}, {"origins": "*"}, {"ping": -1}):
        with pytest.raises(ValueError):
            channels.view(authorize, **values)


# Frameworks


def in_flask(channels: Channels) -> Any:
    from flask import Flask, request, session, url_for

    from faye_wsgi.flask import add_channels

    app = Flask(__name__)
    app.secret_key = "for tests only"

    def allow(given: Any, action: str, channel: str) -> bool:
        assert request.path == given.path == url_for("channels") == "/channels"
        return session.get("name") is None and channel != "secret"

    add_channels(app, "/channels", channels, allow)
    return app.test_client()


def in_django(channels: Channels) -> Any:
    from django.http import HttpRequest
    from django.test import Client, override_settings
    from django.urls import path

    from tests.support.apps import django_app  # noqa: F401 - Django's settings

    def allow(request: Any, action: str, channel: str) -> bool:
        assert isinstance(request, HttpRequest)
        return channel != "secret"

    urls = (path("channels", channels.view(allow)),)
    return Client(enforce_csrf_checks=True), override_settings(ROOT_URLCONF=urls)


def in_webob(channels: Channels) -> Any:
    def allow(request: Any, action: str, channel: str) -> bool:
        assert isinstance(request, Request)
        return channel != "secret"

    return wsgify(channels.view(allow))


@pytest.fixture(params=["webob", "flask", "django"])
def client(request: pytest.FixtureRequest, channels: Channels) -> Iterator[Any]:
    if request.param == "webob":
        yield in_webob(channels)
    elif request.param == "flask":
        yield in_flask(channels)
    else:
        made, settings = in_django(channels)
        with settings:
            yield made


def test_in_a_framework(client: Any, channels: Channels) -> None:
    with connect(client, "/channels") as ws:
        ws.send_json({"subscribe": ["a", "secret"]})
        assert {next(iter(ws.receive_json())) for _ in range(2)} == {"subscribed", "error"}
        with connect_events(client, "/channels?channel=a") as es:
            assert json.loads(es.receive().data)["subscribed"] == ["a"]
            channels.publish("a", 1)
            assert json.loads(es.receive().data)["data"] == 1
        assert ws.receive_json()["data"] == 1
        publish_by_post(client, channels)
        assert ws.receive_json()["data"] == "posted"


def publish_by_post(client: Any, channels: Channels) -> None:
    message = json.dumps({"publish": "a", "data": "posted"})
    if isinstance(client, wsgify):
        assert post(client, message.encode())[0] == 200
        return
    response = client.post("/channels", data=message, content_type="application/json")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    forged = client.post("/channels", data=message, content_type="text/plain")
    assert forged.status_code == 400
    script = client.get("/channels")
    assert "javascript" in script.headers["Content-Type"]
    assert b"".join(script if hasattr(script, "__iter__") else [script.data]) == SCRIPT.read_bytes()


def test_outside_of_flask_it_needs_a_request(view: Any) -> None:
    with pytest.raises(TypeError, match="request"):
        view()


def test_a_body_is_read_to_its_length(view: Any) -> None:
    """What follows on the connection is another request."""
    body = json.dumps({"publish": "a", "data": 1}).encode()
    request = Request.blank("/", method="POST", content_type="application/json")
    request.environ["CONTENT_LENGTH"] = str(len(body))
    request.environ["wsgi.input"] = io.BytesIO(body + b"GET / HTTP/1.1")
    assert request.get_response(view).status_code == 200
