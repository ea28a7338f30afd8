"""Each module has a test file of its name in the mirrored place, so that it is found at once.

`faye_wsgi/http/url.py` is tested in `tests/http/test_url.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "faye_wsgi"
MODULES = sorted(
    str(path.relative_to(PACKAGE).with_suffix(""))
    for path in PACKAGE.rglob("*.py")
    if path.parent == PACKAGE or path.name != "__init__.py"
)

KIT = "the kit is tested as its users use it"

# The modules that are tested elsewhere, and why.
ELSEWHERE = {
    "__init__": ("test_exports.py", "it has the public names, and nothing else"),
    "__main__": ("test_main.py", "underscores do not read well"),
    "brokers/fork": ("brokers/test_redis.py", "each engine tests what a child does with it"),
    "cli/arguments": ("test_main.py", "all commands have them"),
    "cli/checks": ("cli/test_doctor.py", "the doctor is tested as its users see it"),
    "cli/public_url": ("cli/test_doctor.py", "the doctor is tested as its users see it"),
    "driver/hixie75": ("driver/test_hixie.py", "both drafts keep to the same rules"),
    "driver/hixie76": ("driver/test_hixie.py", "both drafts keep to the same rules"),
    "gateway/session": ("gateway/test_view.py", "a session is tested as its client sees it"),
    "testkit/exchange": ("test_testing.py", KIT),
    "testkit/frameworks": ("test_testing.py", KIT),
    "testkit/leftovers": ("test_testing.py", KIT),
    "testkit/patching": ("test_pytest_plugin.py", KIT),
    "testkit/request": ("test_testing.py", KIT),
    "transport/feed": ("test_eventsource_client.py", "it is all that the client does"),
    "transport/opening": ("test_client.py", "it is what a client does before it is open"),
}


def mirrored(module: str) -> Path:
    folder, _, name = module.rpartition("/")
    return TESTS / folder / f"test_{name}.py"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_tests(module: str) -> None:
    wanted = mirrored(module)
    place, reason = ELSEWHERE.get(module, ("", ""))
    file = TESTS / place if reason and not wanted.exists() else wanted
    assert file.is_file(), f"write {wanted.relative_to(TESTS.parent)}, or say why not in ELSEWHERE"
    assert "\ndef test_" in file.read_text("utf-8")


def test_the_modules_are_found() -> None:
    """Else every test above would be missing, and nothing would fail."""
    assert {"errors", "http/url", "driver/hybi", "transport/stream", "wsgi/hijack"} <= set(MODULES)
