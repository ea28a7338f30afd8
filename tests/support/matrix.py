"""Runs the tests on every Python that is found, with the oldest and newest servers.

    python -m tests.support.matrix [arguments for pytest]

MATRIX in the environment chooses some of the combinations by the start of their names:
``MATRIX="3.9-oldest 3.13"``. Each gets a virtual environment under .venvs/, which is kept for
the next run, and compiles the package anew: the modules of all interpreters lie side by side
in faye_wsgi/, with the interpreter in their names.
Prints one line a combination as it ends, and a table at the end.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venvs"
OLDEST_PYTHON = (3, 9)
INSTALL_TIMEOUT, TEST_TIMEOUT = 900, 2400

# gunicorn and gevent that were current together, oldest first. The first pair that can be
# installed, without building gevent, is the oldest that we test.
OLD_PAIRS = [
    ("20.1.0", "22.10.2"),
    ("21.2.0", "23.9.1"),
    ("22.0.0", "24.11.1"),
    ("23.0.0", "25.9.1"),
]


# The old pairs need pkg_resources. The latest setuptools does not have it; those from 80 on warn
# about it on the standard error of every server; one of 2023 did not find today's packages. It is
# installed with the pair and not before, because what the newest gevent needs replaces it.
OLD_SETUPTOOLS = "setuptools>=75.8.2,<80"


class Python(NamedTuple):
    version: tuple[int, int]
    program: str

    @property
    def name(self) -> str:
        return ".".join(map(str, self.version))


class Result(NamedTuple):
    python: str
    gunicorn: str
    gevent: str
    outcome: str
    passed: bool


def main(arguments: list[str]) -> int:
    pythons: dict[tuple[int, int], Python] = {}
    for python in find_pythons():
        pythons.setdefault(python.version, python)  # pyenv's own, not a shim or this environment's
    names = os.environ.get("MATRIX", "").split()
    chosen = list(choose(sorted(pythons.values()), names))
    if not chosen:
        print("no Python 3.9 or later was found, or none that was chosen", file=sys.stderr)
        return 1
    results = [run(python, pair, arguments) for python, pair in chosen]
    print_table(results)
    return 0 if all(result.passed for result in results) else 1


def choose(pythons: list[Python], names: list[str]) -> Iterator[tuple[Python, str]]:
    """The oldest Python with the oldest servers, and all with the newest; or those named."""
    for index, python in enumerate(pythons):
        for pair in ("oldest", "newest") if index == 0 else ("newest",):
            name = f"{python.name}-{pair}"
            if not names or any(name == each or name.startswith(f"{each}-") for each in names):
                yield python, pair


def find_pythons() -> Iterator[Python]:
    """CPythons of pyenv and of the PATH; one for each minor version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [str(path) for path in sorted(pyenv.glob("versions/*/bin/python"))]
    candidates += filter(None, (shutil.which(f"python3.{minor}") for minor in range(9, 30)))
    for program in [*candidates, sys.executable]:
        version = version_of(program)
        if version and version >= OLDEST_PYTHON:
            yield Python(version, program)


def version_of(program: str) -> tuple[int, int] | None:
    """None for what is no CPython, does not start, or cannot make an environment."""
    script = (
        "import sys, venv, ensurepip; assert sys.implementation.name == 'cpython'; "
        "print(*sys.version_info[:2])"
    )
    try:
        answer = subprocess.run(
            [program, "-c", script], capture_output=True, text=True, timeout=30, check=True
        )
        major, minor = answer.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return int(major), int(minor)


def run(python: Python, pair: str, arguments: list[str]) -> Result:
    print(f"== Python {python.name}, {pair} servers", flush=True)
    folder = VENVS / f"{python.name}-{pair}"
    program = str(folder / "bin" / "python")
    failure = prepare(python, folder, program, pair)
    if failure:
        result = Result(python.name, pair, pair, f"not installed: {failure}", False)
    else:
        outcome, passed = run_tests(program, arguments)
        gunicorn, gevent = installed(program, "gunicorn"), installed(program, "gevent")
        result = Result(python.name, gunicorn, gevent, outcome, passed)
    print(f"   {result.outcome}", flush=True)
    return result


def prepare(python: Python, folder: Path, program: str, pair: str) -> str:
    """Makes the environment; the last line of what went wrong, or ''."""
    if not Path(program).exists():
        made = command([python.program, "-m", "venv", str(folder)])
        if made.returncode:
            return last_line(made.stdout)
    for packages in (["--upgrade", "pip", "setuptools"], ["--upgrade", "-e", ".[test]"]):
        done = pip(program, packages)
        if done.returncode:
            return last_line(done.stdout)
    return compile_modules(program) or (install_old_pair(program) if pair == "oldest" else "")


def compile_modules(program: str) -> str:
    """Compiles what has changed; what went wrong, or ''.

    The editable installation has done it once, but pip may think that nothing is new. A build
    that fails leaves the package without its compiled modules, and these are to be tested.
    """
    built = command([program, "setup.py", "--quiet", "build_ext", "--inplace"])
    script = (
        "import glob, sysconfig; ending = sysconfig.get_config_var('EXT_SUFFIX'); "
        "print(*(name for name in glob.glob('faye_wsgi/*/*.pxd') "
        "if not glob.glob(name[:-4] + ending)))"
    )
    missing = last_line(command([program, "-c", script], 30).stdout)
    if built.returncode or missing:
        return last_line(built.stdout) or f"not compiled: {missing}"
    return ""


def install_old_pair(program: str) -> str:
    failure = ""
    for gunicorn, gevent in OLD_PAIRS:
        packages = [f"gunicorn=={gunicorn}", f"gevent=={gevent}", OLD_SETUPTOOLS]
        done = pip(program, ["--only-binary", "gevent,greenlet", *packages])
        if done.returncode == 0:
            return ""
        failure = last_line(done.stdout)
    return failure


def pip(program: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return command([program, "-m", "pip", "install", "--quiet", *arguments])


def command(
    arguments: list[str], timeout: float = INSTALL_TIMEOUT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def run_tests(program: str, arguments: list[str]) -> tuple[str, bool]:
    try:
        done = command([program, "-m", "pytest", "-q", *arguments], TEST_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"not finished after {TEST_TIMEOUT} s", False
    if done.returncode:
        print(done.stdout, flush=True)
    return re.sub(r"^=+ | =+$", "", last_line(done.stdout)), done.returncode == 0


def installed(program: str, package: str) -> str:
    script = f"from importlib.metadata import version; print(version({package!r}))"
    return last_line(command([program, "-c", script], 30).stdout)


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def print_table(results: list[Result]) -> None:
    rows = [("Python", "gunicorn", "gevent", "outcome"), *(result[:4] for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
