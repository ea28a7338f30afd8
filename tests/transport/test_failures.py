"""Exceptions in the hub: they end the connection to which they happen, and no other one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import greenlet
import pytest

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.driver.hybi import Hybi
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.transport import dispatcher as dispatcher_module
from faye_wsgi.transport import hubs
from faye_wsgi.transport.connection import Connection
from faye_wsgi.transport.settings import Settings
from faye_wsgi.transport.stream import PlainSocket

from ..support import frames
from . import harness
from .harness import TIMEOUT, Pair, Sink, is_open, pair, until

FAILURES = [MemoryError, LookupError, OSError]


class Fragile(Hybi):
    """A driver that can be broken."""

    def break_down(self, error: BaseException) -> None:
        self.receive_data = self.close = raising(error)  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "Hybi", Fragile)


@pytest.fixture
def both() -> Iterator[Pair]:
    with pair() as made:
        made.sink.record("error", "close")
        yield made


@pytest.fixture
def bystander() -> Iterator[Pair]:
    """Another connection of the hub, which goes on."""
    with pair() as made:
        made.sink.on("message", lambda event: made.connection.outbox.send(event.data))
        yield made
        made.peer.send_text("still here")
        assert made.peer.read_text() == "still here"


def break_driver(both: Pair, error: BaseException) -> None:
    assert isinstance(both.connection.driver, Fragile)
    both.connection.driver.break_down(error)


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any) -> Any:
        raise error

    return fail


def assert_ended(both: Pair) -> None:
    """As after any loss: the events, then nothing is left."""
    until(lambda: both.sink.names == ["error", "close"])
    assert both.sink.close_event.code == 1006
    assert both.connection.state == ReadyState.CLOSED
    assert not both.descriptor_is_open
    assert both.connection not in hubs.members(gevent.get_hub())
    with pytest.raises(ConnectionClosed) as caught:
        both.connection.inbox.receive(TIMEOUT)
    assert caught.value.code == 1006


def assert_logged_once(caplog: Any, error: BaseException) -> None:
    (record,) = [record for record in caplog.records if record.name == "faye_wsgi"]
    assert record.exc_info[1] is error and record.exc_info[2] is not None


# Where the hub calls


def in_a_read(both: Pair, error: BaseException) -> None:
    break_driver(both, error)
    both.peer.send_text("x")


def in_a_write(both: Pair, error: BaseException) -> None:
    stream = both.connection.stream
    assert stream is not None
    stream.write(b"x" * (1 << 22))
    assert stream.is_blocked
    stream._send = raising(error)
    assert both.peer.sock.recv(1 << 20)


def in_a_timer(both: Pair, error: BaseException) -> None:
    both.connection.clock.expect_end(0.0, raising(error))


def in_a_timeout_of_receive(both: Pair, error: BaseException) -> None:
    both.connection.inbox._start_timer(0.0, raising_waiter(both, error))


def raising_waiter(both: Pair, error: BaseException) -> Any:
    """A greenlet that waits for a message, and whose end by ``error`` comes to the hub."""

    def wait() -> None:
        both.connection.inbox.receive()
        raise AssertionError("there is no message")

    def fail() -> None:
        try:
            wait()
        except TimeoutError:
            raise error from None

    waiter = greenlet.greenlet(fail, gevent.get_hub())
    gevent.get_hub().loop.run_callback(waiter.switch)
    harness.turn()
    return waiter


def in_a_callback(both: Pair, error: BaseException) -> None:
    both.connection.call_soon(raising(error))


def in_a_call_from_a_thread(both: Pair, error: BaseException) -> None:
    both.connection.crossing.call(raising(error))


ENTRIES = [in_a_read, in_a_write, in_a_timer, in_a_callback, in_a_call_from_a_thread]
CASES = [
    (enter, kind)
    for enter in ENTRIES
    for kind in FAILURES
    if (enter, kind) != (in_a_write, OSError)  # a broken connection, and no failure
]


@pytest.mark.parametrize("enter, kind", CASES)
def test_what_raises_in_the_hub_ends_its_connection(
    both: Pair, bystander: Pair, enter: Any, kind: type[Exception], caplog: Any
) -> None:
    harness.turn()
    error = kind("in the hub")
    enter(both, error)
    assert_ended(both)
    assert_logged_once(caplog, error)


def test_a_greenlet_that_dies_into_the_hub_ends_its_connection_alone(
    both: Pair, bystander: Pair, caplog: Any
) -> None:
    harness.turn()
    error = LookupError("in a greenlet of the hub's")
    in_a_timeout_of_receive(both, error)
    assert_ended(both)
    assert_logged_once(caplog, error)


def test_one_whose_answer_cannot_be_sent_fails_alone(
    both: Pair, bystander: Pair, caplog: Any
) -> None:
    """What is written to many, as one's message is dealt with, goes out together."""
    harness.turn()
    error = MemoryError("as it is sent")
    assert both.connection.stream is not None
    both.connection.stream._send = raising(error)
    bystander.sink.on("message", lambda event: both.connection.outbox.send(event.data))
    bystander.peer.send_text("x")
    assert bystander.peer.read_text() == "x"
    assert_ended(both)
    assert_logged_once(caplog, error)


def test_a_failure_before_the_beginning(bystander: Pair, caplog: Any) -> None:
    """The bytes that a server had read ahead are the first callback's."""
    error = MemoryError("in the first callback")
    ours, theirs = socket.socketpair()
    sock = PlainSocket(fileno=ours.detach())
    fd = sock.fileno()
    sink = Sink()
    sink.connection = Connection(sink, Settings())
    sink.record("close")
    driver = Fragile()
    driver.break_down(error)
    sink.connection.open(driver, sock, b"", frames.text("x"))
    until(lambda: sink.names == ["close"])
    assert not is_open(fd)
    assert_logged_once(caplog, error)
    theirs.close()


def test_a_connection_that_cannot_be_opened_leaves_nothing(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raises goes to the view, or to the greenlet that has connected a client."""
    ours, theirs = socket.socketpair()
    sock = PlainSocket(fileno=ours.detach())
    fd = sock.fileno()
    sink = Sink()
    sink.connection = connection = Connection(sink, Settings())
    sink.record("error", "close")
    waiting = gevent.spawn(connection.wait_closed)
    harness.turn()
    with monkeypatch.context() as patch:
        patch.setattr(hubs, "join", raising(MemoryError()))
        with pytest.raises(MemoryError):
            connection.open(Hybi(), sock, b"")
    assert not is_open(fd)
    assert connection.state == ReadyState.CLOSED
    assert connection not in hubs.members(gevent.get_hub())
    until(lambda: sink.names == ["error", "close"])
    waiting.get(timeout=TIMEOUT)
    theirs.close()


# What is no Exception


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_reaches_the_main_greenlet(
    both: Pair, bystander: Pair, kind: type[BaseException], monkeypatch: Any, caplog: Any
) -> None:
    """A signal's handler may run, and raise, in the middle of any callback."""
    harness.turn()
    monkeypatch.delattr(gevent.get_hub(), "handle_error")
    in_a_read(both, kind())
    with pytest.raises(kind):
        gevent.sleep(TIMEOUT)
    assert_ended(both)
    assert not caplog.records, "gevent reports it"


# Short of memory for the end, too


def test_listeners_are_told_in_a_second_attempt(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.turn()
    made = dispatcher_module.greenlet
    attempts: list[int] = []

    def fail_once(*args: Any) -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            raise MemoryError
        return made(*args)

    monkeypatch.setattr(dispatcher_module, "greenlet", fail_once)
    both.connection.dispatcher.use_idle(None)
    in_a_read(both, MemoryError())
    assert_ended(both)
    assert len(attempts) > 1


def test_a_driver_that_cannot_end_does_not_hold_up_the_end(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.turn()
    monkeypatch.setattr(Fragile, "receive_eof", raising(MemoryError()))
    in_a_read(both, MemoryError())
    assert_ended(both)


def test_the_descriptor_is_freed_even_where_nothing_can_be_told(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.turn()
    with monkeypatch.context() as patch:
        patch.setattr(hubs, "leave", raising(MemoryError()))
        patch.setattr(Fragile, "closing_frame", raising(MemoryError()))
        in_a_read(both, MemoryError())
        until(lambda: not both.descriptor_is_open)
    both.connection.call_soon(both.connection.connection_lost, "so that it ends for good")
    assert_ended(both)


# Others that wait


def test_one_that_raises_when_it_is_woken_keeps_no_other_asleep(
    both: Pair, hub_errors: list[str]
) -> None:
    woken: list[str] = []
    hub = gevent.get_hub()

    def wait(name: str, error: Exception | None) -> None:
        both.connection.wait_closed()
        woken.append(name)
        if error is not None:
            raise error

    first = greenlet.greenlet(wait, hub)
    hub.loop.run_callback(first.switch, "first", LookupError())
    second = gevent.spawn(wait, "second", None)
    harness.turn()
    both.peer.close()
    second.join(TIMEOUT)
    assert woken == ["first", "second"]
    assert len(hub_errors) == 1 and "LookupError" in hub_errors.pop(), "its own, not ours"


def test_all_are_told_that_the_process_stops(both: Pair, caplog: Any) -> None:
    with pair() as other:
        harness.turn()
        error = MemoryError("as it goes away")
        break_driver(both, error)
        members = hubs._registries[gevent.get_hub()]
        members.go_away()
        assert other.peer.read_close().close_code == 1001
        assert_ended(both)
        assert_logged_once(caplog, error)
