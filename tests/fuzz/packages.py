"""The package twice: as it was built, and from its Python sources alone.

A target that runs in both finds where they differ. The sources are what atheris looks into.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

__all__ = ["BUILT", "PACKAGES", "PURE", "Package"]

MODULES = (
    "brokers.base",
    "delivery.signing",
    "driver.client_handshake",
    "driver.eventstream",
    "driver.eventstream_request",
    "driver.hixie76",
    "driver.hybi",
    "driver.server_handshake",
    "errors",
    "extensions.base",
    "extensions.negotiation",
    "extensions.permessage_deflate",
    "gateway.protocol",
    "http.headers",
    "http.proxy",
    "http.url",
)


class Package:
    """The modules of one form of the package, by their names in it: ``package('driver.hybi')``."""

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self._modules = modules

    def __call__(self, name: str) -> ModuleType:
        return self._modules[name]


def load() -> Package:
    return Package({name: importlib.import_module(f"faye_wsgi.{name}") for name in MODULES})


def load_sources() -> Package:
    """Import it a second time, with FAYE_WSGI_PURE, and leave no trace of that."""
    saved = take_out()
    is_set = "FAYE_WSGI_PURE" in os.environ
    os.environ.setdefault("FAYE_WSGI_PURE", "1")
    try:
        return load()
    finally:
        folder = os.path.dirname(sys.modules["faye_wsgi"].__file__ or "")
        take_out()
        sys.modules.update(saved)
        if not is_set:
            del os.environ["FAYE_WSGI_PURE"]
            # The finders of sources, which modules that are imported later must not meet.
            for path in [one for one in sys.path_importer_cache if one.startswith(folder)]:
                del sys.path_importer_cache[path]


def take_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "faye_wsgi"]
    return {name: sys.modules.pop(name) for name in names}


BUILT = load()
PURE = load_sources()
PACKAGES = (BUILT, PURE)
