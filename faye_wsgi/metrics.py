"""Metrics of this package's connections and channels, for Prometheus and statsd.

from faye_wsgi import metrics

metrics.enable()
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

from faye_wsgi.exporters.statsd import Statsd
from faye_wsgi.transport import tally
from faye_wsgi.wsgi.worker import find_statsd

__all__ = ["enable"]

log = logging.getLogger("faye_wsgi")

_enabled: list[tally.Reporter] = []


def enable(*, registry: Any = None) -> None:
    """Count from now on, in this process and those that it forks. A second call does nothing.

    Call it where the application is made, before the first connection: those that are open already
    are not counted. Metrics go to ``prometheus_client``, where that is installed, and to gunicorn's
    statsd, where ``statsd_host`` is set; without either, a warning is logged.

    :param registry: of ``prometheus_client``. Default: its ``REGISTRY``.
    """
    if _enabled:
        return
    _enabled.append(Statsd())
    if find_spec("prometheus_client") is not None:
        from prometheus_client import REGISTRY

        from faye_wsgi.exporters.prometheus import Prometheus

        _enabled.append(Prometheus(REGISTRY if registry is None else registry))
    elif find_statsd() is None:
        log.warning(
            "metrics go nowhere: prometheus_client is not installed (pip install "
            "'faye_wsgi[prometheus]'), and gunicorn has no statsd_host"
        )
    for reporter in _enabled:
        tally.turn_on(reporter)
