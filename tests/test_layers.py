"""Imports only point down: the arrows of the house, read from the source.

Imports for type checkers alone (`if TYPE_CHECKING:`) do not count.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "faye_wsgi"
FOLDERS = sorted(p for p in PACKAGE.iterdir() if (p / "__init__.py").exists())
FILES = sorted(PACKAGE.rglob("*.py"))

SANS_IO = {"errors", "http", "extensions", "driver"}
ROOMS = ["errors", "http", "extensions", "driver", "transport", "wsgi"]
BELOW = {room: set(ROOMS[:number]) for number, room in enumerate(ROOMS)}
FLAT = set(ROOMS)
FRAMEWORKS = FLAT | {"websocket", "eventsource"}

# What may import what: only what stands below. A room may always import itself.
ARROWS = BELOW | {
    "brokers": {"errors"},
    "endpoint": FLAT,
    "delivery": FLAT | {"brokers", "endpoint"},
    "gateway": FLAT | {"endpoint", "eventsource", "websocket"},
    "channels": FLAT | {"brokers", "endpoint", "eventsource", "websocket", "delivery", "gateway"},
    "client": FLAT | {"endpoint"},
    "eventsource": FLAT | {"endpoint"},
    "eventsource_client": FLAT,
    "websocket": FLAT | {"endpoint", "client", "eventsource"},
    "exporters": FLAT,
    "metrics": FLAT | {"exporters"},
    "flask": FRAMEWORKS,
    "django": FRAMEWORKS | {"channels"},
    "testkit": FLAT | {"endpoint"},
    "pytest_plugin": {"testing", "testkit"},
    "testing": FLAT | {"client", "eventsource_client", "testkit"},
    "__init__": set(),
    "cli": FLAT | {"client", "eventsource_client", "channels", "delivery"},
    "__main__": FLAT | {"cli", "client", "eventsource_client"},
}

IO = {
    "_socket",
    "_ssl",
    "_thread",
    "asyncio",
    "gevent",
    "greenlet",
    "multiprocessing",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "urllib.request",
    "http.client",
}
# gevent, sockets, TLS and time are transport's alone; the rest of IO only the driver's taboo.
TRANSPORT_ONLY = {"gevent", "greenlet", "select", "selectors", "socket", "ssl", "time"}
# What each part may use beyond the standard library.
THIRD_PARTY = {
    "errors": set(),
    "http": {"h11"},
    "extensions": set(),
    "driver": set(),
    "transport": {"gevent", "greenlet"},
    "wsgi": {"gevent", "webob"},
    "brokers": {"psycopg", "redis"},
    "delivery": {"gevent"},
    "gateway": set(),
    "channels": {"webob"},
    "endpoint": set(),
    "eventsource": set(),
    "websocket": set(),
    "client": {"webob"},
    "eventsource_client": {"webob"},
    "exporters": {"prometheus_client"},
    "metrics": {"prometheus_client"},
    "flask": {"flask", "werkzeug"},
    "django": {"django"},
    "testkit": {"gevent", "greenlet", "django"},
    "pytest_plugin": {"pytest"},
    "testing": {"gevent"},
    "__init__": set(),
    "cli": {"gevent", "gunicorn"},
    "__main__": {"gevent"},
}


def layer(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def statements(tree: ast.AST, inside_functions: bool = True) -> Iterator[ast.AST]:
    """Every statement, without what only type checkers run."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            continue
        yield node
        if inside_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from statements(node, inside_functions)


def imports(path: Path, inside_functions: bool = True) -> set[str]:
    """The full names that a file imports: `a.b` for `import a.b`, `a.b.c` for
    `from a.b import c` (where c may be a module or a name of one)."""
    found: set[str] = set()
    package = module(path) if path.name == "__init__.py" else module(path).rpartition(".")[0]
    for node in statements(ast.parse(path.read_text("utf-8")), inside_functions):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(parents + ([node.module] if node.module else []))
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def top(name: str) -> str:
    return name.partition(".")[0]


def imported_layers(path: Path) -> set[str]:
    inner = set()
    for name in imports(path):
        if top(name) == "faye_wsgi":
            second = (name.split(".") + ["__init__"])[1]
            exists = (PACKAGE / second).is_dir() or (PACKAGE / f"{second}.py").exists()
            inner.add(second if exists else "__init__")
    return inner


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in paths]


@pytest.mark.parametrize("path", named(FILES))
def test_imports_point_down(path: Path) -> None:
    here = layer(path)
    assert here in ARROWS, f"{path.name} has no place in the house: add it to ARROWS"
    assert imported_layers(path) - {here} <= ARROWS[here]


@pytest.mark.parametrize("path", named(FILES))
def test_io_stays_in_transport(path: Path) -> None:
    here = layer(path)
    taboo = IO if here in SANS_IO else TRANSPORT_ONLY
    if here in (
        "transport",
        "wsgi",
        "brokers",
        "delivery",
        "gateway",
        "testkit",
        "testing",
        "cli",
        "__main__",
    ):
        return
    used = {name for name in imports(path) if any(inside(name, other) for other in taboo)}
    assert not used


def inside(name: str, other: str) -> bool:
    return name == other or name.startswith(other + ".")


@pytest.mark.parametrize("path", named(FILES))
def test_third_parties(path: Path) -> None:
    allowed = THIRD_PARTY[layer(path)]
    standard = getattr(sys, "stdlib_module_names", None)
    if standard is None:
        pytest.skip("sys.stdlib_module_names came with Python 3.10")
    others = {top(name) for name in imports(path)} - set(standard) - {"faye_wsgi"}
    assert others <= allowed


@pytest.mark.parametrize("path", named([folder / "__init__.py" for folder in FOLDERS]))
def test_a_folders_init_is_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "it says the folder's rule"
    assert len(tree.body) == 1, "and nothing else"


def test_every_folder_is_a_package() -> None:
    folders = {path.parent for path in FILES}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


@pytest.mark.parametrize("path", named(FILES))
def test_every_file_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


def test_no_import_circles() -> None:
    modules = {module(path): path for path in FILES}
    graph = {
        name: {known(other, modules) for other in imports(path, inside_functions=False)}
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name in done:
            return
        for other in sorted(graph[name] - {"", name, "faye_wsgi"}):
            visit(other, (*way, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def known(name: str, modules: dict[str, Path]) -> str:
    """The module that an imported name is, or is in."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else ""


SANS_IO_MODULES = [
    module(path) for path in FILES if layer(path) in SANS_IO and path.name != "__init__.py"
]


@pytest.mark.parametrize("name", SANS_IO_MODULES)
def test_sans_io_loads_no_io(name: str) -> None:
    """In a fresh interpreter; what an interpreter loads by itself does not count."""
    script = (
        "import sys; before = set(sys.modules)\n"
        f"import {name}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new & {'gevent', 'greenlet', 'socket', 'ssl', '_socket', '_ssl'}))"
    )
    assert fresh_python(script) == ""


def fresh_python(script: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
