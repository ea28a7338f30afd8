"""Builds the optional compiled modules; everything else is in setup.cfg.

A Python file with a ``.pxd`` beside it is compiled by Cython, and stays beside it for the
interpreters that have no compiler. What C alone can say is in a ``.c`` file.

The compiled modules know the layout of each other's objects, so that all of them are built
or none: a build that fails is reported and left out, and the package works without. With
FAYE_WSGI_BUILD_PURE=1 none is built: its wheel (py3-none-any) is for all platforms.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = Path("faye_wsgi")
DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,  # the .pxd files have the types that count
    "binding": False,  # methods are found faster
}


def extension(source: Path) -> Extension:
    name = ".".join(source.with_suffix("").parts)
    # The loop that masks is vectorized by -O3 alone; what Cython writes gains nothing from it.
    level = "-O3" if source.suffix == ".c" else "-O2"
    return Extension(name, [str(source)], extra_compile_args=[level, "-g0", "-Wall"])


def extensions() -> list[Extension]:
    hand_written = [extension(source) for source in sorted(PACKAGE.glob("*/*.c"))]
    try:
        from Cython.Build import cythonize
        from Cython.Compiler.Errors import CompileError
    except ImportError:
        return hand_written
    sources = [pxd.with_suffix(".py") for pxd in sorted(PACKAGE.glob("*/*.pxd"))]
    try:
        return hand_written + cythonize(
            [extension(source) for source in sources],
            build_dir="build/cython",
            compiler_directives=DIRECTIVES,
            quiet=True,
        )
    except CompileError as error:  # a release of Cython that is not known yet
        print(f"warning: faye_wsgi is built without its compiled modules: {error}")
        return []


class BuildAllOrNothing(build_ext):
    """Builds the modules side by side, and leaves none behind where one fails."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            self.warn(f"faye_wsgi is built without its compiled modules: {error}")
            for name in map(self.get_ext_fullpath, map(self.get_ext_fullname, self.names())):
                Path(name).unlink(missing_ok=True)
            self.extensions = []

    def names(self) -> list[str]:
        return [extension.name for extension in self.extensions]


is_pure = bool(os.environ.get("FAYE_WSGI_BUILD_PURE"))
setup(
    ext_modules=[] if is_pure else extensions(),
    cmdclass={"build_ext": BuildAllOrNothing},
)
