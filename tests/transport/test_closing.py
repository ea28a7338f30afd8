"""The table of phases, alone. The ends themselves are in test_connection.py."""

from __future__ import annotations

import itertools

import pytest

from faye_wsgi.driver.base import ReadyState
from faye_wsgi.transport.closing import _BEGINNINGS, _TABLE, READY_STATES, Phase, Signal, next_phase


def test_each_phase_is_reached_and_left() -> None:
    reached = {phase for phase in _TABLE.values()}
    left = {phase for phase, _ in _TABLE}
    assert reached == set(Phase) - {Phase.CONNECTING}
    assert left == set(Phase) - {Phase.OVER}


def test_no_way_leads_back() -> None:
    for (phase, _), following in _TABLE.items():
        assert following > phase or (phase, following) == (Phase.CLOSING, Phase.FLUSHING)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase < Phase.CLOSED])
def test_every_phase_can_be_lost(phase: Phase) -> None:
    assert next_phase(phase, Signal.LOST) is Phase.CLOSED


def test_a_signal_that_means_nothing_changes_nothing() -> None:
    for phase, signal in itertools.product(Phase, Signal):
        if (phase, signal) not in _TABLE:
            assert next_phase(phase, signal) is phase


def test_the_end_is_always_reached() -> None:
    """Whatever the peer does, a deadline sends LOST, and what is closed is told."""
    for phase in Phase:
        closed = next_phase(phase, Signal.LOST)
        assert next_phase(closed, Signal.TOLD) is Phase.OVER


@pytest.mark.parametrize(
    "signals",
    [
        [Signal.OPENED, Signal.CLOSE, Signal.PEER_CLOSED, Signal.FLUSHED, Signal.PEER_ENDED],
        [Signal.OPENED, Signal.PEER_CLOSED, Signal.ANSWERED, Signal.FLUSHED, Signal.PEER_ENDED],
    ],
    ids=["we close first", "the peer closes first"],
)
def test_the_closing_handshakes(signals: list[Signal]) -> None:
    phase = Phase.CONNECTING
    for signal in signals:
        following = next_phase(phase, signal)
        assert following is not phase, f"{signal} leads on from {phase}"
        phase = following
    assert phase is Phase.CLOSED


def test_the_states_of_the_w3c() -> None:
    assert len(READY_STATES) == len(Phase)
    assert READY_STATES[Phase.ANSWERING] is ReadyState.OPEN, "a view may answer what came before"
    assert list(READY_STATES) == sorted(READY_STATES)


def test_what_a_phase_begins_with() -> None:
    """OPEN and CLOSING begin with what `Connection.open` and `Closing.close` do."""
    assert set(Phase) - set(_BEGINNINGS) == {Phase.CONNECTING, Phase.OPEN, Phase.CLOSING}
