"""WebSocket and EventSource for Flask, Django and any WSGI application on gevent.

    from faye_wsgi import WebSocket

    def echo(environ, start_response):
        ws = WebSocket(environ)
        for message in ws:
            ws.send(message)
        return ws.response(environ, start_response)

The public names are imported when they are first used, so that importing the package
alone loads neither gevent nor a framework.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"


def _find_sources_alone() -> None:
    # A compiled module lies beside its source, and Python finds it first. So the finders of
    # this package's folders are replaced by finders of sources.
    for folder in os.scandir(os.path.dirname(__file__)):
        if folder.is_dir():
            finder = FileFinder(folder.path, (SourceFileLoader, SOURCE_SUFFIXES))
            sys.path_importer_cache[folder.path] = finder


if os.environ.get("FAYE_WSGI_PURE"):
    _find_sources_alone()

if TYPE_CHECKING:
    from faye_wsgi.channels import Channels, Member, Message, Subscription
    from faye_wsgi.client import Client
    from faye_wsgi.driver.base import ReadyState
    from faye_wsgi.driver.eventstream import ServerEvent
    from faye_wsgi.driver.frames import CloseCode
    from faye_wsgi.endpoint import broadcast
    from faye_wsgi.errors import (
        BrokerError,
        ConnectionClosed,
        ExtensionError,
        HandshakeError,
        HijackError,
        ProtocolError,
        PublishError,
        WebSocketError,
    )
    from faye_wsgi.eventsource import EventSource
    from faye_wsgi.eventsource_client import EventSourceClient
    from faye_wsgi.extensions.permessage_deflate import PermessageDeflate, permessage_deflate
    from faye_wsgi.websocket import WebSocket

_EXPORTS = {
    "BrokerError": "faye_wsgi.errors",
    "Channels": "faye_wsgi.channels",
    "Client": "faye_wsgi.client",
    "CloseCode": "faye_wsgi.driver.frames",
    "ConnectionClosed": "faye_wsgi.errors",
    "EventSource": "faye_wsgi.eventsource",
    "EventSourceClient": "faye_wsgi.eventsource_client",
    "ExtensionError": "faye_wsgi.errors",
    "HandshakeError": "faye_wsgi.errors",
    "HijackError": "faye_wsgi.errors",
    "Member": "faye_wsgi.channels",
    "Message": "faye_wsgi.channels",
    "PermessageDeflate": "faye_wsgi.extensions.permessage_deflate",
    "ProtocolError": "faye_wsgi.errors",
    "PublishError": "faye_wsgi.errors",
    "ReadyState": "faye_wsgi.driver.base",
    "ServerEvent": "faye_wsgi.driver.eventstream",
    "Subscription": "faye_wsgi.channels",
    "WebSocket": "faye_wsgi.websocket",
    "WebSocketError": "faye_wsgi.errors",
    "broadcast": "faye_wsgi.endpoint",
    "permessage_deflate": "faye_wsgi.extensions.permessage_deflate",
}

__all__ = [
    "BrokerError",
    "Channels",
    "Client",
    "CloseCode",
    "ConnectionClosed",
    "EventSource",
    "EventSourceClient",
    "ExtensionError",
    "HandshakeError",
    "HijackError",
    "Member",
    "Message",
    "PermessageDeflate",
    "ProtocolError",
    "PublishError",
    "ReadyState",
    "ServerEvent",
    "Subscription",
    "WebSocket",
    "WebSocketError",
    "broadcast",
    "permessage_deflate",
]


def __getattr__(name: str) -> Any:  # PEP 562
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
