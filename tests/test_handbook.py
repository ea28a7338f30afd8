"""The handbook can be built, without a warning, and its reference has all public names."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import faye_wsgi

from .support import servers
from .test_readme import ROOT

REFERENCE = ROOT / "docs/reference.md"


def test_the_reference_has_all_public_names() -> None:
    """But for the base of errors, which have their module there, and functions without a class."""
    text = REFERENCE.read_text("utf-8")
    shown = set(re.findall(r"auto(?:class|function):: faye_wsgi\.(\w+)$", text, re.MULTILINE))
    missing = set(faye_wsgi.__all__) - shown - {"permessage_deflate"}
    assert all(getattr(faye_wsgi, name).__module__ == "faye_wsgi.errors" for name in missing)
    assert "automodule:: faye_wsgi.errors\n   :members:" in text


def test_it_builds(tmp_path: Path) -> None:
    """A broken link, a page without a place and a docstring that is no markup are warnings."""
    if not servers.MAY_START:
        pytest.skip("it starts Sphinx")
    for module in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[docs]'")
    options = ["-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "doctrees")]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "html/reference.html").read_text("utf-8")
    for name in ("WebSocket.send", "EventSource.send", "Channels.publish", "Client.reconnecting"):
        assert f".{name}" in page, name
    # A file of the repository's root is a page here, with its own words.
    assert "Which versions get fixes" in (tmp_path / "html/security-policy.html").read_text("utf-8")


# Errors by their message


def literal(node: ast.AST) -> str:
    """The text of a literal, with an ellipsis for what differs; '' for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%(\.\d)?[srdf]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) or "…" for part in node.values)
    return ""


def test_each_error_is_one_of_the_sources() -> None:
    sources = [ast.parse(path.read_text("utf-8")) for path in ROOT.glob("faye_wsgi/**/*.py")]
    known = {literal(node) for tree in sources for node in ast.walk(tree)}
    ours = (ROOT / "docs/errors.md").read_text("utf-8").partition("\n## Of others\n")[0]
    tables = re.sub(r"\n## Close codes\n.*?(?=\n## )", "", ours, flags=re.DOTALL)
    messages = re.findall(r"^\| `(.*?)` \|", tables, re.MULTILINE)
    assert len(messages) > 50
    assert not [one for one in messages if not any(one in text for text in known)]


def test_each_finding_of_the_doctor_is_on_its_page() -> None:
    """With the page that the doctor names, and no other one is there."""
    trees = [ast.parse(path.read_text("utf-8")) for path in ROOT.glob("faye_wsgi/cli/*.py")]
    calls = [
        node.args
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"
    ]
    made = {literal(message): literal(page) for message, page in calls}
    rows = re.findall(
        r"^\| `(.*?)` \| .* \| \[.*?\]\((.*?)\) \|$",
        (ROOT / "docs/doctor.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == len(calls) > 10
    assert dict(rows) == made
