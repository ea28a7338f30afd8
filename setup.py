"""Builds the optional C extensions; everything else is in setup.cfg.

The package works without a compiler: a build that fails is reported and left out.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

SOURCES = (
    os.path.join("faye_wsgi", "driver", "_speedups.c"),
    os.path.join("faye_wsgi", "transport", "_hotpath.c"),
)


def extensions() -> list[Extension]:
    here = os.path.dirname(os.path.abspath(__file__))
    return [
        Extension(
            os.path.splitext(source)[0].replace(os.sep, "."),
            [source],
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
            optional=True,
        )
        for source in SOURCES
        if os.path.exists(os.path.join(here, source))
    ]


setup(ext_modules=extensions())
