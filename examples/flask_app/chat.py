"""The state of the chat: its channels, who is in them, and their last messages.

Nothing here knows HTTP or Flask. Everything that a visitor can make us keep has a limit, and
nothing here waits for a visitor: what the members of a channel are told is put on a queue of
each, and a thread of each sends it (under gunicorn's gevent worker, a greenlet). Somebody with
a bad line delays nobody else, and is let go when too much waits for them. Their browser comes
back by itself and reads the history.

All of it is in the memory of one process, so the chat needs exactly one worker.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Full, Queue
from threading import Lock, Thread
from typing import Any, Callable

from faye_wsgi import ConnectionClosed, WebSocket

DEFAULT_CHANNELS = ("general", "projects", "tea-break")
CHANNEL_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,23}")

JOIN_TIMEOUT = 10  # seconds to say who one is
MAX_CHANNELS = 32
MAX_MEMBERS = 200  # in all channels together
MAX_NAME = 24  # characters
MAX_TEXT = 1000  # characters
MAX_ID = 36  # characters
MAX_HISTORY = 100  # messages in a channel
MAX_WAITING = 256  # events on the queue of a slow member
RATE = 5  # messages in a second from one member, in the long run
BURST = 15  # and at once

Event = dict[str, Any]
Report = Callable[[str, str, str], object]  # told what somebody did, their name, the channel


class Refused(Exception):
    """Somebody cannot come in: the close code, and the reason for the visitor."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Member:
    """One connection of one person. The key is the browser's secret, the id is its public form."""

    def __init__(self, ws: WebSocket, greeting: Event) -> None:
        self.ws = ws
        self.name = clean_name(str(greeting.get("name", "")))
        key = str(greeting.get("key", "")).encode("utf-8", "replace")
        self.id = hashlib.sha256(key).hexdigest()[:12]
        self.paid_until = 0.0
        self.outbox: Queue[str | None] = Queue(MAX_WAITING)

    def tell(self, text: str | None) -> None:
        """Queue one event. Never waits: a member who is too slow is disconnected."""
        try:
            self.outbox.put_nowait(text)
        except Full:
            self.ws.close(1013, "Too slow")

    def write(self) -> None:
        """Send what is queued, until the end or None. This may wait for the member's network."""
        with suppress(ConnectionClosed):
            for text in iter(self.outbox.get, None):
                self.ws.send(text)

    def pace(self) -> None:
        """Wait until this member may speak again.

        The member's own socket is not read meanwhile, so a flood stays on the sender's side.
        """
        now = time.monotonic()
        self.paid_until = max(self.paid_until, now - BURST / RATE) + 1 / RATE
        time.sleep(max(0.0, self.paid_until - now))

    def public(self) -> Event:
        return {"id": self.id, "name": self.name}


class Channel:
    def __init__(self, name: str) -> None:
        self.name = name
        self.members: set[Member] = set()
        self.history: deque[Event] = deque(maxlen=MAX_HISTORY)
        self.count = 0  # messages so far: browsers find out how many they have not seen

    def people(self) -> list[Event]:
        """Who is here: a person with two windows counts once."""
        people = {member.id: member.public() for member in self.members}
        return sorted(people.values(), key=lambda person: person["name"].casefold())

    def has_person(self, id: str) -> bool:
        return any(member.id == id for member in self.members)

    def has(self, author: str, id: str) -> bool:
        return any((said["author"], said["id"]) == (author, id) for said in self.history)

    def free_name(self, wanted: Member) -> str:
        """The member's name, with a number behind it where somebody else here has it."""
        taken = {m.name.casefold() for m in self.members if m.id != wanted.id}
        name, number = wanted.name, 2
        while name.casefold() in taken:
            name, number = f"{wanted.name} {number}", number + 1
        return name


class Chat:
    def __init__(self, report: Report = lambda what, name, channel: None) -> None:
        self.report = report
        self.run = secrets.token_hex(4)  # tells the browsers that the counts began anew
        self.channels = {name: Channel(name) for name in DEFAULT_CHANNELS}
        self.count = 0  # messages so far, in all channels
        self.lock = Lock()  # held for moments only: nothing that waits happens under it

    def join(self, name: str, member: Member) -> Channel:
        with self.lock:
            channel = self.channel(name)
            member.name = channel.free_name(member)
            if not channel.has_person(member.id):
                self.report("join", member.name, name)
            channel.members.add(member)
            member.tell(json.dumps(self.welcome(channel, member)))
            self.tell(channel.members, {"type": "here", "people": channel.people()})
        Thread(target=member.write, daemon=True).start()
        return channel

    def leave(self, channel: Channel, member: Member) -> None:
        with self.lock:
            channel.members.discard(member)
            if not channel.has_person(member.id):
                self.report("leave", member.name, channel.name)
            self.tell(channel.members, {"type": "here", "people": channel.people()})
        member.tell(None)

    def receive(self, channel: Channel, member: Member, message: str | bytes) -> None:
        """What a member's browser sent. What this chat does not understand is ignored."""
        event = parse(message)
        if event.get("type") == "message":
            self.say(channel, member, event.get("id"), event.get("text"))
        elif event.get("type") == "typing":
            with self.lock:
                self.tell(channel.members - {member}, {"type": "typing", **member.public()})

    def say(self, channel: Channel, member: Member, id: object, text: object) -> None:
        if not (isinstance(id, str) and len(id) <= MAX_ID and isinstance(text, str) and text):
            return
        with self.lock:
            # A browser that lost its connection sends again what it did not see come back.
            if not channel.has(member.id, id):
                self.publish(channel, member, id, text[:MAX_TEXT])

    def publish(self, channel: Channel, member: Member, id: str, text: str) -> None:
        channel.count += 1
        self.count += 1
        said = {
            "type": "message",
            "number": channel.count,
            "id": id,
            "author": member.id,
            "name": member.name,
            "text": text,
            "time": int(time.time() * 1000),
        }
        channel.history.append(said)
        self.tell(channel.members, said)
        self.tell(self.members_outside(channel), self.activity(channel))
        self.report("message", member.name, channel.name)

    def welcome(self, channel: Channel, member: Member) -> Event:
        return {
            "type": "welcome",
            "run": self.run,
            "you": member.public(),
            "channel": channel.name,
            "channels": {each.name: each.count for each in self.channels.values()},
            "history": list(channel.history),
        }

    def summary(self) -> Event:
        """How many there are of everything, for those who look on from outside."""
        with self.lock:
            return {
                "people": len({m.id for each in self.channels.values() for m in each.members}),
                "messages": self.count,
                "channels": [
                    {"name": each.name, "people": len(each.people()), "messages": each.count}
                    for each in self.channels.values()
                ],
            }

    def activity(self, channel: Channel) -> Event:
        return {"type": "activity", "channel": channel.name, "count": channel.count}

    def channel(self, name: str) -> Channel:
        """The channel of this name, made if it is a new one and there is room."""
        if sum(len(channel.members) for channel in self.channels.values()) >= MAX_MEMBERS:
            raise Refused(1013, "The chat is full")
        if name not in self.channels:
            if not CHANNEL_NAME.fullmatch(name):
                raise Refused(4000, "A channel name has small letters, digits and hyphens")
            self.make_room()
            self.channels[name] = Channel(name)
            self.tell(self.members_outside(self.channels[name]), self.activity(self.channels[name]))
        return self.channels[name]

    def make_room(self) -> None:
        """Forget the oldest channel that nobody is in, if there are too many."""
        if len(self.channels) < MAX_CHANNELS:
            return
        for name, channel in self.channels.items():
            if not channel.members and name not in DEFAULT_CHANNELS:
                del self.channels[name]
                return
        raise Refused(4001, "There are too many channels")

    def members_outside(self, inside: Channel) -> Iterator[Member]:
        for channel in self.channels.values():
            if channel is not inside:
                yield from channel.members

    def tell(self, members: Iterable[Member], event: Event) -> None:
        text = json.dumps(event)
        for member in members:
            member.tell(text)


def clean_name(name: str) -> str:
    """One line of printable characters."""
    printable = "".join(c for c in " ".join(name.split()) if c.isprintable())
    return printable[:MAX_NAME].strip() or "Guest"


def parse(message: str | bytes) -> Event:
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}
