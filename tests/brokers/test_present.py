"""What an engine is told of this process's connections, and told again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from faye_wsgi.brokers.base import Change
from faye_wsgi.brokers.present import Present
from faye_wsgi.errors import BrokerError

ADA, BEN = Change("a", "ada", "1", "{}"), Change("a", "ben", "2", "{}")


class Engine:
    def __init__(self) -> None:
        self.noted: list[list[Change]] = []
        self.knows = True

    def note(self, changes: Sequence[Change]) -> bool:
        self.noted.append(list(changes))
        return self.knows


def test_changes_are_told_once() -> None:
    engine = Engine()
    present = Present(engine.note)
    present.change([ADA])
    present.change([])
    present.change([BEN])
    assert engine.noted == [[ADA], [BEN]]


def test_all_are_told_to_an_engine_that_has_forgotten_them() -> None:
    engine = Engine()
    present = Present(engine.note)
    present.change([ADA, BEN])
    engine.knows = False
    present.change([BEN._replace(data=None)])
    assert engine.noted[1:] == [[BEN._replace(data=None)], [ADA]]
    engine.knows = True
    present.check(True)
    assert not engine.noted[3:]
    present.check(False)
    assert engine.noted[3:] == [[ADA]]


def test_what_could_not_be_told_is_told_the_next_time() -> None:
    engine = Engine()
    calls: list[str] = []

    def forget() -> None:
        calls.append("forget")
        if len(calls) == 1:
            raise BrokerError("away")

    present = Present(engine.note, forget)
    present.change([ADA])
    with pytest.raises(BrokerError):
        present.check(False)
    assert engine.noted == [[ADA]]
    present.check(True)
    present.check(True)
    assert engine.noted == [[ADA], [ADA]]
    assert len(calls) == 2


def test_an_engine_that_knows_nothing_is_told_the_first_ones_once() -> None:
    engine = Engine()
    engine.knows = False
    present = Present(engine.note)
    present.change([ADA])
    assert engine.noted == [[ADA]]


def test_a_child_has_none() -> None:
    engine = Engine()
    present = Present(engine.note)
    present.change([ADA])
    present.forget()
    present.check(False)
    assert engine.noted == [[ADA]]
