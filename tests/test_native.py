"""What is compiled: with warnings and sanitizers on, left out, in wheels, in an sdist."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "faye_wsgi").glob("*/*.c"))
COMPILED = sorted((ROOT / "faye_wsgi").glob("*/*.pxd"))
CC = os.environ.get("CC", "gcc")
SANITIZERS = "-fsanitize=address,undefined"
FLAGS = ["-O1", "-g", "-fPIC", "-shared", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
TIMEOUT = 300  # seconds: a build with sanitizers takes most of a minute
pytestmark = pytest.mark.timeout(400)

# What runs over the C code: the property tests against the Python twins, the seeds of fuzzing,
# and connections.
DRIVER = ["tests/driver/test_speedups.py", "tests/driver/test_masking.py", "tests/fuzz"]
TRANSPORT = [
    "tests/transport/test_stream.py",
    "tests/transport/test_connection.py",
    "tests/transport/test_failures.py",
    "tests/test_broadcast.py",
]

needs_compiler = pytest.mark.skipif(shutil.which(CC) is None, reason="there is no C compiler")


def copy_of_the_package(folder: Path) -> Path:
    """The sources alone: what was built elsewhere is left behind."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in ("faye_wsgi", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def compile_into(folder: Path, *flags: str) -> None:
    """The C that is written by hand, with all warnings on."""
    include = sysconfig.get_path("include")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for source in SOURCES:
        target = folder / source.relative_to(ROOT).with_suffix(suffix)
        command = [
            CC,
            "-Wall",
            "-Wextra",
            "-Werror",
            *FLAGS,
            *flags,
            f"-I{include}",
            str(source),
            "-o",
            str(target),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        assert done.returncode == 0, done.stderr


def run(folder: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-5000:]
    return output


def sanitizer_library(name: str) -> str:
    found = subprocess.run([CC, f"-print-file-name={name}"], capture_output=True, text=True)
    return found.stdout.strip() if os.path.isabs(found.stdout.strip()) else ""


def build_with_sanitizers(folder: Path) -> dict[str, str] | None:
    """Compile a copy of the package; the environment in which it runs, or None."""
    libraries = [sanitizer_library(name) for name in ("libasan.so", "libubsan.so")]
    if not all(libraries):
        return None
    copy_of_the_package(folder)
    # Sanitizers make optimizing slow, and it is not what is tested here.
    setup = folder / "setup.py"
    setup.write_text(setup.read_text().replace('"-O2"', '"-O1"').replace('"-O3"', '"-O1"'))
    # greenlet copies pieces of the stack, red zones and all.
    flags = f"{SANITIZERS} -fno-omit-frame-pointer --param asan-stack=0"
    run(folder, "setup.py", "-q", "build_ext", "--inplace", CFLAGS=flags, LDFLAGS=SANITIZERS)
    built = list((folder / "faye_wsgi").rglob("*.so"))
    assert len(built) == len(SOURCES) + len(COMPILED)
    compile_into(folder, SANITIZERS)
    return {
        "LD_PRELOAD": " ".join(libraries),
        # Small objects of the interpreter have red zones only where each is a malloc().
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
    }


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The package compiled with sanitizers, and the environment in which it runs."""
    folder = tmp_path_factory.mktemp("sanitized")
    environment = build_with_sanitizers(folder)
    if environment is None:
        pytest.skip("the compiler has no sanitizers")
    return folder, environment


@needs_compiler
@pytest.mark.parametrize("tests", [DRIVER, TRANSPORT], ids=["driver", "transport"])
def test_no_undefined_behaviour(tests: list[str], sanitized: tuple[Path, dict[str, str]]) -> None:
    folder, environment = sanitized
    output = run(
        folder,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "--capture=sys",
        *tests,
        **environment,
    )
    assert re.search(r"\d{2,} passed", output) and " skipped" not in output


@needs_compiler
def test_the_sanitizers_see_what_is_wrong(tmp_path: Path) -> None:
    """A test of the test: an off-by-one in the masking loop is found."""
    libraries = [sanitizer_library(name) for name in ("libasan.so", "libubsan.so")]
    if not all(libraries):
        pytest.skip("the compiler has no sanitizers")
    folder = copy_of_the_package(tmp_path)
    compile_into(folder, SANITIZERS)
    source = (ROOT / "faye_wsgi/driver/_speedups.c").read_text()
    broken = source.replace(
        "for (; i < size; i++)\n        out[i] =", "for (; i <= size + 40; i++)\n        out[i] ="
    )
    assert broken != source
    (tmp_path / "broken.c").write_text(broken)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    subprocess.run(
        [
            CC,
            *FLAGS,
            SANITIZERS,
            f"-I{sysconfig.get_path('include')}",
            str(tmp_path / "broken.c"),
            "-o",
            str(folder / f"faye_wsgi/driver/_speedups{suffix}"),
        ],
        check=True,
        timeout=TIMEOUT,
    )
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        run(
            folder,
            "-c",
            "from faye_wsgi.driver._speedups import mask; mask(b'x' * 9, b'1234')",
            LD_PRELOAD=" ".join(libraries),
            PYTHONMALLOC="malloc",
            ASAN_OPTIONS="detect_leaks=0",
        )


FILES = "import importlib; print(*(importlib.import_module(name).__file__ for name in {}))"


def files(folder: Path, **environment: str) -> list[str]:
    """Where the modules that may be compiled come from."""
    names = [".".join(pxd.relative_to(ROOT).with_suffix("").parts) for pxd in COMPILED]
    return run(folder, "-c", FILES.format(names), **environment).split()


@needs_compiler
def test_the_compiled_modules_are_used() -> None:
    assert COMPILED and all(file.endswith(".so") for file in files(ROOT))


def test_everything_works_without_c() -> None:
    """The Python sources as they are, under the tests of the compiled ones."""
    assert all(file.endswith(".py") for file in files(ROOT, FAYE_WSGI_PURE="1"))
    run(ROOT, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TRANSPORT, FAYE_WSGI_PURE="1")
    pure = (
        "from faye_wsgi.driver import frames;"
        "assert frames.build_message is frames.build_message_python;"
        "assert frames.parse_messages is None"
    )
    run(ROOT, "-c", pure, FAYE_WSGI_PURE="1")


def test_a_build_without_a_compiler(tmp_path: Path) -> None:
    """It says so, and goes on without; nothing is left of a build that failed half-way."""
    folder = copy_of_the_package(tmp_path)
    said = run(folder, "setup.py", "build_ext", "--inplace", CC="false", LDSHARED="false")
    assert "without its compiled modules" in said
    assert not list(folder.rglob("*.so"))
    assert all(file.endswith(".py") for file in files(folder))


def test_an_sdist_has_all_that_is_tracked(tmp_path: Path) -> None:
    """So that it can be built, and its tests run, without the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = {file for file in tracked.stdout.splitlines() if (ROOT / file).exists()}
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    run(tmp_path, "setup.py", "-q", "sdist", "--formats=zip", FAYE_WSGI_BUILD_PURE="1")
    (archive,) = (tmp_path / "dist").glob("*.zip")
    assert files - {name.partition("/")[2] for name in zipfile.ZipFile(archive).namelist()} == set()


@pytest.mark.parametrize("kind", [pytest.param("compiled", marks=needs_compiler), "pure"])
def test_a_wheel(kind: str, tmp_path: Path) -> None:
    """It has the whole package and nothing else, and echoes a message where it is installed."""
    pytest.importorskip("setuptools.command.bdist_wheel", reason="setuptools is older than 70.1")
    folder = copy_of_the_package(tmp_path / "sources")
    package = {str(path.relative_to(folder)) for path in (folder / "faye_wsgi").rglob("*.*")}
    wheel = build_wheel(folder, tmp_path, "1" if kind == "pure" else "")
    assert wheel.name.endswith("-py3-none-any.whl") == (kind == "pure")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    compiled = {name for name in names if name.endswith(".so")}
    assert names - compiled == package
    assert len(compiled) == (len(SOURCES) + len(COMPILED) if kind == "compiled" else 0)
    installed = tmp_path / "installed"
    run(tmp_path, "-m", "pip", "install", "-q", "--no-deps", "--target", str(installed), str(wheel))
    assert (
        run(installed, str(ROOT / ".ci/try_wheel.py"), kind) == f"{kind}: {installed}/faye_wsgi\n"
    )
    assert "ws://" in run(installed, "bin/faye-wsgi", "--help")


def build_wheel(folder: Path, target: Path, is_pure: str) -> Path:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target)]
    run(folder, "-m", "pip", "wheel", *options, ".", FAYE_WSGI_BUILD_PURE=is_pure)
    (wheel,) = target.glob("*.whl")
    return wheel


def test_wheels_are_built_for_each_python() -> None:
    """cibuildwheel reads its settings, and builds for the Pythons that the package is for."""
    pytest.importorskip("cibuildwheel", reason="cibuildwheel is not installed")
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    versions = re.findall(r"Python :: 3\.(\d+)", settings["metadata"]["classifiers"])
    kinds = {"linux": ["manylinux_{}", "musllinux_{}"], "macos": ["macosx_{}"]}
    machines = {"linux": ["x86_64", "aarch64"], "macos": ["x86_64", "arm64"]}
    command = ["-m", "cibuildwheel", "--config-file", ".ci/cibuildwheel.toml"]
    for platform in kinds:
        listed = run(ROOT, *command, "--print-build-identifiers", "--platform", platform)
        names = [kind.format(machine) for kind in kinds[platform] for machine in machines[platform]]
        assert set(listed.split()) == {f"cp3{v}-{name}" for v in versions for name in names}
