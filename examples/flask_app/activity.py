"""What has happened in the chat lately: a short log that many readers follow.

The chat writes and goes on: adding an entry waits for nobody. Each reader has its own place in
the log, so a slow one delays only itself. What has fallen out of the log before a reader came to
it is lost to that reader. Nobody keeps a copy for the slow, and memory stays bounded.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator
from threading import BoundedSemaphore, Condition
from typing import Any

from faye_wsgi import EventSource

MAX_ENTRIES = 500
MAX_READERS = 100  # each holds one of the worker's places for connections
INTERVAL = 0.25  # seconds between two events to one reader: in between, entries are gathered

Entry = dict[str, Any]


class ActivityLog:
    def __init__(self) -> None:
        self.run = secrets.token_hex(4)  # in every id: after a restart the numbers begin anew
        self.count = 0
        self.entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self.changed = Condition()  # its lock is held for moments only
        self.readers = BoundedSemaphore(MAX_READERS)

    def add(self, type: str, name: str, channel: str) -> None:
        """Note that the person of this name did something: 'join', 'leave' or 'message'."""
        with self.changed:
            self.count += 1
            now = int(time.time() * 1000)
            self.entries.append({"type": type, "name": name, "channel": channel, "time": now})
            self.changed.notify_all()

    def follow(self, es: EventSource) -> Iterator[tuple[str, list[Entry]]]:
        """The entries that the reader has not seen, then the new ones, until the reader has gone.

        Each time with the id to send with them, which the browser tells us when it comes back.
        The first time comes at once, even without entries.
        """
        seen = self.number(es.last_event_id)
        es.on("close", lambda event: self.wake())
        while not es.closed:
            entries, seen = self.after(seen)
            yield f"{self.run}-{seen}", entries
            time.sleep(INTERVAL)
            self.wait(seen, es)

    def after(self, seen: int) -> tuple[list[Entry], int]:
        with self.changed:
            missed = min(self.count - seen, len(self.entries))
            return list(self.entries)[len(self.entries) - missed :], self.count

    def wait(self, seen: int, es: EventSource) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.count > seen or es.closed)

    def wake(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def number(self, id: str) -> int:
        """How many entries the reader has seen; 0, so all that we have, if we cannot know."""
        run, _, number = id.partition("-")
        known = run == self.run and number.isdecimal() and len(number) < 16
        return min(int(number), self.count) if known else 0
