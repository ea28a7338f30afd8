"""Signed names of channels."""

from __future__ import annotations

import pytest

from faye_wsgi.delivery.signing import sign, verify


@pytest.mark.parametrize("channel", ["a", "room:42", "a:1:b", "ä"])
def test_a_name_comes_back(channel: str) -> None:
    assert verify(b"s", sign(b"s", channel, None)) == channel
    assert verify(b"s", sign(b"s", channel, 60, now=1000), now=1060) == channel


def test_too_old() -> None:
    with pytest.raises(ValueError, match="too old"):
        verify(b"s", sign(b"s", "a", 60, now=1000), now=1061)


@pytest.mark.parametrize("forged", ["", "a", "a::", "a:9999999999:x", "\udc00::\udc00"])
def test_forged(forged: str) -> None:
    with pytest.raises(ValueError, match="not ours"):
        verify(b"s", forged)


def test_a_letter_that_has_no_utf_8() -> None:
    signed = sign(b"s", "a?", None)
    with pytest.raises(ValueError, match="not ours"):
        verify(b"s", signed.replace("?", "\ud800"))


def test_another_key_and_a_later_end() -> None:
    channel, _, signature = sign(b"s", "a", 60, now=1000).split(":")
    for signed in (f"{channel}:9999999999:{signature}", sign(b"t", "a", None)):
        with pytest.raises(ValueError, match="not ours"):
            verify(b"s", signed)
