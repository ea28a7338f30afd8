"""What all drivers promise, whatever arrives."""

from __future__ import annotations

from typing import Any

__all__ = ["check_events"]


def check_events(events: list[Any], max_length: int) -> None:
    """One close event, at the end; at most one error, right before it; no message too long."""
    kinds = [type(event).__name__ for event in events]
    assert kinds.count("CloseEvent") == 1 and kinds[-1] == "CloseEvent", kinds
    assert "ErrorEvent" not in kinds[:-2] and kinds.count("ErrorEvent") <= 1, kinds
    for event in events:
        if isinstance(event, (str, bytes)):
            size = len(event.encode() if isinstance(event, str) else event)
            assert size <= max_length, size
