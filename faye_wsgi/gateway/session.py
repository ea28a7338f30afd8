"""One client of the endpoint: what it may do, what it has subscribed to, how it is answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from faye_wsgi.errors import BrokerError
from faye_wsgi.gateway.protocol import Command, Refusal, encode

if TYPE_CHECKING:
    from faye_wsgi.channels import Channels, Subscription

__all__ = ["Authorize", "Plan", "Session", "Site"]

# What the application says: falsy refuses, and a mapping has options.
Authorize = Callable[[Any, str, str], Any]

GRANTED = frozenset(("user", "presence", "last", "history", "data"))
MAX_NAMED = 1000  # members that are named in an answer; of more, only their number is told
HISTORY = 100  # messages in an answer, where the client names no limit


class Site:
    """What all clients of an endpoint have in common.

    ``max_length`` is of a client's message, in bytes; ``max_history`` is how many messages of the
    past it may ask for at once. Channels may be configured later than this is made.
    """

    def __init__(
        self,
        channels: Channels,
        authorize: Authorize | None,
        max_length: int | None,
        max_history: int,
    ) -> None:
        self.channels = channels
        self.authorize = authorize
        self.max_history = max_history
        self._max_length = max_length

    @property
    def max_channels(self) -> int:
        """How many channels a connection may have."""
        return self.channels.max_channels

    @property
    def max_length(self) -> int:
        """Bytes of a client's message. In JSON, a letter of two bytes may be written with six."""
        length = self._max_length
        return 2 * self.channels.max_message + 16384 if length is None else length


class Plan(NamedTuple):
    """What a command to subscribe may have: names by their options, and what is refused."""

    command: Command
    groups: dict[str, tuple[list[str], dict[str, Any]]]
    refusals: list[Refusal]


class Session:
    """One client. ``connection`` is its WebSocket or EventSource, None for a single request."""

    def __init__(self, site: Site, request: Any, connection: Any = None) -> None:
        self._site = site
        self._channels = site.channels
        self._request = request
        self._connection = connection
        self._held: dict[str, Subscription] = {}

    def obey(self, command: Command) -> list[dict[str, Any]]:
        """Do what a client asks for; the answers. May wait for the broker."""
        if command.action == "subscribe":
            return self.subscribe(self._connection, self.plan(command))
        if command.action == "unsubscribe":
            return [self._unsubscribe(command)]
        if command.action == "ping":
            return [{"pong": command.ref}]
        channel = command.channels[0]
        try:
            self._check_name(channel)
            if command.action == "publish":
                answer = self._publish(command, channel)
            elif command.action == "history":
                answer = self._history(command, channel)
            else:
                answer = self._presence(command, channel)
        except Refusal as refusal:
            refusal.ref = command.ref
            return [refusal.answer]
        except (ValueError, BrokerError) as error:
            return [_refusal(error, channel, command).answer]
        return [_with_ref(answer, command)]

    def close(self) -> None:
        """Give all subscriptions back."""
        for subscription in self._held.values():
            subscription.close()
        self._held.clear()

    # Subscribing

    def plan(self, command: Command) -> Plan:
        """Ask the application which channels a command may have. Changes nothing."""
        plan = Plan(command, {}, [])
        count = len(self._held)
        for channel in command.channels:
            try:
                if count >= self._site.max_channels:
                    most = self._site.max_channels
                    raise Refusal("limit", f"a connection may have {most} channels at most")
                self._check_name(channel)
                if channel in self._held:
                    raise Refusal("invalid", "this channel is subscribed to already")
                options = self._options(command, channel)
            except Refusal as refusal:
                refusal.channel, refusal.ref = channel, command.ref
                plan.refusals.append(refusal)
                continue
            count += 1
            # Those with the same options subscribe in one step.
            key = json.dumps(options, sort_keys=True, default=str)
            plan.groups.setdefault(key, ([], options))[0].append(channel)
        return plan

    def _options(self, command: Command, channel: str) -> dict[str, Any]:
        grant = self._grant("subscribe", channel, command)
        presence = grant.get("presence")
        if command.watches and not presence:
            self._grant("presence", channel, command)
        last = min(command.last, grant.get("last", self._site.max_history))
        return {
            "user": grant.get("user"),
            "presence": presence or command.watches,
            "last": last,
            # Cursors are not signed: an old one could be made up, to get all that is kept.
            "limit": grant.get("history"),
        }

    def subscribe(self, connection: Any, plan: Plan) -> list[dict[str, Any]]:
        """Subscribe to what a plan allows.

        Those that succeed are told to the connection itself, in order with what is delivered. The
        others are returned.
        """
        self._connection = connection
        command = plan.command
        answers = [refusal.answer for refusal in plan.refusals]
        for names, options in plan.groups.values():
            try:
                subscription = self._channels.subscribe(
                    connection, names, since=command.since, **options
                )
            except (ValueError, BrokerError) as error:
                answers += [_refusal(error, name, command).answer for name in names]
                continue
            self._held.update(dict.fromkeys(names, subscription))
            self._tell(command, names, subscription)
        return answers

    def _tell(self, command: Command, names: list[str], subscription: Subscription) -> None:
        recovered = subscription.recovered

        def text(cursor: str) -> str:
            answer: dict[str, Any] = {"subscribed": names if command.is_list else names[0]}
            if cursor:
                answer["id"] = cursor
            return encode(_with_ref({**answer, "recovered": recovered}, command))

        subscription.tell(text)

    def _unsubscribe(self, command: Command) -> dict[str, Any]:
        for channel in command.channels:
            subscription = self._held.pop(channel, None)
            if subscription is not None:
                subscription.remove(channel)
                if not subscription.channels:
                    subscription.close()
        names = command.channels
        return _with_ref({"unsubscribed": names if command.is_list else names[0]}, command)

    # The other commands

    def _publish(self, command: Command, channel: str) -> dict[str, Any]:
        make = self._grant("publish", channel).get("data")
        data = command.data if make is None else make(command.data)
        return {"published": self._channels.publish(channel, data, key=command.key)}

    def _history(self, command: Command, channel: str) -> dict[str, Any]:
        grant = self._grant("subscribe", channel, command)
        most = min(self._site.max_history, grant.get("history", self._site.max_history))
        limit = min(HISTORY if command.limit is None else command.limit, most)
        messages = self._channels.history(channel, since=command.since, limit=limit)
        if command.since and messages and "history" in grant:
            newest = self._channels.history(channel, limit=most)
            if messages[0].id not in {one.id for one in newest}:
                messages = newest[:limit]  # as if the cursor were the oldest that is granted
        found = [{"channel": channel, "id": one.id, "data": one.data} for one in messages]
        return {"history": channel, "messages": found}

    def _presence(self, command: Command, channel: str) -> dict[str, Any]:
        self._grant("presence", channel, command)
        members = self._channels.presence(channel)
        answer: dict[str, Any] = {"presence": channel, "count": len(members)}
        if len(members) <= MAX_NAMED:
            answer["members"] = {id: member.data for id, member in members.items()}
        return answer

    # Permissions

    def _grant(
        self, action: str, channel: str, command: Command | None = None
    ) -> Mapping[str, Any]:
        """The options of what the application allows; Refusal where it does not."""
        if command is not None and self._is_signed(channel, command):
            return {}
        authorize = self._site.authorize
        granted = authorize(self._request, action, channel) if authorize is not None else None
        if not granted:
            raise Refusal("forbidden", f"this client may not {_VERBS[action]}", channel)
        if not isinstance(granted, Mapping):
            return {}
        unknown = granted.keys() - GRANTED
        if unknown:
            raise TypeError(
                f"authorize has returned {sorted(unknown)}: {sorted(GRANTED)} are known"
            )
        return granted

    def _is_signed(self, channel: str, command: Command) -> bool:
        for token in command.tokens:
            try:
                if self._channels.verify(token) == channel:
                    return True
            except (ValueError, RuntimeError):
                pass  # forged or too old, or there is no key: as if it were not there
        return False

    def _check_name(self, channel: str) -> None:
        try:
            self._channels.check_name(channel)
        except ValueError as error:
            raise Refusal("invalid", str(error), channel) from None


_VERBS = {
    "subscribe": "subscribe to it",
    "publish": "publish there",
    "presence": "see who is there",
}


def _refusal(error: Exception, channel: str, command: Command) -> Refusal:
    if isinstance(error, BrokerError):
        return Refusal("unavailable", "the broker cannot be asked now", channel, command.ref)
    return Refusal("invalid", str(error), channel, command.ref)


def _with_ref(answer: dict[str, Any], command: Command) -> dict[str, Any]:
    return answer if command.ref is None else {**answer, "ref": command.ref}
