"""The code in README.md is right: it compiles, its imports exist, and what can run, runs.

A block with the line `<!-- runnable -->` right above it is executed in a fresh interpreter.
"""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from .test_layers import fresh_python

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(
    r"(?P<mark><!-- runnable -->\s*\n)?^(?P<indent> *)```python\s*\n(?P<code>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    line: int
    code: str
    runnable: bool


def blocks() -> list[Block]:
    text = README.read_text("utf-8") if README.exists() else ""
    found = []
    for match in BLOCK.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["code"].splitlines(True))
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(line, code, bool(match["mark"])))
    return found


BLOCKS = blocks()
CASES = [pytest.param(block, id=f"line {block.line}") for block in BLOCKS]
RUNNABLE = [pytest.param(block, id=f"line {block.line}") for block in BLOCKS if block.runnable]


def test_there_is_code() -> None:
    assert BLOCKS, "README.md has no python block"


@pytest.mark.parametrize("block", CASES)
def test_compiles(block: Block) -> None:
    compile("\n" * (block.line - 1) + block.code, "README.md", "exec")


@pytest.mark.parametrize("block", CASES)
def test_imports_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            source = importlib.import_module(node.module or "")
            missing = [alias.name for alias in node.names if not hasattr(source, alias.name)]
            assert not missing, f"{node.module} has no {missing}"


@pytest.mark.parametrize("block", RUNNABLE)
def test_runs(block: Block) -> None:
    fresh_python(block.code)
