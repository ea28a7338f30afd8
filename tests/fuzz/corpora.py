"""The seeds of the targets: a text file for each, with a seed in each line.

A line is written as in a Python literal of bytes (``\\x81\\x02hi``). A line that begins with ``#``
is a comment; a seed that begins so is written ``\\x23``.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["NAMES", "escape", "seeds"]

HERE = Path(__file__).resolve().parent
NAMES = sorted(
    path.stem for path in (HERE / "targets").glob("*.py") if not path.stem.startswith("_")
)


def seeds(name: str) -> list[bytes]:
    """The seeds of a target."""
    lines = (HERE / "corpus" / f"{name}.txt").read_text("ascii").splitlines()
    return [unescape(line) for line in lines if line and not line.startswith("#")]


def unescape(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")


def escape(data: bytes) -> str:
    """The line of a seed."""
    line = data.decode("latin-1").encode("unicode_escape").decode("ascii")
    return "\\x23" + line[1:] if line.startswith("#") else line
