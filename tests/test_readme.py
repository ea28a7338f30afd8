"""The code in the documents is right: it compiles, its imports exist, and what can run, runs.

A block with the line `<!-- runnable -->` right above it is executed in a fresh interpreter, and
then the tests that it defines; those of Django run in testing_django.py. Code for other
libraries, for comparison, needs them to be installed.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from .test_layers import fresh_python

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("docs/*.md"))]
OTHERS = {"flask_sock", "flask_socketio", "geventwebsocket", "simple_websocket"}
OTHERS |= {"channels", "celery", "django_eventstream", "prometheus_client"}
BLOCK = re.compile(
    r"(?P<mark><!-- runnable -->\s*\n)?^(?P<indent> *)```python\s*\n(?P<code>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    page: str
    line: int
    code: str
    runnable: bool

    @property
    def others(self) -> set[str]:
        """The other libraries that it is for."""
        return {name for name in OTHERS if re.search(rf"^(from|import) {name}\b", self.code, re.M)}

    def need_others(self) -> None:
        """Skip where they are not installed."""
        for name in self.others:
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed")


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = []
    for match in BLOCK.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["code"].splitlines(True))
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(page.name, line, code, bool(match["mark"])))
    return found


def write(page: Path, folder: Path, *names: str) -> None:
    """Write files of a page, which their first lines name. Channels are in memory there."""
    for name in names:
        (code,) = (one.code for one in blocks(page) if one.code.startswith(f"# {name}\n"))
        for url in ("redis://localhost:6379/0", "redis://localhost:6379/1"):
            code = code.replace(url, "memory://")
        (folder / name).write_text(code, "utf-8")


BLOCKS = [block for page in PAGES for block in blocks(page)]
CASES = [pytest.param(block, id=f"{block.page} line {block.line}") for block in BLOCKS]
RUNNABLE = [case for case, block in zip(CASES, BLOCKS) if block.runnable]


def test_there_is_code() -> None:
    assert {"README.md", "coming-from.md"} <= {block.page for block in BLOCKS}


@pytest.mark.parametrize("block", CASES)
def test_compiles(block: Block) -> None:
    compile("\n" * (block.line - 1) + block.code, block.page, "exec")


def is_made(block: Block, module: str) -> bool:
    """Whether the block's page tells to make a file of this name."""
    (page,) = (page for page in PAGES if page.name == block.page)
    return f"`{module}.py`" in page.read_text("utf-8") or any(
        one.page == block.page and one.code.startswith(f"# {module}.py\n") for one in BLOCKS
    )


@pytest.mark.parametrize("block", [case for case, block in zip(CASES, BLOCKS) if not block.others])
def test_imports_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if is_made(block, node.module or ""):
                continue
            source = importlib.import_module(node.module or "")
            missing = [one.name for one in node.names if not has(source, one.name)]
            assert not missing, f"{node.module} has no {missing}"


def has(source: ModuleType, name: str) -> bool:
    """Whether a name, or a module of a package, can be imported from there."""
    module = f"{source.__name__}.{name}"
    return hasattr(source, name) or (
        hasattr(source, "__path__") and importlib.util.find_spec(module) is not None
    )


@pytest.mark.parametrize("block", RUNNABLE)
def test_runs(block: Block) -> None:
    block.need_others()
    tests = re.findall(r"^def (test_\w+)", block.code, re.MULTILINE)
    fresh_python("\n".join([block.code, *(f"{name}()" for name in tests)]))


def django_blocks() -> tuple[Block, Block]:
    """The view of the chapter on Django, and its test."""
    views = next(one for one in BLOCKS if "def chat(request, ws, room)" in one.code)
    tests = next(one for one in BLOCKS if "(TestCase)" in one.code)
    return views, tests
