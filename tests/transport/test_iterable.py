"""A stream through the WSGI iterable, as an EventSource has it where no socket can be taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import pytest

from faye_wsgi import ConnectionClosed, EventSource

from ..test_eventsource import environ, retry_line, start_response
from .harness import NOTHING_FOR, TIMEOUT


def begun(es: EventSource, given: dict[str, Any]) -> Iterator[bytes]:
    """The response's iterator, with its first piece taken."""
    iterator = iter(es.response(given, start_response))
    assert next(iterator) == retry_line(5)
    return iterator


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_all_that_was_sent_comes_out_in_order() -> None:
    """All that was sent comes out, in order; then the end."""
    seen = []
    given = environ()
    es = EventSource(given, retry=1)
    es.on("open", lambda event: seen.append(("open", es.ready_state)))
    es.on("close", lambda event: seen.append(("close", es.ready_state)))
    assert es.ready_state == es.CONNECTING and not es.closed
    es.send("one")
    assert es.buffered_amount > 0
    assert es.close() is True
    assert es.close() is False
    with pytest.raises(ConnectionClosed):
        es.send("two")
    body = es.response(given, start_response)
    assert b"".join(body) == b"retry: 1000\r\n\r\ndata: one\r\n\r\n"
    assert es.ready_state == es.CLOSED
    assert seen == [("open", es.CLOSING), ("close", es.CLOSED)]


@pytest.mark.parametrize("kind", [SystemExit, gevent.GreenletExit])
def test_a_listener_that_exits(kind: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """It ends its stream, not the server's thread."""
    seen = []

    def leave(event: Any) -> None:
        raise kind("in a listener")

    given = environ()
    es = EventSource(given, ping=None)
    es.on("open", leave)
    es.on("close", lambda event: seen.append(event.type))
    assert b"".join(es.response(given, start_response)) == retry_line(5)
    assert seen == ["close"]
    assert caplog.text.count("in a listener\n") == 1


def test_what_is_sent_before_it_is_iterated_is_bounded() -> None:
    """A view that would send for ever is told why nothing goes out."""
    es = EventSource(environ())
    with pytest.raises(RuntimeError, match="returned"):
        for _ in range(1000):
            es.send("x" * 10_000)
    assert es.buffered_amount <= 2**20


def test_the_server_gives_it_up() -> None:
    """The server calls close() on the iterable (PEP 3333), and lets go of its iterator."""
    seen = []
    given = environ()
    es = EventSource(given, ping=None)
    es.on("close", lambda event: seen.append(event.type))
    body = es.response(given, start_response)
    iterator = iter(body)
    assert next(iterator) == retry_line(5)
    del iterator
    body.close()
    assert es.ready_state == es.CLOSED and seen == ["close"]
    with pytest.raises(ConnectionClosed):
        es.send("too late")


def test_it_is_never_iterated() -> None:
    """As after a HEAD request, or where a middleware puts another response in its place."""
    seen = []
    given = environ()
    es = EventSource(given, ping=None)
    es.on("close", lambda event: seen.append(event.type))
    es.response(given, start_response).close()
    assert es.ready_state == es.CLOSED and seen == ["close"]


def test_the_sender_is_held_back() -> None:
    given = environ()
    es = EventSource(given, ping=None, high_water=1000)
    iterator = iter(es.response(given, start_response))
    next(iterator)
    es.send("x" * 2000, timeout=0.05)
    for _ in range(3):
        with pytest.raises(TimeoutError, match="was not sent"):
            es.send("too late", timeout=0.01)
    assert len(next(iterator)) > 2000
    es.send("x" * 500, timeout=0.05)
    es.close()
    rest = b"".join(iterator)
    assert len(rest) > 500 and b"too late" not in rest


def test_silence_is_filled_with_comments() -> None:
    """Else proxies would cut the connection, and a peer that has gone stay unnoticed."""
    given = environ()
    es = EventSource(given, ping=0.01)
    iterator = begun(es, given)
    for _ in range(3):
        assert next(iterator).startswith(b":")
    es.send("x")
    assert next(iterator) == b"data: x\r\n\r\n"
    es.close()
    assert list(iterator) == []


def test_a_blocked_sender_goes_on_when_the_server_takes_a_piece() -> None:
    given = environ()
    es = EventSource(given, ping=None, high_water=1000)
    iterator = begun(es, given)
    drained: list[str] = []
    es.on("drain", lambda event: drained.append(event.type))
    sent = threading.Event()
    sender = in_thread(lambda: (es.send("x" * 2000), sent.set()))
    assert not sent.wait(NOTHING_FOR) and drained == []
    assert len(next(iterator)) > 2000
    assert sent.wait(TIMEOUT) and drained == ["drain"]
    sender.join(TIMEOUT)
    es.close()
    assert list(iterator) == []


def test_a_server_that_takes_nothing_ends_the_stream() -> None:
    """Its write to a peer that does not read goes on for ever."""
    given = environ()
    es = EventSource(given, ping=None, high_water=1000, send_timeout=0.05)
    iterator = begun(es, given)
    seen: list[str] = []
    es.on("close", lambda event: seen.append(event.type))
    with pytest.raises(ConnectionClosed):
        es.send("x" * 2000)
    assert es.closed and seen == ["close"]
    assert list(iterator) == []


def test_a_blocked_sender_learns_of_the_end() -> None:
    given = environ()
    es = EventSource(given, ping=None, high_water=10)
    body = es.response(given, start_response)
    iterator = iter(body)
    next(iterator)
    es.send("x" * 100, timeout=TIMEOUT)  # there was room before it
    results: list[Any] = []

    def send() -> None:
        try:
            results.append(es.send("y", timeout=TIMEOUT))
        except ConnectionClosed as error:
            results.append(error.target is es)

    sender = in_thread(send)
    del iterator
    body.close()
    sender.join(TIMEOUT)
    assert results == [True] and es.buffered_amount == 0


def test_waiting_for_the_end() -> None:
    given = environ()
    es = EventSource(given, ping=None)
    iterator = begun(es, given)
    with pytest.raises(TimeoutError):
        es.wait_closed(0.01)
    closed = threading.Event()
    waiter = in_thread(lambda: (es.wait_closed(TIMEOUT), closed.set()))
    es.close()
    assert list(iterator) == []
    assert closed.wait(TIMEOUT)
    waiter.join(TIMEOUT)
    es.wait_closed(0)


def test_a_listener_that_raises_ends_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    given = environ()
    es = EventSource(given, ping=None)
    es.on("open", lambda event: 1 // 0)
    es.send("sent before")
    assert b"".join(es.response(given, start_response)).endswith(b"data: sent before\r\n\r\n")
    assert caplog.text.count("ZeroDivisionError") == 1
    with pytest.raises(ConnectionClosed):
        es.send("after")


def test_ctrl_c_in_a_listener_reaches_the_server(caplog: pytest.LogCaptureFixture) -> None:
    given = environ()
    es = EventSource(given, ping=None)

    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    es.on("open", interrupt)
    body = es.response(given, start_response)
    with pytest.raises(KeyboardInterrupt):
        next(iter(body))
    body.close()
    assert es.closed
