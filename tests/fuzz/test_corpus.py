"""All seeds of all targets, in each test run; what fuzzing has found was added to them."""

from __future__ import annotations

import importlib

import pytest

from .corpora import NAMES, escape, seeds


@pytest.mark.parametrize("name", NAMES)
def test_no_seed_shows_a_defect(name: str) -> None:
    check = importlib.import_module(f"tests.fuzz.targets.{name}").check
    found = seeds(name)
    assert found
    for seed in found:
        try:
            check(seed)
        except Exception as error:
            raise AssertionError(f"{name}: {escape(seed)}") from error
