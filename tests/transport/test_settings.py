"""The transport's options: what is taken, what raises, and what follows from what."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from faye_wsgi.transport.settings import (
    Settings,
    check_seconds,
    check_size,
    check_timeout,
    make_settings,
)

SIZES = ["max_length", "max_queue", "max_queue_bytes", "high_water"]
SECONDS = ["ping", "ping_timeout", "close_timeout"]


def test_what_is_made_without_options_is_the_default() -> None:
    assert make_settings() == Settings()


@pytest.mark.parametrize(
    "options, ping, ping_timeout",
    [
        ({}, None, None),
        ({"ping": 5}, 5, 5),
        ({"ping": 5, "ping_timeout": 2}, 5, 2),
        ({"ping_timeout": 2}, None, 2),
        ({"ping": 0}, None, None),
        ({"ping": 5, "ping_timeout": 0}, 5, 5),
    ],
)
def test_the_timeout_of_a_ping_is_its_interval(
    options: dict[str, Any], ping: float | None, ping_timeout: float | None
) -> None:
    made = make_settings(**options)
    assert (made.ping, made.ping_timeout) == (ping, ping_timeout)


@pytest.mark.parametrize("name", [*SIZES, *SECONDS])
def test_a_value_that_is_given_is_kept(name: str) -> None:
    made = make_settings(**{name: 7})
    if name != "max_length":  # which is the driver's
        assert getattr(made, name) == 7
    others = {field.name for field in dataclasses.fields(made)} - {name, "ping_timeout"}
    assert all(getattr(made, other) == getattr(Settings(), other) for other in others)


def test_the_same_options_make_the_same_settings_once() -> None:
    assert make_settings(ping=3) is make_settings(ping=3)
    assert make_settings(max_queue=1) == make_settings(max_queue=1)
    make_settings(max_queue=1)
    with pytest.raises(TypeError):  # although True == 1
        make_settings(max_queue=True)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("wrong", [None, "1", 1.0, True, Fraction(1)])
def test_a_size_is_a_whole_number(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=name):
        make_settings(**{name: wrong})


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("wrong", [0, -1])
def test_a_size_is_at_least_one(name: str, wrong: int) -> None:
    with pytest.raises(ValueError, match=name):
        make_settings(**{name: wrong})


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("wrong", ["1", b"1", True, 1j])
def test_seconds_are_a_number(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=name):
        make_settings(**{name: wrong})


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("wrong", [-1, -0.1, float("inf"), float("-inf"), float("nan")])
def test_seconds_are_finite_and_not_negative(name: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=name):
        make_settings(**{name: wrong})


def test_closing_has_a_timeout() -> None:
    with pytest.raises(TypeError, match="close_timeout"):
        make_settings(close_timeout=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("good", [None, 0, -1, 1.5, Fraction(1, 2), float("inf")])
def test_a_timeout_may_be_over_already(good: Any) -> None:
    check_timeout(good)


@pytest.mark.parametrize(
    "wrong, error", [("1", TypeError), (True, TypeError), (float("nan"), ValueError)]
)
def test_what_is_no_timeout(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout"):
        check_timeout(wrong)


def test_a_number_without_an_order_is_no_timeout() -> None:
    with pytest.raises(TypeError, match="timeout"):
        check_timeout(Decimal(1))  # type: ignore[arg-type]


def test_the_checks_name_what_they_check() -> None:
    with pytest.raises(ValueError, match="my_size"):
        check_size("my_size", 0)
    with pytest.raises(ValueError, match="my_time"):
        check_seconds("my_time", -1)
    check_size("my_size", 1)
    check_seconds("my_time", 0)
    check_seconds("my_time", None)
