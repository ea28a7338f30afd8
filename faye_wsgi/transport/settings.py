"""The options that WebSocket and Client share, and the transport's own constants.

``Settings`` has their defaults and says what they mean, ``make_settings`` checks them. The
constructors take them as ``**options: Unpack[Options]``, from which editors and type checkers
know them, under ``takes_options``, which shows them to ``help`` and ``inspect.signature``, and
says what was meant where a name is wrong.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import lru_cache, wraps
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from faye_wsgi.driver.hybi import MAX_FRAGMENTS, MAX_LENGTH

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "GATHER",
    "LARGE",
    "MAX_WORK",
    "TURN",
    "TURN_BYTES",
    "TURN_PIECES",
    "Options",
    "Settings",
    "check_names",
    "check_seconds",
    "check_size",
    "check_timeout",
    "make_settings",
    "takes_options",
]

Rate = tuple[float, float]  # so many a second, and so many at once
RatePolicy = Literal["pause", "close"]
Constructor = TypeVar("Constructor", bound=Callable[..., None])

GATHER = 65536  # bytes: gathered frames go out when they are so many
LARGE = 32768  # bytes: from this size on, data is not copied
# How much a thread may write before the hub runs again. A system call counts as 1, and so do
# TURN_BYTES bytes, and TURN_PIECES frames that were gathered.
TURN = 64
TURN_BYTES = 2048
TURN_PIECES = 16
# The frames that a connection reads before others have their turn: about two milliseconds.
MAX_WORK = 1000


@dataclass(frozen=True)
class Settings:
    """The options of a connection. Times are in seconds, sizes in bytes.

    :param max_length: largest incoming message, over all its fragments; a longer one closes
        the connection with 1009, before it is stored. Default 2^26 - 1.
    :param max_fragments: most frames in one message. Default 16384.
    :param ping: time between pings; None (default) or 0 sends none.
    :param ping_timeout: time to wait for a sign of life after a ping, before the connection
        is closed with 1006. Default: as ``ping``.
    :param close_timeout: time to wait for the peer's close frame, and on a client for the
        server's end of TCP. Default 30.
    :param message_timeout: time for a frame or message that has arrived in part to bring its
        next 64 KiB, or its end; then the connection is closed with 1008. Default 60; None or 0
        waits for ever.
    :param send_timeout: time that the peer may read nothing while bytes wait for it; then the
        connection is closed with 1006. Default 60; None or 0 waits for ever.
    :param max_queue: most messages held for a view or listener that is behind. Default 64.
        Reading stops there, checked after each read of up to 64 KiB, until half are gone.
    :param max_queue_bytes: the same in bytes, as they are stored: a text takes 1, 2 or 4 for
        each character. One message may be larger. Default 2^20.
    :param high_water: bytes waiting for the peer above which ``send`` blocks. Default 65536.
    :param rate: messages a second that the peer may send, and how many at once: ``(10, 50)``.
        Pings and pongs count, too. Default None: no bound.
    :param rate_bytes: the same for the bytes that arrive, of all frames with their headers.
    :param rate_policy: what happens above a rate: 'pause' (default): nothing is read until it is
        kept, and TCP slows the peer down; 'close': the connection is closed with 1008.

    ``awaits_server`` is no option: a client lets the server close TCP (RFC 6455 §7.1.1).
    """

    max_length: int = MAX_LENGTH
    max_fragments: int = MAX_FRAGMENTS
    ping: float | None = None
    ping_timeout: float | None = None
    close_timeout: float = 30.0
    message_timeout: float | None = 60.0
    send_timeout: float | None = 60.0
    max_queue: int = 64
    max_queue_bytes: int = 2**20
    high_water: int = 65536
    rate: Rate | None = None
    rate_bytes: Rate | None = None
    rate_policy: RatePolicy = "pause"
    awaits_server: bool = False


class Options(TypedDict, total=False):
    """The options for type checkers: the names and types of ``Settings``."""

    max_length: int
    max_fragments: int
    ping: float | None
    ping_timeout: float | None
    close_timeout: float
    message_timeout: float | None
    send_timeout: float | None
    max_queue: int
    max_queue_bytes: int
    high_water: int
    rate: Rate | None
    rate_bytes: Rate | None
    rate_policy: RatePolicy


_OPTIONS = {field.name: field for field in fields(Settings) if field.name != "awaits_server"}


# What other libraries call these options: websockets, flask-sock, ws and faye (in snake_case),
# websocket-client, Flask-SocketIO, aiohttp, uvicorn. Of several, the first that there is is meant.
_OF_OTHERS: dict[str, tuple[str, ...]] = {
    "additional_headers": ("headers",),
    "agent": ("proxy",),
    "allowed_origins": ("origins",),
    "backoff": ("first_delay",),
    "cafile": ("ca",),
    "compress": ("extensions",),
    "compression": ("extensions",),
    "cookie": ("headers",),
    "cookies": ("headers",),
    "cors_allowed_origins": ("origins",),
    "delay": ("first_delay",),
    "extra_headers": ("headers",),
    "follow_redirects": ("max_redirects",),
    "handle_protocols": ("protocols",),
    "handshake_timeout": ("open_timeout",),
    "header": ("headers",),
    "heartbeat": ("ping",),
    "http_proxy_host": ("proxy",),
    "interval": ("ping",),
    "max_http_buffer_size": ("max_length",),
    "max_message_size": ("max_length",),
    "max_msg_size": ("max_length",),
    "max_payload": ("max_length",),
    "max_size": ("max_length",),
    "origin": ("origins", "headers"),
    "per_message_deflate": ("extensions",),
    "ping_interval": ("ping",),
    "pingtimeout": ("ping_timeout",),
    "read_limit": ("max_queue_bytes",),
    "reconnection_delay": ("first_delay",),
    "reconnection_delay_max": ("max_delay",),
    "reject_unauthorized": ("tls",),
    "response_headers": ("headers",),
    "select_subprotocol": ("protocols",),
    "ssl": ("tls",),
    "ssl_context": ("tls",),
    "sslopt": ("tls",),
    "subprotocol": ("protocols",),
    "subprotocols": ("protocols",),
    "timeout": ("open_timeout", "close_timeout"),
    "user_agent_header": ("headers",),
    "verify_client": ("origins",),
    "write_limit": ("high_water",),
    "ws_max_queue": ("max_queue",),
    "ws_max_size": ("max_length",),
    "ws_ping_interval": ("ping",),
    "ws_ping_timeout": ("ping_timeout",),
}


def takes_options(constructor: Constructor) -> Constructor:
    """Show each option in the signature of a constructor, and explain the names that are none.

    The options of a connection are added where it takes ``**options``.
    """
    kind = inspect.Parameter.KEYWORD_ONLY
    shown = inspect.signature(constructor)
    parameters = [one for one in shown.parameters.values() if one.kind != one.VAR_KEYWORD]
    if len(parameters) < len(shown.parameters):
        parameters += [
            inspect.Parameter(name, kind, default=field.default, annotation=field.type)
            for name, field in _OPTIONS.items()
        ]
    names = frozenset(one.name for one in parameters)
    options = [one.name for one in parameters if one.default is not one.empty]

    @wraps(constructor)
    def construct(*args: Any, **values: Any) -> None:
        if not names.issuperset(values):
            check_names(values, options, names)
        constructor(*args, **values)

    setattr(construct, "__signature__", shown.replace(parameters=parameters))  # noqa: B010
    return construct  # type: ignore[return-value]


def check_names(values: Iterable[str], options: Iterable[str], others: Iterable[str] = ()) -> None:
    """TypeError, which says what was meant, if a name is not among ``options`` or ``others``."""
    options = list(options)
    for name in values:
        if name not in options and name not in others:
            meant = _meant(name, options)
            hint = f": did you mean {meant!r}?" if meant else "."
            raise TypeError(f"there is no option {name!r}{hint} There are {', '.join(options)}")


def _meant(name: str, options: list[str]) -> str | None:
    """The option that a name is likely to stand for."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()  # pingInterval
    for known in _OF_OTHERS.get(snake, ()):
        if known in options:
            return known
    near = difflib.get_close_matches(snake, options, 1)
    return near[0] if near else None


def make_settings(**options: Unpack[Options]) -> Settings:
    """The options as settings; TypeError or ValueError for a wrong name or value."""
    for name in options:
        if name not in _OPTIONS:
            check_names(options, _OPTIONS)
    for name in ("rate", "rate_bytes"):
        check_rate(name, options.get(name))
    return _make_settings(**options)


@lru_cache(maxsize=64, typed=True)  # views pass the same options to every connection
def _make_settings(**options: Any) -> Settings:
    settings = Settings(**options)
    for name in ("max_length", "max_fragments", "max_queue", "max_queue_bytes", "high_water"):
        check_size(name, getattr(settings, name))
    for name in ("ping", "ping_timeout", "close_timeout", "message_timeout", "send_timeout"):
        check_seconds(name, getattr(settings, name))
    if settings.rate_policy not in ("pause", "close"):
        raise ValueError(f"rate_policy is 'pause' or 'close', not {settings.rate_policy!r}")
    if settings.close_timeout is None:
        raise TypeError("close_timeout is a number of seconds")
    ping = settings.ping or None
    return replace(
        settings,
        ping=ping,
        ping_timeout=settings.ping_timeout or ping,
        message_timeout=settings.message_timeout or None,
        send_timeout=settings.send_timeout or None,
    )


def check_size(name: str, size: int) -> None:
    """TypeError or ValueError unless ``size`` is a whole number from 1 on."""
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{name} is a whole number")
    if size < 1:
        raise ValueError(f"{name} is at least 1")


def check_rate(name: str, rate: Any) -> None:
    """TypeError or ValueError unless ``rate`` is None, or a rate and a burst."""
    if rate is None:
        return
    if not isinstance(rate, tuple) or len(rate) != 2:
        raise TypeError(f"{name} is two numbers: so many a second, and so many at once: (10, 50)")
    for number in rate:
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise TypeError(f"{name} is two numbers")
    if not (0 < rate[0] < float("inf") and 1 <= rate[1] < float("inf")):
        raise ValueError(f"{name} is above 0 a second, and from 1 on at once")


def check_timeout(timeout: float | None) -> None:
    """TypeError or ValueError unless ``timeout`` is None or a number; below 0 means 0."""
    if timeout is None:
        return
    if not isinstance(timeout, Real) or isinstance(timeout, bool):
        raise TypeError(f"timeout is a number of seconds or None, not {type(timeout)}")
    if timeout != timeout:
        raise ValueError("timeout is a number of seconds, not NaN")


def check_seconds(name: str, seconds: float | None) -> None:
    """TypeError or ValueError unless ``seconds`` is None, or a finite number from 0 on."""
    if seconds is None:
        return
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{name} is a number of seconds")
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} is a finite number of seconds, from 0 on")
