"""The options that WebSocket and Client share are the same everywhere they are shown."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any

import pytest

from faye_wsgi import Client, EventSource, EventSourceClient, WebSocket
from faye_wsgi.transport.settings import Options, Settings, make_settings

from .test_readme import ROOT

SHARED = {field.name: field for field in fields(Settings) if field.name != "awaits_server"}
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \|", re.MULTILINE)


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def chapter(page: str, heading: str) -> str:
    """What stands below a heading of a page of the handbook."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_type_checkers_see_what_is_there() -> None:
    seen = {name: one.__forward_arg__ for name, one in Options.__annotations__.items()}
    assert seen == {name: field.type for name, field in SHARED.items()}


@pytest.mark.parametrize("kind", [WebSocket, Client])
def test_signatures_show_each_option(kind: Any) -> None:
    shown = parameters(kind)
    for name, field in SHARED.items():
        assert (shown[name].kind, shown[name].default) == (
            inspect.Parameter.KEYWORD_ONLY,
            field.default,
        )
    assert not [one for one in shown.values() if one.kind is one.VAR_KEYWORD]


def test_every_option_is_described() -> None:
    described = re.findall(r":param (\w+):", Settings.__doc__ or "")
    assert described == list(SHARED)


@pytest.mark.parametrize(
    "page, heading, kind",
    [("websocket.md", "Options", WebSocket), ("client.md", "Client", Client)],
)
def test_the_handbook_has_all_options_with_their_defaults(
    page: str, heading: str, kind: Any
) -> None:
    """``as ping`` and ``none`` say more than the default value does."""
    rows = dict(ROW.findall(chapter(page, heading)))
    own = {name: one for name, one in parameters(kind).items() if name not in ("request", "url")}
    if kind is Client:  # it refers to those of the server, and names ``ca`` beside ``tls``
        own = {name: one for name, one in own.items() if name not in {*SHARED, "extensions", "ca"}}
    assert rows.keys() == own.keys()
    for name, shown in rows.items():
        default = own[name].default
        if shown in ("none", "as `ping`"):
            assert default in (None, ())
        else:
            assert shown.strip("`") == repr(default).removesuffix(".0")


def test_the_handbook_has_the_options_of_an_event_streams_client() -> None:
    shown: dict[str, str] = {}
    options = chapter("client.md", "EventSourceClient")
    for row in re.findall(r"^\| `.*$", options, re.MULTILINE):
        names, defaults = (cell.strip() for cell in row.split("|")[1:3])
        listed = re.findall(r"`(\w+)`", names)
        shown.update(zip(listed, defaults.split(", ") if defaults else [""] * len(listed)))
    own = {name: one for name, one in parameters(EventSourceClient).items() if name != "url"}
    assert shown.keys() == own.keys()
    for name, default in shown.items():
        same = parameters(Client)[name].default if default == "" else default
        assert own[name].default == same or repr(own[name].default).removesuffix(".0") == same


def test_an_event_stream_has_the_same_defaults() -> None:
    for name in ("high_water", "close_timeout", "send_timeout"):
        assert parameters(EventSource)[name].default == SHARED[name].default


@pytest.mark.parametrize("name", ["pings", "awaits_server"])
def test_an_option_that_there_is_not(name: str) -> None:
    """It is named, whatever its value is."""
    with pytest.raises(TypeError, match=f"no option '{name}'"):
        make_settings(**{name: []})  # type: ignore[misc]


def test_the_same_options_are_checked_once() -> None:
    assert make_settings(ping=25) is make_settings(ping=25)
    assert make_settings(ping=25).ping_timeout == 25
    with pytest.raises(TypeError):
        make_settings(ping=True)  # which equals 1


# The names that other libraries use


NAMED_ELSEWHERE = [
    ("ping_interval", "ping"),  # websockets, flask-sock
    ("max_size", "max_length"),
    ("max_message_size", "max_length"),
    ("maxPayload", "max_length"),  # ws
    ("perMessageDeflate", "extensions"),
    ("compression", "extensions"),
    ("subprotocols", "protocols"),
    ("handleProtocols", "protocols"),
    ("extra_headers", "headers"),
    ("write_limit", "high_water"),
    ("cors_allowed_origins", "origins"),
    ("maxLength", "max_length"),  # our own, in the spelling of faye
    ("pign_timeout", "ping_timeout"),  # misspelt
]


@pytest.mark.parametrize("name, meant", NAMED_ELSEWHERE)
def test_the_option_that_was_meant_is_named(name: str, meant: str) -> None:
    with pytest.raises(TypeError) as caught:
        WebSocket({}, **{name: 25})  # type: ignore[misc]
    said = str(caught.value)
    assert f"no option {name!r}: did you mean {meant!r}?" in said
    assert "There are protocols, extensions, headers, origins, " in said and "ping_timeout" in said


@pytest.mark.parametrize(
    "name, meant",
    [("handshakeTimeout", "open_timeout"), ("sslopt", "tls"), ("origin", "headers")],
)
def test_a_client_has_names_of_its_own(name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
        Client("ws://127.0.0.1:1/", **{name: 1})  # type: ignore[misc]


def test_an_event_stream_has_fewer_options() -> None:
    with pytest.raises(TypeError, match="did you mean 'ping'.* There are headers, retry, ping,"):
        EventSource({}, heartbeat=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no option 'max_size'. There are"):
        EventSource({}, max_size=1)  # type: ignore[call-arg]


def test_a_name_like_no_other_has_no_nearest() -> None:
    with pytest.raises(TypeError, match=r"no option 'qqq'\. There are"):
        WebSocket({}, qqq=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options, says",
    [
        ({"delay": 2}, "did you mean 'first_delay'"),
        ({"ping_interval": 2}, "did you mean 'ping'"),
        ({"ping": -1}, "ping is a finite number"),
        ({"headers": ["Cookie: a=b"]}, "write headers={'Cookie': '...'}"),
        ({"max_redirects": -1}, "max_redirects is at least 1"),
    ],
)
def test_reconnecting_checks_before_its_loop_begins(options: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        Client.reconnecting("ws://127.0.0.1:1/", **options)


def test_reconnecting_checks_its_url_before_its_loop_begins() -> None:
    with pytest.raises(ValueError):
        Client.reconnecting("http://127.0.0.1:1/")
