"""Tests of the tests: a defect is found, and told in a line for the corpus."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from . import __main__ as runner
from .corpora import escape, unescape
from .one import MAX_LENGTH, change_at_random
from .packages import BUILT, MODULES, PURE
from .splits import splits


def test_any_seed_is_a_line_and_back() -> None:
    for data in (bytes(range(256)), b"#", b"\\n\n", b"\r\x0b\x85"):
        line = escape(data)
        assert line.isascii() and line.isprintable() and not line.startswith("#")
        assert unescape(line) == data


def test_the_package_is_there_twice() -> None:
    for name in MODULES:
        assert str(PURE(name).__file__).endswith(".py")
        assert PURE(name) is not BUILT(name)
        assert sys.modules[f"faye_wsgi.{name}"] is BUILT(name)
        assert PURE("driver.hybi").Driver is PURE("driver.hybi").Hybi.__mro__[1]
    assert PURE("errors").HandshakeError is PURE("driver.server_handshake").HandshakeError


def test_no_trace_is_left_of_the_second_one() -> None:
    """Modules that are imported later are compiled ones, if they were built."""
    module = importlib.import_module("faye_wsgi.transport.stream")
    is_built = list(Path(str(module.__file__)).parent.glob("stream.*.so"))
    if is_built and "FAYE_WSGI_PURE" not in os.environ:
        assert str(module.__file__).endswith(".so")


def test_all_splits_have_all_bytes_and_no_empty_piece() -> None:
    for data in (b"", b"a", bytes(range(50))):
        for seed in range(20):
            for pieces in splits(data, seed):
                assert b"".join(pieces) == data and all(pieces)


def test_a_defect_is_found_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "hybi"
    corpus.mkdir()
    (corpus / "seed").write_bytes(b"12345678")

    def check(data: bytes) -> None:
        assert len(data) <= MAX_LENGTH
        assert b"\xff" not in data

    with pytest.raises(AssertionError):
        change_at_random(check, corpus, 60)
    monkeypatch.setattr(runner, "FOUND", tmp_path)
    runner.tell("hybi", b"what it has said")
    said, line = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    assert "what it has said" in said and b"\xff" in unescape(line)


def test_inputs_without_a_defect_are_kept(tmp_path: Path) -> None:
    corpus = tmp_path / "hybi"
    corpus.mkdir()
    (corpus / "seed").write_bytes(b"12345678")
    seen: list[bytes] = []
    change_at_random(seen.append, corpus, 0)
    assert seen == [b"12345678"] and os.listdir(tmp_path) == ["hybi"]
