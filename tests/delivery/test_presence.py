"""Who is in a channel, and what of it is announced."""

from __future__ import annotations

import pytest

from faye_wsgi.delivery import presence
from faye_wsgi.delivery.presence import Roster, member_data


def change(roster: Roster) -> object:
    message = roster.take_change()
    return None if message is None else (dict(message.joined), list(message.left), message.count)


def test_changes_are_gathered() -> None:
    roster = Roster("a")
    roster.joined("1", '{"name":"Ada"}')
    roster.joined("2", "{}")
    roster.left("2")
    assert change(roster) == ({"1": {"name": "Ada"}}, [], None)
    roster.left("1")
    roster.joined("1", '{"name":"Ada"}')
    assert change(roster) is None
    roster.joined("1", '{"name":"Eve"}')
    assert change(roster) == ({"1": {"name": "Eve"}}, [], None)
    roster.left("1")
    assert change(roster) == ({}, ["1"], None)


def test_read_anew_only_the_difference_is_announced() -> None:
    roster = Roster("a")
    assert not roster.replace({"1": "{}", "2": "{}", "4": "{}"}, is_settled=False)
    assert change(roster) == ({"1": {}, "2": {}, "4": {}}, [], None)
    assert roster.replace({"2": "{}", "3": "{}", "4": '{"n":1}'}, is_settled=True)
    assert change(roster) == ({"3": {}, "4": {"n": 1}}, ["1"], None)


def test_a_member_that_is_missing_is_in_doubt_at_first() -> None:
    """It may have left; or another process has still to note it again."""
    roster = Roster("a")
    roster.replace({"1": "{}", "2": "{}", "3": "{}"}, is_settled=False)
    roster.take_change()
    assert roster.replace({"3": "{}"}, is_settled=False)
    assert change(roster) is None
    assert roster.everyone().joined == {"1": {}, "2": {}, "3": {}}
    roster.joined("1", "{}")
    assert change(roster) is None
    roster.left("2")
    assert change(roster) == ({}, ["2"], None)
    assert roster.replace({"3": "{}"}, is_settled=True)
    assert change(roster) == ({}, ["1"], None)


def test_too_many_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "MAX_NAMED", 2)
    roster = Roster("a")
    for member in "123":
        roster.joined(member, "{}")
    assert change(roster) == ({}, [], 3)
    assert roster.everyone().count == 3
    roster.left("3")
    assert change(roster) == ({"1": {}, "2": {}}, [], None)


def test_a_member_has_an_id() -> None:
    assert member_data({"id": 7, "name": "Ada"}) == ("7", '{"name":"Ada"}')
    with pytest.raises(ValueError, match="'id'"):
        member_data({"name": "Ada"})
