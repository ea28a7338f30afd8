"""Channels: publish once, and every subscriber gets it, in whichever process it is connected.

    channels = Channels('redis://localhost:6379/0', history=100, ttl=3600)

    channels.publish('room:42', {'text': 'hello'})      # in a view, a task, a script

    with channels.subscribe(ws, 'room:42', since=request.args.get('since')):
        for text in ws:
            channels.publish('room:42', {'text': text})

All subscribers of a channel see the same order. What a subscriber missed while its connection, its
process or the broker was away is delivered later. Where that is not possible it gets a ``reset``.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Callable

from faye_wsgi.brokers import engines
from faye_wsgi.brokers.base import Broker, Cursor, Position, Request
from faye_wsgi.delivery import signing
from faye_wsgi.delivery.control import Control
from faye_wsgi.delivery.delivery import PRIVATE, Delivery
from faye_wsgi.delivery.messages import Format, Message
from faye_wsgi.delivery.outlets import Mailbox, Slow
from faye_wsgi.delivery.presence import member_data
from faye_wsgi.delivery.relay import Entry
from faye_wsgi.driver.frames import check_close
from faye_wsgi.endpoint import Endpoint
from faye_wsgi.errors import BrokerError
from faye_wsgi.eventsource import EventSource
from faye_wsgi.gateway.session import Authorize, Site
from faye_wsgi.gateway.view import ViewOptions, make_view
from faye_wsgi.http.origins import Origins, check_origins
from faye_wsgi.transport import tally
from faye_wsgi.transport.settings import check_seconds
from faye_wsgi.websocket import WebSocket
from faye_wsgi.wsgi.decorators import check_options
from faye_wsgi.wsgi.worker import count_workers

__all__ = ["Channels", "Member", "Message", "Subscription"]

log = logging.getLogger("faye_wsgi")


class Member:
    """Someone who is in a channel: ``id``, and ``data``, a list with that of each connection."""

    __slots__ = ("data", "id")

    def __init__(self, id: str, data: list[dict[str, Any]]) -> None:
        self.id = id
        self.data = data

    def __repr__(self) -> str:
        return f"Member({self.id!r}, {self.data!r})"


class Channels:
    """Channels of messages over all processes that use the same broker.

    Making one connects to nothing, so it may be a global of a module. It connects at the first use,
    and again in the child of a fork. All methods may be called in any greenlet and thread.
    """

    def __init__(self, url: str = "memory://", **options: Any) -> None:
        """Name the broker; see ``configure`` for the arguments."""
        self._lock = threading.Lock()
        self._delivery: Delivery | None = None
        self._control: Any = None
        self._process: int | None = None
        self._brokers: tuple[Broker, ...] = ()
        self._options = {"url": url, **options}  # for ``init_app``
        self.configure(**self._options)

    def configure(
        self,
        url: str = "memory://",
        *,
        history: int = 0,
        ttl: float = 300,
        rules: Mapping[str, Mapping[str, Any]] | None = None,
        prefix: str = "faye",
        timeout: float = 2.0,
        high_water: int = 2**20,
        slow: Slow = "close",
        max_message: int = 65_536,
        max_channels: int = 128,
        max_name: int = 255,
        max_history: int = 10_000,
        secret: str | bytes | None = None,
        **options: Any,
    ) -> None:
        """Set all options anew, before the first use.

        :param url: the broker: ``memory://`` (default) for one process.
        :param history: how many messages of a channel are kept for those who come back.
            Default 0: none, so that each gap is a reset.
        :param ttl: seconds that they are kept after the newest. Default 300.
        :param rules: other values for channels whose names match a pattern, the first match
            first: ``{'room:*': {'history': 1000, 'ttl': 86400}}``.
        :param prefix: begins the names of all that the broker stores.
        :param timeout: seconds that a call may wait for the broker. Default 2.
        :param high_water: bytes that wait for a slow subscriber, above those of its connection,
            before ``slow`` applies. Default 1 MiB.
        :param slow: 'close' (default): its connection is closed with 1013, and it may come back;
            'reset': it misses messages, and gets a reset when it has room; 'latest': it gets
            the newest message of each channel.
        :param max_message: bytes of a message's JSON. Default 65536.
        :param max_channels: channels of a connection. Default 128.
        :param max_name: bytes of a channel's name in UTF-8. Default 255.
        :param max_history: the most that ``history`` may be. Default 10000.
        :param secret: the key of signed names. Default None: there are none.
        :param options: the engine's own.

        Raises TypeError and ValueError for wrong arguments, RuntimeError after the first use.
        """
        if self._delivery is not None:
            raise RuntimeError("these channels are in use already: configure them before that")
        check_seconds("timeout", timeout)
        if slow not in ("close", "reset", "latest"):
            raise ValueError(f"slow is 'close', 'reset' or 'latest', not {slow!r}")
        if high_water < 1:
            raise ValueError("high_water is a number of bytes, from 1 on")
        self.max_message = max_message
        self.max_channels = max_channels
        self._max_name = max_name
        self._max_history = max_history
        self._keeping = []
        for pattern, rule in (rules or {}).items():
            unknown = rule.keys() - {"history", "ttl"}
            if unknown:
                raise ValueError(f"a rule has history and ttl, not {sorted(unknown)}")
            kept = self._check_keeping(rule.get("history", history), rule.get("ttl", ttl))
            self._keeping.append((pattern, kept))
        self._keeping.append(("*", self._check_keeping(history, ttl)))
        self._timeout = timeout
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._high_water = high_water
        self._slow: Slow = slow
        self._url = url
        self._brokers = engines.connect(url, prefix=prefix, timeout=timeout, **options)

    def _check_keeping(self, history: int, ttl: float) -> tuple[int, float]:
        if not 0 <= history <= self._max_history:
            raise ValueError(f"history is a number from 0 to {self._max_history}, not {history!r}")
        check_seconds("ttl", ttl)
        return history, ttl

    def __repr__(self) -> str:
        return f"<Channels {self._url.partition('://')[0]}://>"

    # Publishing

    def publish(self, channel: str, data: Any, *, key: str | None = None) -> Any:
        """Publish what ``json`` can encode; returns the cursor behind it, a str.

        :param key: publishing again in this channel with the same key, within 300 seconds,
            does nothing and returns the first cursor: so a retry is safe.

        Raises PublishError if the broker did not take it within ``timeout``, or did not say so:
        it is never delivered to some subscribers only. ValueError for a channel or data beyond the
        limits, TypeError for data that has no JSON.
        """
        return self._prepare(channel, data, key)()

    def _prepare(self, channel: str, data: Any, key: str | None) -> Callable[[], str]:
        """Check and encode a publication; what is returned sends it."""
        self.check_name(channel)
        payload = self._encode(data)
        history, ttl = self._keep(channel)
        index = self._partition(channel)
        broker = self._use().brokers[index]

        def send() -> str:
            try:
                position = broker.publish(channel, payload, key=key, history=history, ttl=ttl)
            except BrokerError:
                tally.count(tally.PUBLICATIONS, ("failed",))
                raise
            tally.count(tally.PUBLICATIONS, ("taken",))
            return str(self._cursor({index: position}))

        return send

    def _encode(self, data: Any) -> str:
        payload = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        try:
            size = len(payload.encode())
        except UnicodeEncodeError:  # halves of surrogate pairs, which JSON can escape
            payload = json.dumps(data, separators=(",", ":"), allow_nan=False)
            size = len(payload)
        if size > self.max_message:
            raise ValueError(f"a message has {self.max_message} bytes at most, not {size}")
        return payload

    def _keep(self, channel: str) -> tuple[int, float]:
        return next(kept for pattern, kept in self._keeping if fnmatchcase(channel, pattern))

    # Subscribing

    def subscribe(
        self,
        connection: Any,
        channels: str | Iterable[str],
        *,
        since: str | None = None,
        last: int = 0,
        limit: int | None = None,
        presence: Mapping[str, Any] | bool | None = None,
        user: Any = None,
        format: Format | None = None,
    ) -> Subscription:
        """Let a connection, or a function, get what is published to channels.

        :param connection: a WebSocket, an EventSource, or a function of one ``Message``, which
            runs in a thread (or greenlet) of its own.
        :param channels: the name of a channel, or several.
        :param since: a cursor: what came after it is replayed first. None or '' for none.
        :param last: without a cursor, how many of the last messages come first.
        :param limit: with a cursor, how many messages of a channel (and 256 KiB of them) are
            replayed at most. Where more came after it, there is a reset instead. None: all that is
            kept.
        :param presence: ``{'id': …, …}`` enters a member, whom the others see; the rest of it
            is shown to them. True only watches who is there. With either, the connection gets
            ``joined`` and ``left``.
        :param user: whom ``disconnect`` finds.
        :param format: makes the text of a message, instead of the JSON of it; None leaves the
            message out. It must not wait.

        Returns when the broker has confirmed it and the replay is on its way. It ends when the
        connection closes, when it is closed, or at the end of its ``with`` block. A connection
        that has subscriptions lives on when its view has returned.

        Raises BrokerError where the broker cannot be asked within ``timeout``; nothing is left
        behind. ValueError for names, cursors and numbers that are none, or beyond the limits.
        """
        kind = _kind(connection)
        names = [channels] if isinstance(channels, str) else list(dict.fromkeys(channels))
        cursor = self._parse(since) if since else None
        if not 0 <= last <= self._max_history:
            raise ValueError(f"last is a number from 0 to {self._max_history}, not {last!r}")
        if limit is not None and limit < 0:
            raise ValueError(f"limit is a number from 0 on, not {limit!r}")
        delivery = self._use()
        target = Mailbox(connection, delivery.end) if kind == "function" else connection
        try:
            subscription = Subscription(
                self, target, kind, presence, None if user is None else str(user), format
            )
            subscription._begin(names, cursor, last, limit)
        except BaseException:
            if kind == "function":
                target.close()
            delivery.rest_if_idle()
            raise
        return subscription

    # The endpoint

    def view(
        self,
        authorize: Authorize | None = None,
        *,
        origins: Origins = "same",
        trust_forwarded: bool = False,
        max_length: int | None = None,
        max_history: int = 100,
        rate: float = 50,
        burst: float = 256,
        ping: float | None = 25,
        release: Callable[[], object] | None = None,
        **options: Any,
    ) -> Callable[..., Any]:
        """The ready-made endpoint for browsers: a view for Flask, Django, WebOb and plain WSGI.

        Its URL takes WebSockets, event streams and single requests (POST), and any other GET gets
        the script for pages: ``import { connect } from '/channels'``. In Flask, register it by
        ``faye_wsgi.flask.add_channels``.

        :param authorize: ``authorize(request, action, channel)`` is asked each time. ``request`` is
            what the framework has, an environ in plain WSGI. ``action`` is 'subscribe' (and reading
            the history), 'publish' or 'presence' (seeing who is there). A false value refuses. A
            dict has options: ``user`` and ``presence`` as in ``subscribe``; ``last`` and
            ``history``, the most messages that may be asked for of the past, also by an old cursor
            (``history``: beyond it there is a reset); ``data``, a function
            of what a client publishes that returns what is published instead, so that it can be
            checked and get its author; its ValueError refuses it. Without ``authorize`` only names
            from ``sign`` are allowed, and nothing is published.
        :param origins: which pages may use it: 'same' (default), a list, or None for any.
        :param trust_forwarded: believe ``X-Forwarded-Host`` and ``X-Forwarded-For``, behind a
            proxy that sets them.
        :param max_length: bytes of a client's message. Default: twice ``max_message`` and 16 KiB.
        :param max_history: the most messages of the past at once. Default 100.
        :param rate: messages a second that a connection may send, and channels that it may
            subscribe to. Above it the connection is served more slowly. Default 50. So many
            single requests (POST) may come from an address in each worker; above it they get
            429. Behind a proxy all have one address, without ``trust_forwarded``.
        :param burst: how many of them at once. Default 256.
        :param ping: seconds between pings of WebSockets. Default 25.
        :param release: called after each message, to give back what ``authorize`` has used, such as
            a database session. Django's are given back without it.
        :param options: all others of WebSocket. ``max_connections``, ``max_per_address``,
            ``max_per_user``, ``check`` and ``check_every`` are for event streams, too.

        Raises TypeError and ValueError for wrong options.
        """
        options["ping"] = ping
        if authorize is not None and not callable(authorize):
            raise TypeError("authorize is a function of a request, an action and a channel")
        if rate <= 0 or burst < 1:
            raise ValueError("rate is above 0, and burst from 1 on")
        check_origins(origins)
        check_options(WebSocket, (), options)
        return make_view(
            Site(self, authorize, max_length, max_history),
            ViewOptions(
                origins=origins,
                trust_forwarded=trust_forwarded,
                rate=rate,
                burst=burst,
                release=release,
                websocket=options,
            ),
        )

    # Asking

    def cursor(self, *channels: str) -> str:
        """Where these channels are now. Take it before the state that you render.

        Raises BrokerError where the broker cannot be asked.
        """
        if not channels:
            raise TypeError("cursor needs the names of channels")
        asked: dict[int, list[Request]] = {}
        for channel in channels:
            self.check_name(channel)
            asked.setdefault(self._partition(channel), []).append(Request(channel, None, 0))
        brokers = self._use().brokers
        return str(self._cursor({i: brokers[i].read(asks).now for i, asks in asked.items()}))

    def history(self, channel: str, *, since: str | None = None, limit: int = 100) -> list[Message]:
        """What is kept of a channel, the oldest first.

        With ``since``, a cursor: what came after it, ``limit`` at most. Without, the newest
        ``limit``. Raises BrokerError where the broker cannot be asked.
        """
        self.check_name(channel)
        if not 0 <= limit <= self._max_history:
            raise ValueError(f"limit is a number from 0 to {self._max_history}, not {limit!r}")
        index = self._partition(channel)
        start = self._parse(since)[index] if since else None
        request = Request(channel, None if start is None else start.number, limit)
        reading = self._use().brokers[index].read([request])
        return [
            Message(channel, str(self._cursor({index: (one.number, one.epoch)})), one.payload)
            for one in reading.replays[0].publications
        ]

    def presence(self, channel: str) -> dict[str, Member]:
        """Who is in a channel, by id. Raises BrokerError where the broker cannot be asked."""
        self.check_name(channel)
        members = self._use().brokers[self._partition(channel)].members(channel)
        return {
            member: Member(member, [json.loads(data) for data in connections])
            for member, connections in members.items()
        }

    # Connections of all processes

    def disconnect(self, user: Any, *, code: int = 4401, reason: str = "") -> None:
        """Close all connections that are subscribed with this user, in all processes.

        :param code: the close code, 3000 to 4999, or one of the RFC's. Default 4401.
        :param reason: at most 123 bytes of UTF-8.

        EventSources have no codes, and would come back: refuse them then. Does not wait for the
        ends. Raises ValueError for a wrong code or reason, PublishError where the broker cannot be
        asked.
        """
        check_close(code, reason)
        self._use()
        self._control.disconnect(str(user), code, reason)

    def user_logged_out(self, sender: Any, user: Any = None, **values: Any) -> None:
        """Disconnect a user who logs out: ``user_logged_out.connect(channels.user_logged_out)``.

        A receiver of the signals of that name, of Django and of Flask-Login. The user is
        ``user.get_id()`` where there is such a method (Flask-Login), else ``user.pk``. Where the
        broker is away, that is logged, and does not raise: the user must be able to log out.
        """
        id = user.get_id() if hasattr(user, "get_id") else getattr(user, "pk", None)
        if id is None:
            return  # was not logged in
        try:
            self.disconnect(id)
        except BrokerError:
            log.exception("the connections of a user who has logged out were not closed")

    def connections(self, *, timeout: float = 2.0) -> list[dict[str, Any]]:
        """All subscribers, over all processes that answer within ``timeout`` seconds.

        Each is a dict: ``kind`` ('websocket', 'eventsource' or 'function'), ``user``,
        ``channels``, ``path`` (the URL without its query), ``age`` (seconds since it subscribed),
        ``latency`` (seconds, or None) and ``waiting`` (bytes). Raises BrokerError.
        """
        self._use()
        answers: list[dict[str, Any]] = self._control.connections(timeout)
        return answers

    # Signed names

    def sign(self, channel: str, *, ttl: float | None = None) -> str:
        """The name of a channel with a signature, which ``verify`` accepts for ``ttl`` seconds.

        Put it into a page, whose user may subscribe to the channel without being asked again. With
        ``ttl`` None it is for ever. Raises RuntimeError where there is no ``secret``.
        """
        self.check_name(channel)
        return signing.sign(self._key(), channel, ttl)

    def verify(self, signed: str) -> str:
        """The name in what ``sign`` has made; ValueError if it is forged or too old."""
        return signing.verify(self._key(), signed)

    def _key(self) -> bytes:
        if not self._secret:
            raise RuntimeError(
                "signed names need a key: Channels(..., secret='a long random text')"
            )
        return self._secret

    # Flask

    def init_app(self, app: Any) -> None:
        """Configure from a Flask application: ``CHANNELS_URL``, ``CHANNELS_HISTORY`` and so on.

        Each option is there in capitals. Without ``CHANNELS_SECRET``, ``SECRET_KEY`` is the secret.
        The object is found at ``app.extensions['channels']``.
        """
        options = {
            name[len("CHANNELS_") :].lower(): value
            for name, value in app.config.items()
            if name.startswith("CHANNELS_")
        }
        secret = app.config.get("SECRET_KEY")
        if secret and "secret" not in options:
            options["secret"] = secret
        self.configure(**{**self._options, **options})
        app.extensions["channels"] = self

    # Inside

    def _use(self) -> Delivery:
        """The delivery of this process, made at the first use."""
        delivery = self._delivery
        if delivery is None or self._process != os.getpid():
            with self._lock:
                if self._delivery is None or self._process != os.getpid():
                    self._check_processes()
                    self._delivery = Delivery(
                        self._brokers,
                        self._partition,
                        timeout=self._timeout,
                        high_water=self._high_water,
                        slow=self._slow,
                        max_channels=self.max_channels,
                    )
                    self._control = Control(self._delivery)
                    self._process = os.getpid()
                delivery = self._delivery
        return delivery

    def _check_processes(self) -> None:
        """RuntimeError where memory:// would lose what other processes should get."""
        if not self._url.startswith("memory:"):
            return
        cure = "configure Channels('redis://localhost:6379/0')"
        workers = count_workers()
        if workers > 1:
            raise RuntimeError(
                f"memory:// is for one process, and gunicorn has {workers} workers: {cure}, "
                "or run one worker"
            )
        if self._process is not None:
            raise RuntimeError(
                f"memory:// is for one process, and this is a fork of the one that uses it: {cure}"
            )

    def _partition(self, channel: str) -> int:
        return engines.partition(channel, len(self._brokers))

    def _cursor(self, positions: Mapping[int, Any]) -> Cursor:
        return Cursor(
            Position(*positions[index]) if index in positions else None
            for index in range(len(self._brokers))
        )

    def _parse(self, cursor: str) -> Cursor:
        if not isinstance(cursor, str):
            raise TypeError(f"a cursor is str, not {type(cursor).__name__}")
        return Cursor.parse(cursor, len(self._brokers))

    def check_name(self, channel: str) -> None:
        """Raise ValueError, or TypeError, where this may not be the name of a channel."""
        if not isinstance(channel, str):
            raise TypeError(f"the name of a channel is str, not {type(channel).__name__}")
        try:
            size = len(channel.encode())
        except UnicodeEncodeError:
            raise ValueError("the name of a channel has no UTF-8") from None
        if not 0 < size <= self._max_name:
            raise ValueError(f"the name of a channel has 1 to {self._max_name} bytes: {size}")
        if channel.startswith(PRIVATE):
            raise ValueError(f"names that begin with {PRIVATE!r} are not for users: {channel!r}")
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in channel):
            raise ValueError(f"the name of a channel has no control characters: {channel!r}")


class Subscription:
    """The channels of a connection or function, from one call of ``Channels.subscribe``."""

    def __init__(
        self,
        channels: Channels,
        target: Any,
        kind: str,
        presence: Mapping[str, Any] | bool | None,
        user: str | None,
        format: Format | None,
    ) -> None:
        self._owner = channels
        self._delivery = channels._use()
        self._target = target
        self._kind = kind
        self._watches = bool(presence)
        self._member = member_data(presence) if isinstance(presence, Mapping) else None
        self._user = user
        self._format = format
        self._names: dict[str, None] = {}
        self._is_closed = False
        self.recovered: bool | None = None

    def __repr__(self) -> str:
        return f"<Subscription {', '.join(self._names)}>"

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Unsubscribe."""
        self.close()

    @property
    def channels(self) -> list[str]:
        """The names of its channels."""
        return list(self._names)

    @property
    def cursor(self) -> str:
        """Everything up to here was delivered, or waits for the connection."""
        return str(self._delivery.position())

    def add(self, channel: str, *, since: str | None = None, last: int = 0) -> bool | None:
        """Get one more channel; returns what ``recovered`` says of it.

        Raises what ``Channels.subscribe`` does.
        """
        return self._begin([channel], self._owner._parse(since) if since else None, last, None)

    def remove(self, channel: str) -> None:
        """Get a channel no more; nothing happens if it is not one of these."""
        if channel in self._names:
            del self._names[channel]
            self._delivery.unsubscribe(self, self._target, [channel])

    def close(self) -> None:
        """Get none of them any more. Does not wait."""
        if self._is_closed:
            return
        self._is_closed = True
        names, self._names = list(self._names), {}
        self._delivery.unsubscribe(self, self._target, names)
        if self._kind == "function":
            self._target.close()

    def tell(self, make: Callable[[str], str]) -> None:
        """Send the connection a text of its own, behind all that was delivered to it.

        ``make`` gets the cursor that vouches for that in all its channels: '' where there is none,
        since something was left out for a slow connection, and its reset is still to come. Does
        not wait.
        """
        self._delivery.tell(self._target, make)

    def _begin(
        self, names: Sequence[str], cursor: Cursor | None, last: int, limit: int | None
    ) -> bool | None:
        if self._is_closed:
            raise RuntimeError("this subscription is closed")
        for name in names:
            self._owner.check_name(name)
        entries = [Entry(name, self._format, self._member, self._watches) for name in names]
        self._owner._control.listen()
        recovered = self._delivery.subscribe(
            self,
            self._target,
            self._kind,
            entries,
            since=cursor,
            last=last,
            limit=limit,
            user=self._user,
        )
        self._names.update(dict.fromkeys(names))
        # Once more, for it rests when the last subscriber goes: another one, or this one already.
        self._owner._control.listen()
        self._delivery.rest_if_idle()
        if recovered is not None:
            tally.count(tally.RECOVERIES, ("complete" if recovered else "reset",))
            self.recovered = recovered and self.recovered is not False
        return recovered


def _kind(connection: Any) -> str:
    if isinstance(connection, Endpoint):
        return "websocket"
    if isinstance(connection, EventSource):
        return "eventsource"
    if callable(connection):
        return "function"
    raise TypeError(
        "a subscriber is a WebSocket, an EventSource or a function, "
        f"not {type(connection).__name__}"
    )
