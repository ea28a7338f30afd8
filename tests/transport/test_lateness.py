"""The time that a hub was late is not counted against the peers."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.monkey import get_original

from faye_wsgi.errors import HandshakeError
from faye_wsgi.transport import dial, lateness
from faye_wsgi.transport.closing import GO_AWAY
from faye_wsgi.transport.lateness import ALARMING, LATE, WARN_INTERVAL, Deadline, Pace, pace_of
from faye_wsgi.transport.settings import Settings

from ..stress.harness import APP
from ..support import frames
from ..support.peer import Peer
from ..support.servers import serve
from ..support.waiting import wait_until
from .harness import pair, until

native_sleep = get_original("time", "sleep")


class Clock:
    """Stands for ``perf_counter``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lateness, "perf_counter", made)
    monkeypatch.setattr(lateness, "_paces", {})
    return made


# The pace


def test_what_was_lost_is_counted_once(clock: Clock) -> None:
    pace = Pace()
    clock.now += 10
    assert pace.note(clock.now - 4) == 4
    assert pace.note(clock.now - 6) == 0, "the first timer has told it"
    clock.now += LATE / 2
    assert pace.note(clock.now - LATE / 2) == 0, "so late is any timer"
    clock.now += 10
    assert pace.note(0) == 10
    assert pace.lost == 14


def test_the_operator_is_told_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    pace = Pace()
    pace.warn(ALARMING / 2)
    assert not caplog.records
    pace.warn(ALARMING)
    pace.warn(99)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("faye_wsgi", "WARNING")
    assert "did not run for 1.0 s" in record.message and "FAYE_WSGI_DEBUG=1" in record.message
    clock.now += WARN_INTERVAL
    pace.is_watched = True
    pace.warn(99)
    assert len(caplog.records) == 1, "the watchdog tells more"
    pace.is_watched = False
    pace.warn(99)
    assert len(caplog.records) == 2


def test_each_hub_has_its_own() -> None:
    found: list[Pace] = []

    def run() -> None:
        found.append(pace_of(gevent.get_hub()))
        gevent.get_hub().destroy(destroy_loop=True)

    thread = get_original("threading", "Thread")(target=run)
    thread.start()
    thread.join()
    assert pace_of(gevent.get_hub()) is pace_of(gevent.get_hub()) is not found[0]


# Deadlines


def made(ended: list[bool], seconds: float = 60.0) -> Deadline:
    return Deadline(gevent.get_hub(), seconds, lambda: ended.append(True))


def test_a_deadline_in_time(clock: Clock) -> None:
    ended: list[bool] = []
    deadline = made(ended)
    clock.now += 60 + LATE / 2
    deadline._expire()
    assert ended
    deadline.stop()
    deadline.stop()


def test_a_late_deadline_is_moved_by_what_was_lost(clock: Clock) -> None:
    ended: list[bool] = []
    deadline = made(ended)
    clock.now += 65
    deadline._expire()
    assert not ended and deadline._due == clock.now + 5
    clock.now += 5
    deadline._expire()
    assert ended
    deadline.stop()


def test_what_was_lost_before_the_deadline_counts(clock: Clock) -> None:
    """Another timer has told it: the deadline itself is in time."""
    ended: list[bool] = []
    pace_of(gevent.get_hub()).lost = 99.0
    deadline = made(ended)
    clock.now += 40
    pace_of(gevent.get_hub()).note(clock.now - 30)
    clock.now += 20
    deadline._expire()
    assert not ended and deadline._due == clock.now + 30
    deadline.stop()


def test_a_deadline_is_moved_by_its_own_length_at_most(clock: Clock) -> None:
    """Else peers that keep the hub busy would never come to it."""
    ended: list[bool] = []
    deadline = made(ended)
    for late in (40, 1000):
        clock.now = deadline._due + late
        deadline._expire()
        assert not ended
    assert deadline._due == clock.now + 20
    clock.now = deadline._due + 1000
    deadline._expire()
    assert ended
    deadline.stop()


def test_a_deadline_is_called_by_its_guard() -> None:
    called: list[Any] = []
    Deadline(gevent.get_hub(), 0.0, lambda: called.append("end"), lambda end: called.append(end()))
    until(lambda: called == ["end", None])


def test_a_deadline_that_is_stopped_is_not_called() -> None:
    called: list[bool] = []
    deadline = made(called, 0.0)
    deadline.stop()
    gevent.sleep(0.01)
    assert not called


# A hub that is blocked, and its peers


def test_an_answer_to_1001_that_waits_in_the_kernel() -> None:
    """It stands behind more messages than one read takes."""
    with pair() as both:
        both.sink.record("close")
        both.connection.closing.go_away(1001)
        assert both.peer.read_close().close_code == 1001
        both.peer.send(frames.text("x" * 1000) * 100 + frames.close(1001))
        native_sleep(GO_AWAY + 2 * LATE)
        until(lambda: both.sink.names == ["close"])
        assert both.sink.close_event.code == 1001


def test_a_message_whose_time_passed_while_nothing_was_read() -> None:
    with pair(Settings(message_timeout=0.5)) as both:
        both.peer.send(frames.text("half")[:-1])
        until(lambda: bool(both.connection.driver.unfinished))  # type: ignore[union-attr]
        native_sleep(0.5 + 2 * LATE)
        gevent.sleep(0.01)  # a turn, in which the timer is called
        both.peer.send(frames.text("half")[-1:])
        assert both.connection.inbox.receive(5.0) == "half"


def test_a_client_whose_time_passed_while_it_was_blocked() -> None:
    def attempt() -> str:
        native_sleep(1.0)
        gevent.sleep(0.01)  # a turn, in which the timer is called
        return "open"

    assert dial.within(0.5, attempt) == "open"


def test_a_client_is_given_up_in_time() -> None:
    with pytest.raises(HandshakeError, match="did not open within 0.05 seconds$"):
        dial.within(0.05, lambda: gevent.sleep(60))


def test_an_operator_learns_that_a_hub_was_blocked() -> None:
    """Once a minute; the view that serves the other connection is not ended."""
    with serve("gunicorn-gevent", APP, env={"FAYE_WSGI_DEBUG": "0"}) as server:
        with Peer(server).open("/echo") as peer:
            for _ in range(2):
                with Peer(server) as blocker:
                    blocker.send(b"GET /block?seconds=1.5 HTTP/1.0\r\n\r\n")
                    assert blocker.read_head().status == 200
                peer.send_text("still here")
                assert peer.read_text() == "still here"
            wait_until(lambda: "did not run for" in server.log())
        assert server.log().count("did not run for") == 1
