"""The connections of a process to a broker's server, and how its calls use them.

Each engine has links of its own: a link is one connection, which serves one caller at a time, and
is closed at its first trouble.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from faye_wsgi.errors import BrokerError

__all__ = ["Caller", "Errors", "Pool", "Server"]

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25  # seconds between two tries


class Link(Protocol):
    """What a pool needs of a connection."""

    timeout: float  # seconds for which it was made

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, by ``close`` or by an error."""

    def is_idle(self) -> bool:
        """Whether it can be used: it is open, and nothing arrives that was not asked for."""

    def close(self) -> None:
        """Close it."""


L = TypeVar("L", bound=Link)


class Turn(Generic[L]):
    """A caller that waits for a connection, and what it gets."""

    def __init__(self) -> None:
        self.link: L | None = None
        self.has_come = threading.Event()


class Pool(Generic[L]):
    """Up to ``size`` connections to a server, each lent to one caller at a time.

    Callers wait in line: a connection is handed to the first of them. Were it free for a moment
    instead, the caller that gives it back could take it again before any other runs, and greenlets
    that publish without a pause would leave no turn to the rest.
    """

    def __init__(self, dial: Callable[[float], L], size: int, least_timeout: float) -> None:
        self.dial = dial
        self._size = size
        self._least_timeout = least_timeout  # a link that was made in a hurry is not kept
        self.reset()

    def reset(self) -> None:
        """Forget all connections, as the child of a fork must."""
        self._is_closed = False
        self._lock = threading.Lock()
        self._slots: list[L | None] = [None] * self._size
        self._line: deque[Turn[L]] = deque()  # empty while there are slots

    def take(self, deadline: float, *, is_fresh: bool = False) -> L:
        """A connection that was alive just now; a new one, where ``is_fresh`` asks for it."""
        link = self._take_slot(deadline)
        try:
            if link is not None and not is_fresh and link.is_idle():
                return link
            if link is not None:
                link.close()
            return self.dial(deadline)
        except BaseException:
            self._give_slot(None)
            raise

    def _take_slot(self, deadline: float) -> L | None:
        with self._lock:
            if self._slots:
                return self._slots.pop()
            turn: Turn[L] = Turn()
            self._line.append(turn)
        try:
            turn.has_come.wait(max(deadline - time.monotonic(), 0.0))
        except BaseException:  # the greenlet is killed: the slot goes to the next caller
            if not self._leave_line(turn):
                self._give_slot(turn.link)
            raise
        if self._leave_line(turn):
            raise BrokerError(f"all {self._size} connections to the broker are in use")
        return turn.link

    def _leave_line(self, turn: Turn[L]) -> bool:
        """Wait no more; False if the turn has come."""
        with self._lock:
            if turn.has_come.is_set():
                return False
            self._line.remove(turn)
            return True

    def give(self, link: L) -> None:
        """Give a connection back."""
        if self._is_closed or link.timeout < self._least_timeout:
            link.close()
        self._give_slot(None if link.is_closed else link)

    def _give_slot(self, link: L | None) -> None:
        with self._lock:
            if self._line:
                turn = self._line.popleft()
                turn.link = link
                turn.has_come.set()
            else:
                self._slots.append(link)

    def close(self) -> None:
        """Close the connections that rest, and the others when they are given back."""
        self._is_closed = True
        with self._lock:
            links, self._slots = self._slots, [None] * len(self._slots)
        for link in links:
            if link is not None:
                link.close()


class Server(Generic[L]):
    """The one server of a broker, wherever ``dial`` finds it."""

    def __init__(
        self, dial: Callable[[float], L], database: int = 0, *, size: int, timeout: float
    ) -> None:
        self.database = database
        self._pool = Pool(dial, size, timeout / 2)

    def pool(self, deadline: float, *, is_fresh: bool = False) -> Pool[L]:
        """The connections to it; ``is_fresh`` is of no account: each dialing finds it anew."""
        return self._pool

    def reset(self) -> None:
        """Forget all connections, as the child of a fork must."""
        self._pool.reset()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class Errors(NamedTuple):
    """What the errors of an engine's links mean."""

    kinds: tuple[type[BaseException], ...]
    may_pass: Callable[[BaseException, bool], bool]
    """Whether to try again what was surely not done (True: or may be done twice)."""
    explain: Callable[[BaseException], str]


class Place(Protocol):
    """Where the connections to a broker's server come from."""

    def pool(self, deadline: float, *, is_fresh: bool = False) -> Pool[Any]:
        """The connections to it; with ``is_fresh`` to where it is now."""

    def close(self) -> None:
        """Close all connections."""


class Caller:
    """The calls of a broker, each within ``timeout`` seconds."""

    def __init__(self, place: Place, timeout: float, errors: Errors) -> None:
        self._place, self._timeout, self._errors = place, timeout, errors
        self._is_closed = False

    def call(
        self,
        work: Callable[[Any, float], Any],
        *,
        is_repeatable: bool = True,
        is_lent: bool = True,
    ) -> Any:
        """Do work with a connection; again, while there is time, if it was surely not done.

        With ``is_repeatable`` also if it was perhaps done. A connection that is not lent is a new
        one, which the work keeps. Raises BrokerError.
        """
        deadline = time.monotonic() + self._timeout
        pause, is_fresh = FIRST_PAUSE, False
        while True:
            if self._is_closed:
                raise BrokerError("the broker is closed")
            is_sent = False
            try:
                pool = self._place.pool(deadline, is_fresh=is_fresh or not is_lent)
                if not is_lent:
                    return work(pool.dial(deadline), deadline)
                link = pool.take(deadline, is_fresh=is_fresh)
                is_sent = True
                try:
                    return work(link, deadline)
                finally:
                    pool.give(link)
            except self._errors.kinds as error:
                may_repeat = is_repeatable or not is_sent
                # A try that has no time would only say that it has had none.
                is_late = time.monotonic() + 2 * pause > deadline
                if is_late or not self._errors.may_pass(error, may_repeat):
                    raise BrokerError(self._errors.explain(error)) from error
            time.sleep(pause)
            pause, is_fresh = min(2 * pause, LONGEST_PAUSE), True

    def close(self) -> None:
        """Close the connections that rest; the others when they are given back."""
        self._is_closed = True
        self._place.close()
