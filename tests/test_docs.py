"""docs/architecture.md names what is there: each file, each class, function and test, the phases.

A name in backticks is looked up in the sources, which are read and never imported, so that it
does not matter what is compiled.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from faye_wsgi.transport import closing
from faye_wsgi.transport.closing import Phase, Signal

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "faye_wsgi"
DOCUMENT = ROOT / "docs/architecture.md"

# The first parts of dotted names that belong to others. The interpreter, gevent and servers
# have tests of their own (tests/wsgi/test_hijack.py).
FOREIGN = {"gevent", "inspect", "loop", "raw", "ws"}
FILE = re.compile(r"[\w./-]+\.(?:py|pxd|c|md|js|cfg|toml|sh)|[\w./-]+/|Makefile")
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
DOTTED = re.compile(r"([A-Za-z_]\w*)\.(\w+)(?:\(.*\))?")
CALL = re.compile(r"(\w+)\(.*\)")


def prose() -> str:
    """The document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def names() -> list[str]:
    """What is in backticks, and the names of methods in the pictures."""
    text = DOCUMENT.read_text("utf-8")
    pictures = re.findall(r"^```text$(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    found = {name for picture in pictures for name in re.findall(r"\b[A-Z]\w+\.\w+", picture)}
    return sorted(found.union(re.findall(r"`([^`\n]+)`", prose())))


@cache
def modules() -> dict[str, ast.Module]:
    """The files of the package by their names; a folder's ``__init__`` is not one of them."""
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {path.stem: ast.parse(path.read_text("utf-8")) for path in files}


@cache
def classes() -> dict[str, ast.ClassDef]:
    found: dict[str, ast.ClassDef] = {}
    for tree in modules().values():
        found.update({node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)})
    return found


@cache
def functions() -> set[str]:
    nodes = [node for tree in modules().values() for node in ast.walk(tree)]
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def defined(body: list[ast.stmt]) -> set[str]:
    """The names that statements define, without those inside of functions and classes."""
    found = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(t.id for t in node.targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Try):
            found |= defined(node.body)
    return found


def members(name: str) -> set[str]:
    """The methods and attributes of a class and of its bases in the package."""
    node = classes()[name]
    found = defined(node.body)
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
            found.add(part.attr)
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes():
            found |= members(base.id)
    return found


def fault(name: str) -> str:
    """What is wrong with a name in backticks; '' for nothing."""
    if test := TEST.fullmatch(name):
        path = ROOT / test[1]
        there = path.exists() and f"def {test[2]}(" in path.read_text("utf-8")
        return "" if there else "there is no such test"
    if FILE.fullmatch(name):
        there = (ROOT / name).exists() or (PACKAGE / name).exists()
        return "" if there else "there is no such file"
    if dotted := DOTTED.fullmatch(name):
        owner, member = dotted.groups()
        if owner in classes():
            return "" if member in members(owner) else "the class has no such member"
        if owner in modules():
            there = member in defined(modules()[owner].body)
            return "" if there else "the module has no such name"
        return "" if owner in FOREIGN else "there is no such class or module"
    if call := CALL.fullmatch(name):
        return "" if call[1] in functions() else "there is no such function"
    return ""


@pytest.mark.parametrize("name", names())
def test_each_name_is_there(name: str) -> None:
    assert not fault(name), f"`{name}`: {fault(name)}"


@pytest.mark.parametrize(
    "name",
    [
        "transport/nowhere.py",
        "tests/wsgi/test_hijack.py::test_that_is_not_there",
        "Connection.no_method",
        "NoClass.open",
        "closing.no_name",
        "no_function()",
    ],
)
def test_a_wrong_name_is_found(name: str) -> None:
    assert fault(name)


@pytest.mark.parametrize("kind, least", [(FILE, 30), (TEST, 8), (DOTTED, 60)])
def test_there_are_names(kind: re.Pattern[str], least: int) -> None:
    assert len([name for name in names() if kind.fullmatch(name)]) >= least


# The tables of phases


def table(first: str) -> list[list[str]]:
    """The rows of the table with this first cell in its head: the head, then the others."""
    lines = DOCUMENT.read_text("utf-8").splitlines()
    (start,) = (n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return [rows[0], *rows[2:]]


def test_the_phases_and_their_states() -> None:
    rows = [(row[0], row[1]) for row in table("phase")[1:]]
    states = [(phase.name, closing.READY_STATES[phase].name) for phase in Phase]
    assert rows == states


def test_the_deadlines() -> None:
    """A time in the table is a constant of the code, with its value."""
    text = " ".join(cell for row in table("phase") for cell in row)
    found = dict(re.findall(r"`closing\.([A-Z_]+)` \(([\d.]+) s\)", text))
    assert set(found) == {"HOLD", "LINGER", "HURRY", "GO_AWAY"}
    assert {name: float(value) for name, value in found.items()} == {
        name: getattr(closing, name) for name in found
    }


def test_the_signals_and_where_they_lead() -> None:
    head, *rows = table("in")
    signals = [Signal[name] for name in head[1:]]
    assert signals == list(Signal)
    written = {
        (Phase[row[0]], signal): Phase[cell]
        for row in rows
        for signal, cell in zip(signals, row[1:])
        if cell
    }
    assert [row[0] for row in rows] == [phase.name for phase in Phase]
    assert written == closing._TABLE
