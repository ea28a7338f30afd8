"""What every client here does: keeps some messages in flight, and says what they have cost.

A client is called with a port, the number of messages in flight, their size, and seconds; it
prints one line of JSON. Its processor time is its own: all its threads, from the end of the
warm-up on.
"""

from __future__ import annotations

import json
import sys
import time

WARM_UP = 0.3  # seconds
EVERY = 64  # messages between two looks at the clock


class Meter:
    """Counts messages; `goes_on` is called once for each."""

    def __init__(self) -> None:
        port, window, size, seconds = sys.argv[-4:]
        self.port, self.window, self.seconds = int(port), int(window), float(seconds)
        self.message = ("abcdefghijklmnopqrstuvwxyz" * int(size))[: int(size)]
        self.url = f"ws://127.0.0.1:{self.port}/echo"
        self._count = 0
        self._next = EVERY
        self._started: tuple[int, float, float] | None = None
        self._until = time.perf_counter() + WARM_UP

    def goes_on(self, messages: int = 1) -> bool:
        """Whether the message that has come is to be followed by another; prints at the end."""
        self._count += messages
        if self._count < self._next:
            return True
        self._next = self._count + EVERY
        now = time.perf_counter()
        if now < self._until:
            return True
        if self._started is None:
            self._started = self._count, now, time.process_time()
            self._until = now + self.seconds
            return True
        count, began, cpu = self._started
        print(
            json.dumps(
                {
                    "messages": self._count - count,
                    "seconds": now - began,
                    "cpu_seconds": time.process_time() - cpu,
                }
            ),
            flush=True,
        )
        return False
