"""Whether the process is run for debugging: then what costs a little is looked at, too."""

from __future__ import annotations

import os
import sys

__all__ = ["is_on"]


def is_on() -> bool:
    """Whether to debug; asked in a view, where Flask's application is known.

    The environment variable ``FAYE_WSGI_DEBUG`` decides: 1 for yes, 0 for no. Without it, the
    answer is yes in Python's development mode (``python -X dev``, ``PYTHONDEVMODE=1``), where
    Flask's application has ``debug``, and where Django's settings have ``DEBUG``.
    """
    chosen = os.environ.get("FAYE_WSGI_DEBUG")
    if chosen:
        return chosen != "0"
    return sys.flags.dev_mode or _is_on_in_flask() or _is_on_in_django()


def _is_on_in_flask() -> bool:
    # Nothing is imported for this: a view of Flask has loaded it.
    app = getattr(sys.modules.get("flask"), "current_app", None)
    return bool(app) and bool(app.debug)  # type: ignore[union-attr]


def _is_on_in_django() -> bool:
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    return settings is not None and settings.configured and bool(settings.DEBUG)
