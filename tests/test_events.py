"""Listeners: registering them, their order, and what they are told."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from typing import Any, Callable

import gevent
import gevent.queue
import gevent.socket
import pytest

from faye_wsgi import Client, EventSource, HandshakeError, ReadyState, WebSocket
from faye_wsgi.driver.events import CloseEvent, MessageEvent, OpenEvent
from faye_wsgi.endpoint import EventTarget, handler

from .support import frames
from .support.peer import Peer
from .test_websocket import TIMEOUT, Exchange, exchange, make_environ, pair, refused

__all__ = ["exchange", "pair"]  # the fixtures

TYPES = ["open", "message", "ping", "pong", "drain", "error", "close"]


class Bell(EventTarget):
    """Something that happens to, without a connection."""

    EVENTS = frozenset(("open", "message"))
    onopen = handler("open")
    onmessage = handler("message")


class Heard(list):  # type: ignore[type-arg]
    """Who heard what, in order."""

    def by(self, name: str) -> Callable[[Any], None]:
        return lambda event: self.append((name, event.type))


@pytest.fixture
def heard() -> Heard:
    return Heard()


# Without a connection


def test_who_is_the_only_listener() -> None:
    bell = Bell()
    one, other = Heard().by("one"), Heard().by("other")
    assert bell.sole_listener("message") is None
    bell.on("message", one)
    assert bell.sole_listener("message") is one
    bell.onmessage = other
    assert bell.sole_listener("message") is None
    bell.remove_listener("message", one)
    assert bell.sole_listener("message") is other
    bell._after_listeners = list
    assert bell.sole_listener("message") is None


def test_handler_first_then_listeners_in_order(heard: Heard) -> None:
    bell = Bell()
    bell.on("open", heard.by("first"))
    bell.on("open", heard.by("second"))
    bell.onopen = heard.by("handler")
    bell.on("message", heard.by("other"))
    bell.dispatch(OpenEvent())
    assert heard == [("handler", "open"), ("first", "open"), ("second", "open")]


def test_on_as_a_decorator(heard: Heard) -> None:
    bell = Bell()

    @bell.on("open")
    def listener(event: OpenEvent) -> None:
        heard.append(event)

    event = OpenEvent()
    bell.dispatch(event)
    assert heard == [event]
    assert event.target is bell
    assert callable(listener), "the decorator gives the function back"


def test_on_returns_the_listener() -> None:
    def listener(event: Any) -> None: ...

    assert Bell().on("open", listener) is listener


def test_remove_listener(heard: Heard) -> None:
    bell = Bell()
    listener = bell.on("open", heard.by("listener"))
    bell.on("open", listener)
    bell.remove_listener("open", listener)  # one registration
    bell.dispatch(OpenEvent())
    assert len(heard) == 1
    bell.remove_listener("open", listener)
    bell.remove_listener("open", listener)  # there is none: nothing happens
    bell.remove_listener("message", listener)
    bell.dispatch(OpenEvent())
    assert len(heard) == 1
    assert not bell.has_listeners("open") and not bell.has_any_listeners


def test_bound_methods_can_be_removed() -> None:
    class Room:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def listen(self, event: Any) -> None:
            self.seen.append(event)

    bell, room = Bell(), Room()
    bell.on("open", room.listen)
    bell.remove_listener("open", room.listen)
    bell.dispatch(OpenEvent())
    assert room.seen == []


def test_the_handler_can_be_read_replaced_and_taken_away(heard: Heard) -> None:
    bell = Bell()
    assert bell.onopen is None
    bell.onopen = first = heard.by("first")
    assert bell.onopen is first
    bell.onopen = heard.by("second")
    bell.dispatch(OpenEvent())
    bell.onopen = None
    bell.dispatch(OpenEvent())
    assert heard == [("second", "open")]
    assert not bell.has_listeners("open")


def test_a_listener_may_add_and_remove_others(heard: Heard) -> None:
    """The event that is being told goes to those who were there at its start."""
    bell = Bell()

    def first(event: Any) -> None:
        bell.remove_listener("open", first)
        bell.on("open", heard.by("added"))
        heard.append(("first", event.type))

    bell.on("open", first)
    bell.on("open", heard.by("second"))
    bell.dispatch(OpenEvent())
    assert heard == [("first", "open"), ("second", "open")]
    bell.dispatch(OpenEvent())
    assert heard[2:] == [("second", "open"), ("added", "open")]


@pytest.mark.parametrize("name", ["mesage", "Open", "onopen", "", "close", None])
def test_a_misspelt_name_raises(name: Any) -> None:
    bell = Bell()
    for call in (bell.on, bell.remove_listener):
        with pytest.raises(ValueError, match="message, open"):
            call(name, lambda event: None)
    with pytest.raises(ValueError):
        bell.on(name)


@pytest.mark.parametrize("listener", [7, "listener", []])
def test_a_listener_is_callable(listener: Any) -> None:
    bell = Bell()
    with pytest.raises(TypeError):
        bell.on("open", listener)
    with pytest.raises(TypeError):
        bell.onopen = listener
    assert not bell.has_any_listeners


def test_events_are_values() -> None:
    assert MessageEvent("a") == MessageEvent("a") != MessageEvent("b")
    assert repr(CloseEvent(1000, "bye")) == "CloseEvent(code=1000, reason='bye')"


# On a connection


def test_every_event_has_its_handler() -> None:
    for name in TYPES:
        assert isinstance(getattr(WebSocket, f"on{name}"), property)
    assert WebSocket.EVENTS >= set(TYPES)


def test_the_life_of_a_connection(pair: tuple[WebSocket, Peer]) -> None:
    """Listeners set right after the constructor miss nothing."""
    ws, peer = pair
    seen: list[Any] = []
    for name in TYPES:
        ws.on(name, seen.append)
    peer.send_text("grüße")
    peer.send_binary(b"\x00\xff")
    peer.send_frame(frames.PING, "in")
    peer.send_frame(frames.PONG, "out")
    gevent.sleep(0.01)
    peer.send_close(4000, "bye")
    assert peer.read_frame()[:2] == (frames.PONG, b"in")
    assert peer.read_close().close_code == 4000
    peer.close()
    ws.wait_closed(TIMEOUT)
    gevent.sleep(0.01)
    assert [event.type for event in seen] == ["open", "message", "message", "ping", "pong", "close"]
    assert [event.data for event in seen[1:5]] == ["grüße", b"\x00\xff", b"in", b"out"]
    assert (seen[-1].code, seen[-1].reason) == (4000, "bye")
    assert all(event.target is ws for event in seen)


def test_an_error_is_followed_by_a_close(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    seen: list[Any] = []
    ws.onerror = seen.append
    ws.onclose = seen.append
    peer.send_frame(3, "no such opcode")
    assert peer.read_close().close_code == 1002
    peer.close()
    ws.wait_closed(TIMEOUT)
    gevent.sleep(0.01)
    assert [event.type for event in seen] == ["error", "close"]
    assert seen[0].message and seen[1].code == 1002


def test_the_close_event_comes_when_all_is_over(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    states: list[ReadyState] = []
    ws.on("close", lambda event: states.append(event.target.ready_state))
    ws.close()
    peer.finish()
    peer.close()
    ws.wait_closed(TIMEOUT)
    gevent.sleep(0.01)
    assert states == [ReadyState.CLOSED]


def test_messages_that_came_before_the_listener(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    for number in range(5):
        peer.send_text(str(number))
    gevent.sleep(0.01)
    seen: list[str] = []
    ws.onmessage = lambda event: seen.append(event.data)
    peer.send_text("5")
    gevent.sleep(0.01)
    assert seen == ["0", "1", "2", "3", "4", "5"]


def test_listeners_run_one_at_a_time_in_order(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    steps: list[str] = []

    @ws.on("message")
    def slow(event: MessageEvent) -> None:
        steps.append(f"begin {event.data}")
        gevent.sleep(0.01)
        steps.append(f"end {event.data}")

    ws.on("message", lambda event: steps.append(f"then {event.data}"))
    peer.send(frames.text("a") + frames.text("b"))
    gevent.sleep(0.1)
    assert steps == ["begin a", "end a", "then a", "begin b", "end b", "then b"]


def test_a_listener_that_blocks_delays_nobody_else(exchange: Callable[..., Exchange]) -> None:
    """Neither the hub, nor pongs, nor other connections."""
    slow, quick = exchange(), exchange()
    slow.accept().on("message", lambda event: gevent.sleep(0.2))
    ws = quick.accept()
    ws.on("message", lambda event: ws.send(event.data))
    slow.peer.send(frames.text("wait") + frames.frame(frames.PING, "there?"))
    quick.peer.send_text("hello")
    with gevent.Timeout(0.15):
        assert quick.peer.read_text() == "hello"
        assert slow.peer.read_frame()[:2] == (frames.PONG, b"there?")


def test_listeners_do_not_run_in_the_hub(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    where: list[Any] = []
    for name in ("open", "message", "close"):
        ws.on(name, lambda event: where.append(gevent.getcurrent()))
    peer.send_text("hello")
    gevent.sleep(0.01)
    ws.close()
    peer.finish()
    peer.close()
    ws.wait_closed(TIMEOUT)
    gevent.sleep(0.01)
    assert len(where) == 3
    assert gevent.get_hub() not in where and gevent.getcurrent() not in where


def test_a_listener_that_raises(
    pair: tuple[WebSocket, Peer], caplog: pytest.LogCaptureFixture, heard: Heard
) -> None:
    ws, peer = pair

    def fail(event: Any) -> None:
        raise RuntimeError("a fault of the application")

    ws.on("message", heard.by("before"))
    ws.on("message", fail)
    ws.on("message", heard.by("after"))
    ws.on("close", heard.by("close"))
    with caplog.at_level(logging.DEBUG, "faye_wsgi"):
        peer.send_text("hello")
        assert peer.read_close().close_code == 1011
        peer.send_close(1011)
        peer.read_eof()
        peer.close()
        ws.wait_closed(TIMEOUT)
        gevent.sleep(0.01)
    (record,) = caplog.records
    assert record.exc_info is not None and "a fault of the application" in caplog.text
    assert heard == [("before", "message"), ("close", "close")]
    assert ws.close_code == 1011


def test_a_ping_callback_that_raises(
    pair: tuple[WebSocket, Peer], caplog: pytest.LogCaptureFixture
) -> None:
    ws, peer = pair
    ws.ping("", lambda: 1 // 0)
    peer.read_frame()
    peer.send_frame(frames.PONG)
    assert peer.read_close().close_code == 1011
    assert caplog.text.count("ZeroDivisionError") == 1


def test_a_listener_may_close_and_reopen_nothing(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    ws.on("message", lambda event: ws.close(4000, event.data))
    peer.send_text("enough")
    frame = peer.read_close()
    assert (frame.close_code, frame.close_reason) == (4000, "enough")


def test_drain(pair: tuple[WebSocket, Peer]) -> None:
    ws, peer = pair
    drained: list[Any] = []
    ws.on("drain", drained.append)
    ws.send("small")
    assert peer.read_text() == "small"
    gevent.sleep(0.01)
    assert drained == [], "nothing waited"
    ws.send("x" * 4_000_000, timeout=0.01)
    peer.read_frame()
    gevent.sleep(0.01)
    assert drained and ws.buffered_amount == 0


def test_the_view_may_go_home(exchange: Callable[..., Exchange]) -> None:
    """With listeners the connection outlives the request; without any it is closed."""
    kept, left = exchange(), exchange()

    def listening(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        ws = kept.accept()
        ws.on("message", lambda event: ws.send(event.data))
        return ws.response(environ, start_response)

    def leaving(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        return left.accept().response(environ, start_response)

    kept.answer(listening)
    left.answer(leaving)
    assert left.peer.read_close().close_code == 1000
    kept.peer.send_text("still here")
    assert kept.peer.read_text() == "still here"


def test_a_listener_may_bring_another_and_take_itself_away(
    pair: tuple[WebSocket, Peer],
) -> None:
    """From the next message on, in the same read too."""
    ws, peer = pair
    heard: list[Any] = []

    def first(event: Any) -> None:
        heard.append(("first", event.data, event.target is ws))
        ws.remove_listener("message", first)
        ws.on("message", lambda event: heard.append(("second", event.data, event.target is ws)))

    ws.on("message", first)
    peer.send(frames.text("a") + frames.text("b") + frames.text("c"))
    with gevent.Timeout(TIMEOUT):
        while len(heard) < 3:
            gevent.sleep(0.002)
    assert heard == [("first", "a", True), ("second", "b", True), ("second", "c", True)]


# The end, for listeners that come after it


def ended(pair: tuple[WebSocket, Peer]) -> WebSocket:
    ws, peer = pair
    peer.finish(4001)
    peer.close()
    ws.wait_closed(TIMEOUT)
    gevent.sleep(0.01)  # nothing is left to be told
    return ws


def test_a_listener_that_comes_after_the_end(pair: tuple[WebSocket, Peer]) -> None:
    ws = ended(pair)
    heard = gevent.queue.Queue()
    ws.on("close", lambda event: heard.put((event, gevent.getcurrent())))
    assert heard.empty(), "not inside on"
    event, where = heard.get(timeout=TIMEOUT)
    assert (event.code, event.target) == (4001, ws)
    assert where not in (gevent.getcurrent(), gevent.get_hub())


def test_each_late_listener_runs_once_and_in_order(
    pair: tuple[WebSocket, Peer], heard: Heard
) -> None:
    ws = pair[0]
    ws.on("close", heard.by("in time"))
    ended(pair)
    taken_back = ws.on("close", heard.by("taken back"))
    for name in ("first", "second"):
        ws.on("close", heard.by(name))
    ws.remove_listener("close", taken_back)
    ws.onclose = heard.by("replaced")
    ws.onclose = handler = heard.by("handler")
    gevent.sleep(0.01)
    ws.on("close", heard.by("third"))
    ws.on("message", heard.by("message"))
    gevent.sleep(0.01)
    assert [name for name, _ in heard] == ["in time", "handler", "first", "second", "third"]
    assert ws.onclose is handler, "it can be read when it has run"


def test_listeners_that_come_while_the_end_is_told(
    pair: tuple[WebSocket, Peer], heard: Heard
) -> None:
    ws, peer = pair

    def first(event: Any) -> None:
        ws.on("close", heard.by("late"))
        ws.remove_listener("close", first)
        gevent.sleep(0.01)
        heard.append(("first", event.type))

    ws.on("close", first)
    peer.finish()
    peer.close()
    with gevent.Timeout(TIMEOUT):
        while len(heard) < 2:
            gevent.sleep(0.002)
    gevent.sleep(0.01)
    assert [name for name, _ in heard] == ["first", "late"], "one at a time"


def test_a_late_listener_that_raises(
    pair: tuple[WebSocket, Peer], heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    ws = ended(pair)
    ws.on("close", lambda event: 1 // 0)
    gevent.sleep(0.01)
    ws.on("close", heard.by("after it"))
    gevent.sleep(0.01)
    assert heard == [("after it", "close")]
    assert caplog.text.count("ZeroDivisionError") == 1


def test_a_late_listener_of_a_bad_handshake(heard: Heard) -> None:
    """An error is not repeated."""
    ws = refused(HTTP_SEC_WEBSOCKET_KEY="bad")
    ws.on("error", heard.by("in time"))
    ws.on("close", heard.by("in time"))
    gevent.sleep(0.01)
    for name in ("error", "close"):
        ws.on(name, heard.by("late"))  # type: ignore[arg-type]
    gevent.sleep(0.01)
    assert heard == [("in time", "error"), ("in time", "close"), ("late", "close")]


def test_a_late_listener_of_a_client_that_failed(heard: Heard) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        client = Client(f"ws://127.0.0.1:{unused.getsockname()[1]}/")
        with pytest.raises(HandshakeError):
            client.wait_open(TIMEOUT)
        gevent.sleep(0.01)
    for name in ("error", "close"):
        client.on(name, heard.by("late"))  # type: ignore[arg-type]
    gevent.sleep(0.01)
    assert heard == [("late", "close")]


def test_a_late_listener_from_another_thread(pair: tuple[WebSocket, Peer], heard: Heard) -> None:
    """It runs where the others do."""
    ws = ended(pair)
    threads: list[int] = []
    ws_on = threading.Thread(
        target=ws.on, args=("close", lambda event: threads.append(threading.get_ident()))
    )
    ws_on.start()
    with gevent.Timeout(TIMEOUT):
        while not threads:
            gevent.sleep(0.002)
    assert threads == [threading.get_ident()]


def test_a_late_pipe_ends_its_destination(pair: tuple[WebSocket, Peer]) -> None:
    class Sink:
        ends = 0

        def write(self, data: Any) -> None: ...

        def end(self) -> None:
            self.ends += 1

    sink = ended(pair).pipe(Sink())
    gevent.sleep(0.01)
    assert sink.ends == 1


def test_an_event_source_that_only_its_late_listener_needs() -> None:
    """The view has gone home, and the last reference goes before the listener's turn."""
    ours, client = gevent.socket.socketpair()
    environ = make_environ(ours, HTTP_UPGRADE=None, HTTP_CONNECTION=None)
    heard = gevent.queue.Queue()
    with client:
        es = EventSource(environ)
        es.response(environ, lambda *args: None)
        ours.close()  # as the server does
        gevent.sleep(0.01)
    es.wait_closed(TIMEOUT)
    gevent.sleep(0.01)
    es.on("close", heard.put)
    del es, environ
    gc.collect()
    assert heard.get(timeout=TIMEOUT).type == "close"
