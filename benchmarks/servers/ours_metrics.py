"""faye_wsgi with its metrics on."""

from __future__ import annotations

from ours import app

from faye_wsgi import metrics

metrics.enable()

__all__ = ["app"]
