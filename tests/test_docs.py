"""The documents for contributors are true: names, tables, commands, limits and links.

Each name in backticks in docs/architecture.md is looked up in the sources, which are read and
never imported, so that it does not matter what is compiled.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from faye_wsgi.http import exchange, headers
from faye_wsgi.transport import closing
from faye_wsgi.transport.closing import Phase, Signal
from faye_wsgi.transport.settings import Settings
from faye_wsgi.wsgi import environ

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "faye_wsgi"
DOCUMENT = ROOT / "docs/architecture.md"

# The first parts of dotted names that belong to others. The interpreter, gevent and servers
# have tests of their own (tests/wsgi/test_hijack.py).
FOREIGN = {"gevent", "inspect", "loop", "raw", "sys", "ws"}
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
    """The files of the package by their names; a folder's ``__init__`` is not one of them.

    Files of the same name (each room may have its ``base.py``) are one module here.
    """
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    found: dict[str, ast.Module] = {}
    for path in files:
        tree = ast.parse(path.read_text("utf-8"))
        found.setdefault(path.stem, ast.Module([], [])).body.extend(tree.body)
    return found


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """The classes by their names, of which there may be several."""
    found: dict[str, list[ast.ClassDef]] = {}
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
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
    found = set()
    for node in classes()[name]:
        found |= defined(node.body)
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


# The other documents


def test_make_has_the_commands() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`make ([\w-]+)`", text))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {"check", "test", "test-all", "build", "run"} <= named <= targets


def test_the_limits_are_those_of_the_code() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")]
    named = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    limits = ("max_length", "max_fragments", "max_queue", "max_queue_bytes", "high_water")
    for name in (*limits, "close_timeout", "message_timeout", "send_timeout"):
        assert f"{getattr(Settings, name):,}".removesuffix(".0") in named[name], name
    for limit in (headers.MAX_EXTENSIONS_HEADER, exchange.MAX_HEAD, exchange.MAX_BODY):
        assert f"{limit:,}" in text
    assert f"{environ.MAX_KEPT // 1024} KiB" in text


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
DOCUMENTS += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    heads = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_link(page: Path, target: str) -> str:
    """What is wrong with a link on a page; '' for nothing."""
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    if not path.exists():
        return f"{target}: there is no such file"
    return f"{target}: there is no such heading" if anchor and anchor not in anchors(path) else ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    page = ROOT / document
    links = re.findall(r"\]\(((?!https?:)[^)\s]+)\)", page.read_text("utf-8"))
    assert not [fault for link in links if (fault := broken_link(page, link))]


def test_a_broken_link_is_found() -> None:
    assert broken_link(DOCUMENT, "nowhere.md") and broken_link(DOCUMENT, "#nowhere")
