"""The messages of the endpoint, in both directions, and their limits. No I/O, no clock.

A client's message is a JSON object. One of its keys says what it asks for, and the others are
details. ``parse`` makes a ``Command`` of it, or raises ``Refusal``, whose ``answer`` goes back; the
connection stays open. docs/channels-messages.md has the tables for the authors of clients.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple, Union

from faye_wsgi.transport.rates import Bucket

__all__ = ["Budget", "Budgets", "Command", "Refusal", "encode", "parse", "parse_json"]

MAX_DEPTH = 64  # levels of arrays and objects in a message
MAX_REF = 64  # characters
MAX_KEY = 128
MAX_TOKENS = 1024  # characters of all signed names, for each channel that may be asked for

Ref = Union[str, int, None]


class Command(NamedTuple):
    """What a client asks for: ``action`` is 'subscribe', 'unsubscribe', 'publish', 'presence',
    'history' or 'ping'."""

    action: str
    channels: list[str]  # one, but for 'subscribe' and 'unsubscribe'
    is_list: bool = False  # they came as a list, and are answered as one
    ref: Ref = None
    since: str | None = None
    last: int = 0
    watches: bool = False
    tokens: Iterable[str] = ()
    data: Any = None
    key: str | None = None
    limit: int | None = None


class Refusal(Exception):
    """A message that is not obeyed, or not for some channel.

    ``code`` is 'invalid' (the message is wrong), 'forbidden', 'limit' (too many or too large),
    'rate' (too many requests: again, later) or 'unavailable' (the broker cannot be asked: again,
    later).
    """

    def __init__(self, code: str, reason: str, channel: str | None = None, ref: Ref = None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.channel = channel
        self.ref = ref

    @property
    def answer(self) -> dict[str, Any]:
        """What the client is told."""
        answer: dict[str, Any] = {"error": self.code, "message": self.reason}
        if self.channel is not None:
            answer["channel"] = self.channel
        if self.ref is not None:
            answer["ref"] = self.ref
        return answer


def encode(answer: dict[str, Any]) -> str:
    """The text of an answer."""
    return json.dumps(answer, separators=(",", ":"))


# What clients send

# The keys that may come with the one that names the action.
_DETAILS = {
    "subscribe": {"since", "last", "presence", "token", "ref"},
    "unsubscribe": {"ref"},
    "publish": {"data", "key", "ref"},
    "history": {"since", "limit", "token", "ref"},
    "ping": {"ref"},
    "presence": {"token", "ref"},  # at the end, for it is a detail of 'subscribe', too
}


def parse(message: Any, max_channels: int) -> Command:
    """The command of a message: of its text, or of what its JSON has made.

    Raises Refusal. Names, cursors and permissions are not checked here.
    """
    if isinstance(message, (str, bytes)):
        message = parse_json(message)
    if not isinstance(message, dict):
        raise Refusal("invalid", "a message is a JSON object")
    ref = message.get("ref")
    if not (ref is None or _is_number(ref) or (isinstance(ref, str) and len(ref) <= MAX_REF)):
        raise Refusal("invalid", f"ref is a whole number, or a text of {MAX_REF} characters")
    try:
        return _parse(message, ref, max_channels)
    except Refusal as refusal:
        refusal.ref = ref
        raise


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; Refusal where it is none, or has too many levels."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise Refusal("invalid", "the message has too many levels") from None
    except ValueError:
        raise Refusal("invalid", "the message is not JSON") from None
    # What is as deep as it likes would be a problem for every subscriber that reads it.
    if _is_deep(value):
        raise Refusal("invalid", f"the message has more than {MAX_DEPTH} levels")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, (dict, list)) for one in level)


def _parse(message: dict[str, Any], ref: Ref, max_channels: int) -> Command:
    action = next((name for name in _DETAILS if name in message), None)
    if action is None:
        raise Refusal("invalid", f"a message has one of the keys {', '.join(_DETAILS)}")
    unknown = message.keys() - _DETAILS[action] - {action}
    if unknown:
        shown = ", ".join(sorted(name[:40] for name in unknown)[:5])
        raise Refusal("invalid", f"a message with {action!r} has no {shown}")
    if action == "ping":
        return Command(action, [], ref=ref)
    names, is_list = _read_channels(message[action], action, max_channels)
    return Command(
        action,
        names,
        is_list,
        ref,
        since=_read_text(message, "since", None),
        last=_read_number(message, "last", 0),
        watches=_read_bool(message, "presence") if action == "subscribe" else False,
        tokens=_read_tokens(message, max_channels),
        data=_read_data(message) if action == "publish" else None,
        key=_read_text(message, "key", MAX_KEY),
        limit=_read_number(message, "limit", None),
    )


def _read_channels(value: Any, action: str, max_channels: int) -> tuple[list[str], bool]:
    if isinstance(value, str):
        return [value], False
    if action not in ("subscribe", "unsubscribe"):
        raise Refusal("invalid", f"{action} names one channel")
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise Refusal("invalid", f"{action} names a channel, or has a list of names")
    names = list(dict.fromkeys(value))
    if not names:
        raise Refusal("invalid", f"{action} needs the name of a channel")
    if len(names) > max_channels:
        raise Refusal("limit", f"a connection may have {max_channels} channels at most")
    return names, True


def _read_text(message: dict[str, Any], name: str, length: int | None) -> str | None:
    value = message.get(name)
    if value is None or (isinstance(value, str) and (length is None or 0 < len(value) <= length)):
        return value or None
    raise Refusal("invalid", f"{name} is a text" + (f" of 1 to {length} characters" * bool(length)))


def _read_number(message: dict[str, Any], name: str, default: Any) -> Any:
    value = message.get(name, default)
    if value is default or (_is_number(value) and value >= 0):
        return value
    raise Refusal("invalid", f"{name} is a whole number, from 0 on")


def _read_bool(message: dict[str, Any], name: str) -> bool:
    value = message.get(name, False)
    if isinstance(value, bool):
        return value
    raise Refusal("invalid", f"{name} is true or false")


def _read_tokens(message: dict[str, Any], max_channels: int) -> list[str]:
    value = message.get("token", [])
    tokens = [value] if isinstance(value, str) else value
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise Refusal("invalid", "token is a signed name, or a list of them")
    if len(tokens) > max_channels or sum(map(len, tokens)) > MAX_TOKENS * max_channels:
        raise Refusal("limit", "too many signed names")
    return tokens


def _read_data(message: dict[str, Any]) -> Any:
    if "data" not in message:
        raise Refusal("invalid", "publish needs data")
    return message["data"]


def _is_number(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**53


# How much a client may ask for


class Budget(Bucket):
    """What a client may ask for: ``burst`` at once, and ``rate`` a second after that.

    ``spend`` says how long to wait. So who asks for more is served more slowly, and the queue of
    its own connection fills. A client that goes on to subscribe and unsubscribe is a fault, and
    ``is_flooded`` says so.
    """

    PATIENCE = 200  # messages that had to wait, without a pause between

    def __init__(self, rate: float, burst: float, now: float) -> None:
        super().__init__(rate, burst, now)
        self._delayed = 0

    def spend(self, cost: float, now: float) -> float:
        """Seconds to wait before something of a ``cost`` is done."""
        seconds = super().spend(cost, now)
        if self._left >= self._burst / 2:
            self._delayed = 0  # it has paused
        if seconds:
            self._delayed += 1
        return seconds

    @property
    def is_flooded(self) -> bool:
        """Whether too many messages had to wait, without a pause between."""
        return self._delayed > self.PATIENCE


class Budgets:
    """The budgets of clients without a connection, of the ``MOST`` that came last.

    Any thread may call this.
    """

    MOST = 10_000

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._budgets: dict[str, Budget] = {}  # the one that was used last is last
        self._lock = threading.Lock()

    def spend(self, client: str, now: float) -> float:
        """Spend 1 for a request, and return 0; or the seconds until it may come again."""
        with self._lock:
            budget = self._budgets.pop(client, None) or Budget(self._rate, self._burst, now)
            self._budgets[client] = budget
            if len(self._budgets) > self.MOST:
                del self._budgets[next(iter(self._budgets))]
            return budget.wait(1, now) or budget.spend(1, now)
