"""Options of ours, and several hosts, in the URL of an engine."""

from __future__ import annotations

import pytest

from faye_wsgi.brokers.url import split_hosts, take_options, truth


@pytest.mark.parametrize(
    ("url", "rest", "found"),
    [
        ("redis://h", "redis://h", {}),
        ("redis://h?a=1", "redis://h", {"a": "1"}),
        ("unix:///p?x=%26y&a=1&b=&z=2", "unix:///p?x=%26y&z=2", {"a": "1", "b": ""}),
    ],
)
def test_options_are_taken_out(url: str, rest: str, found: dict[str, str]) -> None:
    assert take_options(url, "a", "b") == (rest, found)


@pytest.mark.parametrize("text", ["1", "true", "Yes", "0", "False", "no"])
def test_an_option_is_true_or_false(text: str) -> None:
    assert truth(text) is (text in ("1", "true", "Yes"))


@pytest.mark.parametrize("text", ["", "2", "on", "perhaps"])
def test_other_text_is_neither(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        truth(text)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis+x://a", ([("a", 7)], "redis://", "")),
        ("redis+x://a:1,b.c,[::1]:2/p?q", ([("a", 1), ("b.c", 7), ("::1", 2)], "redis://", "/p?q")),
        ("rediss+x://u:p%40@a?q=@/", ([("a", 7)], "rediss://u:p%40@", "?q=@/")),
    ],
)
def test_hosts_are_split(url: str, found: tuple[object, ...]) -> None:
    assert split_hosts(url, 7) == found


@pytest.mark.parametrize(
    "url",
    ["redis://a", "redis+x:a", "redis+x://", "redis+x://a,", "redis+x://a:b", "redis+x://a:99999"],
)
def test_what_is_no_list_of_hosts_raises(url: str) -> None:
    with pytest.raises(ValueError):
        split_hosts(url, 7)
