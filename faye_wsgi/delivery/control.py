"""What processes ask of each other: to close a user's connections, and to tell of all connections.

Both are publications in a channel that users cannot name. It has a history, and the relay of each
process that has subscribers is subscribed to it: so it is as reliable as any other channel, over
gaps, too. Answers go through a channel of their own, which has none.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import threading
import time
from typing import Any

from faye_wsgi.brokers.base import Request
from faye_wsgi.delivery.delivery import PRIVATE, Delivery, Subscriber, is_private
from faye_wsgi.delivery.messages import Message
from faye_wsgi.delivery.outlets import Mailbox
from faye_wsgi.delivery.relay import Entry
from faye_wsgi.errors import BrokerError
from faye_wsgi.http.url import without_query

__all__ = ["CHANNEL", "Control"]

log = logging.getLogger("faye_wsgi")

CHANNEL = f"{PRIVATE}control"
HISTORY, TTL = 1000, 300.0


class Control:
    """This process's part of it."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        # Reentrant: where listening fails, the delivery is idle again, and calls ``rest`` at once.
        self._lock = threading.RLock()
        self._mailbox: Mailbox | None = None
        delivery.on_idle = self.rest

    # Listening

    def listen(self) -> None:
        """Take part, as long as there are subscribers; before the first one subscribes.

        BrokerError where the broker cannot be asked in time.
        """
        # The lock is held while the broker is asked. Where it is silent, those who come meanwhile
        # must not wait for one another: each waits for its own time, and no longer.
        if not self._lock.acquire(timeout=self._delivery.timeout):
            raise BrokerError(f"the broker has not answered within {self._delivery.timeout} s")
        try:
            if self._mailbox is None:
                mailbox = Mailbox(self._obey, self._delivery.end)
                try:
                    self._subscribe(mailbox, CHANNEL)
                except BaseException:
                    mailbox.close()
                    raise
                self._mailbox = mailbox
        finally:
            self._lock.release()

    def rest(self) -> None:
        """Take part no more, unless a user's subscriber has come meanwhile."""
        if not self._lock.acquire(timeout=self._delivery.timeout):
            return  # another one asks a silent broker, and calls this when it has failed
        try:
            if not self._delivery.is_idle:
                return
            mailbox, self._mailbox = self._mailbox, None
        finally:
            self._lock.release()
        if mailbox is not None:
            self._delivery.end(mailbox)
            mailbox.close()

    def _subscribe(self, mailbox: Mailbox, channel: str) -> None:
        entry = Entry(channel, None, None, False)
        self._delivery.subscribe(self, mailbox, "function", [entry], since=None, last=0, user=None)

    def _obey(self, message: Message) -> None:
        if message.reset:
            self._obey_again()
            return
        order = message.data
        if "disconnect" in order:
            self._end(order, math.inf)
        else:
            rows = [_describe(one) for one in self._delivery.subscribers if not is_private(one)]
            self._send(
                order["answer"],
                {"worker": self._delivery.broker_of(CHANNEL).worker, "connections": rows},
                0,
            )

    def _obey_again(self) -> None:
        """Disconnect by the orders that are kept: some of them may not have come.

        Only connections from before an order: a user may have logged in again since then.
        """
        log.warning("orders to disconnect users may have been lost with the broker's data")
        request = Request(CHANNEL, None, HISTORY)
        try:
            [kept] = self._delivery.broker_of(CHANNEL).read([request]).replays
        except BrokerError as error:
            log.warning("they could not be read again: %s", error)
            return
        for publication in kept.publications:
            order = json.loads(publication.payload)
            if "disconnect" in order:
                self._end(order, publication.number / 1_000_000)

    def _end(self, order: dict[str, Any], when: float) -> None:
        """End the connections of a user that have subscribed before a time."""
        for subscriber in self._delivery.subscribers:
            if order["disconnect"] in subscriber.users and subscriber.since <= when:
                subscriber.outlet.fail(order["code"], order["reason"])

    # Asking

    def disconnect(self, user: str, code: int, reason: str) -> None:
        """Close all connections of a user, in all processes."""
        self._send(CHANNEL, {"disconnect": user, "code": code, "reason": reason}, HISTORY)

    def connections(self, timeout: float) -> list[dict[str, Any]]:
        """Those of all processes that answer in time."""
        self.listen()  # this process is one of them
        answers: dict[str, list[dict[str, Any]]] = {}
        changed = threading.Condition()

        def note(message: Message) -> None:
            if not message.reset:
                with changed:
                    answers[message.data["worker"]] = message.data["connections"]
                    changed.notify_all()

        channel = f"{PRIVATE}answer:{secrets.token_hex(8)}"
        mailbox = Mailbox(note, self._delivery.end)
        try:
            self._subscribe(mailbox, channel)
            self._send(CHANNEL, {"answer": channel}, HISTORY)
            end = time.monotonic() + timeout
            with changed:
                changed.wait_for(
                    lambda: len(answers) >= self._delivery.alive, max(0, end - time.monotonic())
                )
        finally:
            self._delivery.end(mailbox)
            mailbox.close()
        return [row for rows in answers.values() for row in rows]

    def _send(self, channel: str, order: dict[str, Any], history: int) -> None:
        self._delivery.broker_of(channel).publish(
            channel, json.dumps(order), history=history, ttl=TTL
        )


def _describe(subscriber: Subscriber) -> dict[str, Any]:
    outlet = subscriber.outlet
    target = outlet.target
    return {
        "kind": outlet.kind,
        "user": min(subscriber.users, default=None),
        "channels": list(subscriber.channels),
        "path": without_query(target.url) if hasattr(target, "url") else None,
        "age": round(time.time() - subscriber.since, 3),
        "latency": getattr(target, "latency", None),
        "waiting": outlet.waiting + getattr(target, "buffered_amount", 0),
    }
