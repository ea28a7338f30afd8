"""The decorators of a view, in Flask: what they refuse at once, and how a view may end."""

from __future__ import annotations

import logging
import socket
from typing import Any, Callable

import flask
import pytest

from faye_wsgi import ConnectionClosed, WebSocket
from faye_wsgi.flask import eventsource, websocket
from faye_wsgi.wsgi import decorators, handover

from ..support import frames
from ..test_websocket import Exchange, Untouchable, exchange, make_environ

__all__ = ["exchange"]

BOTH = pytest.mark.parametrize("decorator", [websocket, eventsource])


def serve(made: Exchange, view: Any) -> str:
    """The status of the response of an application that has this view alone."""
    app = flask.Flask(__name__)
    app.add_url_rule("/chat", "chat", view, websocket=True)
    return made.answer(app)


def closed_with(made: Exchange) -> int | None:
    """The code of our close frame, which is answered."""
    code = made.peer.read_close().close_code
    made.peer.send_close(code)
    made.peer.read_eof()
    return code


# What is refused when the module is imported, not with the first request


def generator(ws: Any) -> Any:
    yield


async def coroutine(ws: Any) -> None:
    pass


async def async_generator(ws: Any) -> Any:
    yield


@BOTH
@pytest.mark.parametrize("view", [generator, coroutine, async_generator])
def test_views_that_would_never_run(decorator: Any, view: Any) -> None:
    for decorate in (decorator, decorator(ping=5)):
        with pytest.raises(TypeError, match="ordinary function"):
            decorate(view)


@BOTH
def test_options_that_there_are_not(decorator: Any) -> None:
    with pytest.raises(TypeError, match="pign"):
        decorator(pign=5)(lambda ws: None)


@BOTH
def test_the_option_that_was_meant_is_named(decorator: Any) -> None:
    with pytest.raises(TypeError, match="no option 'ping_interval': did you mean 'ping'"):
        decorator(ping_interval=25)(lambda ws: None)


@BOTH
@pytest.mark.parametrize(
    "options, says",
    [
        ({"ping": "25"}, "ping is a number"),
        ({"high_water": 0}, "high_water is at least 1"),
        ({"headers": ["Cookie: a=b"]}, "write headers={'Cookie'"),
    ],
)
def test_bad_values_are_found_at_once(decorator: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        decorator(**options)(lambda ws: None)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"origins": "*"}, "origins=None"),
        ({"protocols": ["a b"]}, "no subprotocol name"),
        ({"max_length": 0}, "max_length is at least 1"),
        ({"extensions": [7]}, "7"),
    ],
)
def test_bad_values_of_a_websocket_are_found_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        websocket(**options)(lambda ws: None)


def test_an_iterator_does_for_every_request(exchange: Callable[..., Exchange]) -> None:
    view = websocket(iter(["irc"]), headers=iter([("X-Mine", "1")]))(lambda ws: None)
    for _ in range(2):
        made = exchange(HTTP_SEC_WEBSOCKET_PROTOCOL="irc")
        serve(made, view)
        head = made.peer.read_head()
        assert (head.get("Sec-WebSocket-Protocol"), head.get("X-Mine")) == ("irc", "1")


def test_too_many_arguments() -> None:
    with pytest.raises(TypeError):
        websocket(["irc"], ["amqp"])(lambda ws: None)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        eventsource(["irc"])(lambda es: None)


@BOTH
def test_a_view_keeps_its_name(decorator: Any) -> None:
    def view(connection: Any) -> None:
        """What it does."""

    for made in (decorator(view), decorator()(view), decorator(ping=1)(view)):
        assert (made.__name__, made.__doc__) == ("view", "What it does.")
        assert made.__wrapped__ is view


# How a view ends


def test_a_view_that_returns_closes(exchange: Callable[..., Exchange]) -> None:
    made = exchange(read_ahead=frames.text("hello"))

    @websocket
    def view(ws: WebSocket) -> str:
        ws.send(ws.receive())
        return "which is not used"

    assert serve(made, view).startswith("101 ")
    assert made.peer.read_head().status == 101
    assert made.peer.read_text() == "hello"
    assert closed_with(made) == 1000


class Refusal:
    """As a Response of Flask or Django."""

    def __init__(self, status: int) -> None:
        self.status_code = status


@pytest.mark.parametrize(
    "result, code",
    [
        ("a page", 1000),
        (Refusal(200), 1000),
        (Refusal(302), 1011),
        (Refusal(403), 1011),
        (("no", 401), 1011),
        (("yes", {"X-Mine": "1"}), 1000),
    ],
)
def test_a_view_that_returns_something_is_told_where_that_belongs(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture, result: Any, code: int
) -> None:
    """It is logged once, and a refusal is an error: the page must not believe that it is in."""
    decorators._warn_once.cache_clear()

    @websocket
    def view(ws: WebSocket) -> Any:
        return result

    for _ in range(2):
        made = exchange()
        assert serve(made, view).startswith("101 ")
        made.peer.read_head()
        assert closed_with(made) == code
    said = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert f"has returned a {type(result).__name__}, which is not used" in said[0].getMessage()
    assert "(such as login_required) above" in said[0].getMessage()


def test_a_view_that_returns_a_refusal_and_listens_is_closed(
    exchange: Callable[..., Exchange],
) -> None:
    made = exchange()

    @websocket
    def view(ws: WebSocket) -> Any:
        ws.on("message", lambda event: None)
        return Refusal(403)

    serve(made, view)
    made.peer.read_head()
    assert closed_with(made) == 1011


def test_a_view_that_returns_its_own_response_is_right(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    made = exchange()

    @websocket
    def view(ws: WebSocket) -> Any:
        return ws.response

    serve(made, view)
    made.peer.read_head()
    assert closed_with(made) == 1000
    assert caplog.text == ""


def test_a_view_that_leaves_nothing_behind_is_explained_once_as_information(
    exchange: Callable[..., Exchange],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = set()
    caplog.set_level("INFO", "faye_wsgi")
    monkeypatch.setattr(handover, "_hint_levels", iter([logging.INFO, logging.DEBUG]))

    @websocket
    def view(ws: WebSocket) -> None:
        kept.add(ws)

    for _ in range(2):
        made = exchange()
        serve(made, view)
        made.peer.read_head()
        assert closed_with(made) == 1000
    said = "its view has returned, and it has no listeners. Register one"
    assert caplog.text.count(said) == 1


def test_the_options_are_the_connections(exchange: Callable[..., Exchange]) -> None:
    made = exchange(HTTP_SEC_WEBSOCKET_PROTOCOL="amqp, irc")
    seen: list[str] = []
    serve(made, websocket(["irc"], headers={"X-Mine": "1"})(lambda ws: seen.append(ws.protocol)))
    head = made.peer.read_head()
    assert (seen, head.get("X-Mine")) == (["irc"], "1")


def test_a_view_that_raises_is_logged_once_and_closes_with_1011(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    made = exchange()

    @websocket
    def view(ws: WebSocket) -> None:
        raise LookupError("in a view")

    assert serve(made, view).startswith("500 ")  # which goes nowhere
    made.peer.read_head()
    assert closed_with(made) == 1011
    assert caplog.text.count("LookupError: in a view") == 1


def test_the_end_of_its_own_connection_is_no_failure(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    made = exchange()
    made.peer.send_close(1000)
    made.peer.sock.shutdown(socket.SHUT_WR)

    @websocket
    def view(ws: WebSocket) -> None:
        while True:
            ws.receive()

    assert serve(made, view).startswith("101 ")
    made.peer.read_head()
    assert made.peer.read_close().close_code == 1000
    assert caplog.text == ""


def test_the_end_of_another_connection_is_a_failure(
    exchange: Callable[..., Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    made = exchange()

    @websocket
    def view(ws: WebSocket) -> None:
        raise ConnectionClosed(1006, "of another")

    assert serve(made, view).startswith("500 ")
    made.peer.read_head()
    assert closed_with(made) == 1011
    assert "of another" in caplog.text


def test_a_refused_handshake_does_not_run_the_view() -> None:
    app = flask.Flask(__name__)
    ran: list[Any] = []
    app.add_url_rule("/chat", "chat", websocket(ran.append))
    said: list[str] = []
    environ = make_environ(Untouchable(), HTTP_UPGRADE=None)
    b"".join(app(environ, lambda status, headers, *rest: said.append(status)))
    assert said[0].startswith("426 ") and ran == []
