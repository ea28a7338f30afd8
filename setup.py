"""Builds the optional C extension; everything else is in setup.cfg.

The package works without a compiler: a build that fails is reported and left out.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

SOURCE = os.path.join("faye_wsgi", "driver", "_speedups.c")


def extensions() -> list[Extension]:
    here = os.path.dirname(os.path.abspath(__file__))
    if not os.path.exists(os.path.join(here, SOURCE)):
        return []
    return [
        Extension(
            "faye_wsgi.driver._speedups",
            [SOURCE],
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
            optional=True,
        )
    ]


setup(ext_modules=extensions())
