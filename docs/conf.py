"""Sphinx' settings for the handbook: `make docs` builds it, and a test does."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# The sources and not the compiled modules: these have no signatures that autodoc can read.
os.environ["FAYE_WSGI_PURE"] = "1"
sys.path.insert(0, str(ROOT))

import faye_wsgi  # noqa: E402

project = "faye_wsgi"
author = "faye_wsgi contributors"
version = release = faye_wsgi.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4  # the anchors that code hosts make, so that links work in both

autoclass_content = "both"  # the docstrings of constructors, too
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
add_module_names = False
suppress_warnings = ["ref.python"]  # Channels is a class of faye_wsgi and of faye_wsgi.django

html_theme = "furo"
html_title = f"faye_wsgi {release}"
html_copy_source = False

# The files in the root of the repository, and the pages that show them here.
OUTSIDE = {
    "README": "index",
    "CHANGELOG": "changelog",
    "CONTRIBUTING": "contributing",
    "SECURITY": "security-policy",
}


def place(app: Any, docname: str, source: list[str]) -> None:
    """Put a file of the root in the place of the page that names it, and mend the links to all."""
    for file, page in OUTSIDE.items():
        if docname == page != "index":
            source[0] = (ROOT / f"{file}.md").read_text("utf-8").replace("](docs/", "](")
    for file, page in OUTSIDE.items():
        source[0] = re.sub(rf"\]\((\.\./)?{file}\.md", f"]({page}.md", source[0])


def setup(app: Any) -> None:
    app.connect("source-read", place)
