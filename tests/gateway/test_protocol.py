"""The messages of the endpoint, without I/O."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faye_wsgi.gateway.protocol import MAX_DEPTH, Budget, Budgets, Command, Refusal, parse

MAX_CHANNELS = 4


def read(message: Any) -> Command:
    return parse(json.dumps(message), MAX_CHANNELS)


def refused(text: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(text, MAX_CHANNELS)
    return caught.value


def test_subscribe() -> None:
    command = read({"subscribe": "a"})
    assert (command.action, command.channels, command.is_list) == ("subscribe", ["a"], False)
    assert (command.since, command.last, command.watches, command.tokens) == (None, 0, False, [])
    command = read(
        {"subscribe": ["a", "b", "a"], "since": "1-a", "last": 3, "presence": True, "token": "t"}
    )
    assert (command.channels, command.is_list) == (["a", "b"], True)
    assert (command.since, command.last, command.watches) == ("1-a", 3, True)
    assert command.tokens == ["t"]


def test_the_others() -> None:
    command = read({"publish": "a", "data": None, "key": "k", "ref": 7})
    assert (command.action, command.data, command.key, command.ref) == ("publish", None, "k", 7)
    command = read({"history": "a", "since": "1-a", "limit": 0, "ref": "x"})
    assert (command.action, command.since, command.limit) == ("history", "1-a", 0)
    assert read({"presence": "a"}).action == "presence"
    assert read({"unsubscribe": ["a"]}).channels == ["a"]
    assert read({"ping": 1, "ref": 2})[:4] == ("ping", [], False, 2)


@pytest.mark.parametrize(
    "message",
    [
        [],
        1,
        {},
        {"foo": 1},
        {"subscribe": 1},
        {"subscribe": []},
        {"subscribe": [1]},
        {"subscribe": "a", "since": 1},
        {"subscribe": "a", "last": -1},
        {"subscribe": "a", "last": True},
        {"subscribe": "a", "last": 1.5},
        {"subscribe": "a", "last": 10**20},
        {"subscribe": "a", "presence": 1},
        {"subscribe": "a", "token": 1},
        {"subscribe": "a", "token": [1]},
        {"subscribe": "a", "user": "root"},
        {"publish": "a"},
        {"publish": ["a"], "data": 1},
        {"publish": "a", "data": 1, "key": ""},
        {"publish": "a", "data": 1, "key": "k" * 129},
        {"presence": True},
        {"history": ["a"]},
        {"ping": 1, "ref": {}},
        {"ping": 1, "ref": "r" * 65},
        {"ping": 1, "ref": 1.5},
    ],
)
def test_what_is_wrong_is_refused(message: Any) -> None:
    refusal = refused(json.dumps(message))
    assert refusal.code == "invalid"
    assert refusal.answer["error"] == "invalid" and refusal.answer["message"]


def test_a_refusal_has_the_ref() -> None:
    assert refused('{"publish": "a", "ref": 3}').answer["ref"] == 3


def test_too_many_channels() -> None:
    assert refused('{"subscribe": ["a", "b", "c", "d", "e"]}').code == "limit"
    assert refused('{"subscribe": "a", "token": ["1", "2", "3", "4", "5"]}').code == "limit"
    assert refused(json.dumps({"subscribe": "a", "token": "t" * 5000})).code == "limit"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"publish": "a", "data": NaN}',
        '{"publish": "a", "data": Infinity}',
        '{"publish": "a", "data": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"publish": "a", "data": ' + "[" * 100_000,
        '{"publish": "a", "data": ' + '{"a":' * 65 + "1" + "}" * 65 + "}",
    ],
)
def test_what_is_no_json_is_refused(text: str) -> None:
    assert refused(text).code == "invalid"


@pytest.mark.parametrize(("levels", "is_allowed"), [(MAX_DEPTH - 1, True), (MAX_DEPTH, False)])
def test_the_depth_has_a_bound(levels: int, is_allowed: bool) -> None:
    text = '{"publish": "a", "data": ' + "[" * levels + "]" * levels + "}"
    if is_allowed:
        assert parse(text, MAX_CHANNELS).action == "publish"
    else:
        assert "levels" in refused(text).reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
)
KEYS = ["subscribe", "unsubscribe", "publish", "history", "presence", "ping", "ref", "since"]
KEYS += ["last", "token", "data", "key", "limit"]


@given(
    st.text() | JSON.map(json.dumps) | st.dictionaries(st.sampled_from(KEYS), JSON).map(json.dumps)
)
def test_any_text_is_a_command_or_a_refusal(text: str) -> None:
    try:
        command = parse(text, MAX_CHANNELS)
    except Refusal as refusal:
        json.dumps(refusal.answer)
    else:
        assert len(command.channels) <= MAX_CHANNELS
        assert all(isinstance(name, str) for name in command.channels)


def test_the_budget_slows_down() -> None:
    budget = Budget(rate=10, burst=5, now=0.0)
    assert [budget.spend(1, 0.0) for _ in range(5)] == [0.0] * 5
    assert budget.spend(1, 0.0) == pytest.approx(0.1)
    assert budget.spend(2, 0.1) == pytest.approx(0.2)
    assert not budget.is_flooded
    assert budget.spend(5, 100.0) == 0.0  # full again, and no fuller than at first
    assert budget.spend(1, 100.0) > 0


def test_a_flood_is_noticed() -> None:
    budget = Budget(rate=10, burst=1, now=0.0)
    now = 0.0
    for _ in range(Budget.PATIENCE + 2):
        assert not budget.is_flooded
        now += budget.spend(1, now)
    assert budget.is_flooded
    budget.spend(0, now + 10)
    assert not budget.is_flooded


def test_budgets_are_of_clients() -> None:
    budgets = Budgets(rate=10, burst=2)
    assert [budgets.spend("ada", 0.0) for _ in range(2)] == [0, 0]
    assert budgets.spend("ben", 0.0) == 0
    # What is refused costs nothing: the client waits no longer for it.
    assert [budgets.spend("ada", 0.0) for _ in range(3)] == pytest.approx([0.1] * 3)
    assert budgets.spend("ada", 0.1) == 0
    assert budgets.spend("ada", 0.1) > 0


def test_budgets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budgets, "MOST", 100)
    budgets = Budgets(rate=1, burst=1)
    for number in range(1000):
        budgets.spend(f"client {number}", 0.0)
    assert len(budgets._budgets) == 100
    assert budgets.spend("client 999", 0.0) > 0
