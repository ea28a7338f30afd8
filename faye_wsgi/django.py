"""Django: the decorators of views that get a WebSocket or an EventSource.

    @websocket(ping=25)
    def chat(request, ws, room):
        for message in ws:
            ws.send(message)

    @eventsource(retry=10)
    def feed(request, es):
        for item in items(after=es.last_event_id):
            es.send(item.json, id=item.id)

Database connections that Django would close at the end of a request are closed before the
view runs, and after each listener, so that an idle WebSocket holds none. Nor does it hold a
transaction: ``ATOMIC_REQUESTS`` leaves these views out.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Callable
from urllib.parse import quote, urlencode, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from faye_wsgi import channels
from faye_wsgi.errors import BrokerError
from faye_wsgi.eventsource import EventSource
from faye_wsgi.websocket import WebSocket
from faye_wsgi.wsgi.decorators import View, make_decorator
from faye_wsgi.wsgi.responses import close_idle_connections

__all__ = ["Channels", "eventsource", "websocket"]

log = logging.getLogger("faye_wsgi")


def _request(*args: Any) -> Any:
    if not args or not hasattr(args[0], "META"):
        kind = type(args[0]).__name__ if args else "nothing"
        raise TypeError(
            f"a decorated view gets the request first, not {kind}: write "
            "@method_decorator(websocket) where it is a method, and call it for a request"
        )
    return args[0]


def _call(view: View, connection: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    return view(request, connection, *args, **kwargs)


def _not_atomic(view: View) -> View:
    # ATOMIC_REQUESTS puts a transaction around each view. Around one that lasts for hours it
    # would hold its locks as long.
    try:
        aliases = list(connections)
    except ImproperlyConfigured:  # imported without settings
        aliases = [DEFAULT_DB_ALIAS]
    for alias in aliases:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


websocket = make_decorator(WebSocket, _request, _call, close_idle_connections, _not_atomic)
websocket.__doc__ = """``@websocket`` or ``@websocket(protocols, **options)``, as of WebSocket.

The view gets the request and the WebSocket, and what it returns is not used. It goes below
Django's own decorators (``@login_required``), which see an ordinary view. Raises TypeError
for a view that would never run (a generator, an async function), and for an option that
there is not.
"""

eventsource = make_decorator(EventSource, _request, _call, close_idle_connections, _not_atomic)
eventsource.__doc__ = """``@eventsource`` or ``@eventsource(**options)``, as of EventSource.

The same as ``websocket``, with an EventSource. When the view ends, the stream goes on as
long as something refers to it, or it has listeners.
"""


class Channels(channels.Channels):
    """``faye_wsgi.Channels``, whose publications wait for the commit of a transaction.

    ``Channels()`` takes its options from the setting ``CHANNELS``, a dict, when it is made:
    ``CHANNELS = {'url': 'redis://localhost:6379/0', 'history': 100}``. Without a ``secret`` there,
    ``SECRET_KEY`` signs names.

    The URL ``django://default`` means Postgres as the settings of that database name it, on
    connections of its own: no publication is a part of Django's transaction.
    """

    def __init__(self, url: str | None = None, **options: Any) -> None:
        """The arguments go before the settings."""
        chosen: dict[str, Any] = {"url": "memory://"}
        if settings.configured or url is None:
            chosen.update(secret=settings.SECRET_KEY, **getattr(settings, "CHANNELS", {}))
        if url is not None:
            chosen["url"] = url
        if chosen["url"].startswith("django://"):
            chosen["url"] = _database_url(chosen["url"])
        super().__init__(**{**chosen, **options})

    def view(self, *args: Any, **options: Any) -> View:
        """As of ``faye_wsgi.Channels``; ``ATOMIC_REQUESTS`` leaves it out, as all views here."""
        return _not_atomic(super().view(*args, **options))

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        key: str | None = None,
        on_commit: bool = True,
        using: str | None = None,
    ) -> str | None:
        """Publish when the transaction is committed; a rollback drops it.

        Outside of ``atomic()``, and with ``on_commit=False``, now: then it returns the cursor, else
        None. ``data`` is encoded now in any case, and wrong arguments raise now. Where the broker
        fails after the commit, that is logged: the data is committed already, and no caller could
        take it back. ``using`` is the alias of the database.
        """
        if not on_commit or not transaction.get_connection(using).in_atomic_block:
            return self._prepare(channel, data, key)()
        send = self._prepare(channel, data, key)
        transaction.on_commit(lambda: _send_late(send), using=using)
        return None

    def user_logged_out(self, sender: Any, user: Any = None, **values: Any) -> None:
        """As of ``faye_wsgi.Channels``, when the transaction is committed, which ends the session.

        Before that a client could come back with it.
        """
        disconnect = partial(super().user_logged_out, sender, user)
        if transaction.get_connection().in_atomic_block:
            transaction.on_commit(disconnect)
        else:
            disconnect()


# Options of Django's databases that are not libpq's.
_NOT_LIBPQ = {"assume_role", "isolation_level", "prepare_threshold"}


def _database_url(url: str) -> str:
    """The URL of the database that ``django://ALIAS`` names, with the options of both."""
    parts = urlsplit(url)
    database = connections[parts.netloc]
    if database.vendor != "postgresql":
        raise ImproperlyConfigured(
            f"{url} is for Postgres, and that database is {database.display_name}"
        )
    settings = database.settings_dict
    names = {
        "dbname": "NAME",
        "user": "USER",
        "password": "PASSWORD",
        "host": "HOST",
        "port": "PORT",
    }
    options = {name: settings.get(setting) for name, setting in names.items()}
    for name, value in settings.get("OPTIONS", {}).items():
        if type(value) in (str, int) and name not in _NOT_LIBPQ:
            options[name] = value
    query = urlencode({n: v for n, v in options.items() if v not in (None, "")}, quote_via=quote)
    return "postgres:///?" + "&".join(filter(None, (query, parts.query)))


def _send_late(send: Callable[[], object]) -> None:
    try:
        send()
    except BrokerError:
        log.exception("a publication was not sent, after its transaction was committed")
