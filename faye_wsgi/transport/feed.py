"""The client's side of an event stream: one connection after the other, and the events of all.

A greenlet connects, reads and waits before it connects again. It hands the events of one read over,
and reads on when all of them have been taken: so no more than one read's events wait here, and TCP
holds back the server.

All of it belongs to the hub of the thread that made it; only ``stop`` may be called elsewhere. The
danger is a greenlet whose hub runs no more: when the thread ends, ``abandon`` closes the socket,
and in the child of a fork ``forget`` keeps the greenlet from connecting.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import Any, Callable

import gevent
from gevent import GreenletExit

from faye_wsgi.driver.eventstream import EventStreamDecoder, ServerEvent
from faye_wsgi.driver.eventstream_request import EventStreamRequest
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.http.url import Url, without_query
from faye_wsgi.transport import dial, fork, hubs
from faye_wsgi.transport.backoff import Backoff
from faye_wsgi.transport.condition import Condition
from faye_wsgi.transport.opening import Opening, Pairs, heals

__all__ = ["Feed"]

log = logging.getLogger("faye_wsgi")

LEAST_DELAY = 0.1  # seconds, where the server asks for less: it may fail for a while


class Feed:
    """The connections of one client, and what they have brought.

    ``opening`` has no handshake yet: each attempt makes a request with the latest id. ``backoff``
    is None for a single connection. Times are in seconds, None for no limit.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        last_event_id: str,
        max_length: int,
        open_timeout: float | None,
        idle_timeout: float | None,
        backoff: Backoff | None,
    ) -> None:
        self._opening = replace(opening, make_handshake=self._make_request)
        self._max_length = max_length
        self._open_timeout = open_timeout
        self._idle_timeout = idle_timeout
        self._backoff = backoff
        self._decoder = EventStreamDecoder(last_event_id)
        self._taken_id = last_event_id
        self._events: deque[ServerEvent] = deque()
        self._socket: Any = None
        self.is_open = False  # now
        self.latest: EventStreamRequest | None = None  # the latest one that has opened
        self.is_finished = False  # the server has answered 204
        self.end: ConnectionClosed | None = None  # why it is over
        self._thread = hubs.get_ident()
        self._hub = hubs.reserve(self)
        self._changed = Condition(self._hub)
        hubs.join(self._hub, self)
        fork.watch(self)
        self._greenlet = gevent.spawn(self._run)

    def __repr__(self) -> str:
        return f"<Feed {without_query(str(self._opening.url))}>"

    # What the user calls

    @property
    def last_event_id(self) -> str:
        """The id of the last event that was taken, or a later one that came without an event."""
        return self._taken_id if self._events else self._decoder.last_event_id

    @property
    def retry(self) -> float | None:
        """The seconds to wait before connecting again, as the server says."""
        return self._decoder.retry

    @property
    def is_elsewhere(self) -> bool:
        """Whether the caller runs in another thread."""
        return bool(self._thread != hubs.get_ident())

    def wait_opened(self, timeout: float | None) -> bool:
        """Wait until a connection has opened, or it is over; False after ``timeout``."""
        self._check_thread("wait_open")
        is_settled: bool = self._changed.wait_for(lambda: bool(self.latest or self.end), timeout)
        return is_settled

    def take(self, timeout: float | None) -> ServerEvent | None:
        """Wait for the next event; None at the end. TimeoutError after ``timeout`` seconds."""
        self._check_thread("receive")
        events = self._events
        if not events and not self._changed.wait_for(lambda: bool(events or self.end), timeout):
            raise TimeoutError("there was no event in time")
        if not events:
            return None
        event = events.popleft()
        self._taken_id = event.id
        if not events:
            self._notify()
        return event

    def stop(self) -> None:
        """Close, soon; from any thread, and in the middle of any code."""
        loop = self._hub.loop
        if loop is not None and self.end is None:  # None: its thread has ended
            with suppress(ValueError):  # it has just ended
                loop.run_callback_threadsafe(self.close, ConnectionClosed(None, "closed here"))

    def close(self, end: ConnectionClosed) -> None:
        """Be over, and have the greenlet close what is open; in the hub's thread."""
        if self.end is None:
            self.end = end
            self._events.clear()
            self.is_open = False
            hubs.leave(self._hub, self)
            self._greenlet.kill(block=False)
            self._notify()

    def join(self) -> None:
        """Wait until the greenlet has ended."""
        self._greenlet.join()

    def _check_thread(self, call: str) -> None:
        if self.is_elsewhere:
            raise RuntimeError(f"{call} belongs to the thread that made the connection")

    def _notify(self) -> None:
        self._hub.loop.run_callback(self._changed.notify_all)

    # What the hub, the thread and the process call: a hubs.Member, and fork.Inherited

    @property
    def is_over(self) -> bool:
        """Whether it no longer needs the hub."""
        return self.end is not None

    @property
    def dispatcher(self) -> Any:
        """There are no listeners."""
        return None

    def go_away(self, code: int) -> None:
        """The process stops."""
        self.close(ConnectionClosed(None, "the process stops"))

    def abandon(self, code: int) -> bool:
        """The thread has ended, and the greenlet will never run again."""
        self.end = self.end or ConnectionClosed(None, "its thread has ended")
        self._events.clear()
        self.is_open = False
        hubs.leave(self._hub, self)
        if self._socket is not None:
            self._socket.close()
        return False

    def forget(self, hub: Any) -> object:
        """In the child of a fork: the parent goes on with it. Returns what must be kept."""
        # The greenlet may run once more here, because its descriptor is closed. Then it ends.
        self.end = self.end or ConnectionClosed(None, "the connection is the parent process's")
        self._events.clear()
        self.is_open = False
        return self._greenlet, self._changed.forget()

    # The greenlet

    def _run(self) -> None:
        try:
            self._follow()
        except ConnectionClosed as error:
            self._settle(error)
        except Exception as error:  # a bug of ours: without this, ``take`` would wait for ever
            log.exception("an event stream could not be followed")
            self._settle(ConnectionClosed(1006, f"{type(error).__name__}: {error}"))

    def _settle(self, end: ConnectionClosed) -> None:
        """Be over, by itself: events that have come may still be taken."""
        if self.end is None:
            self.end = end
            hubs.leave(self._hub, self)
            self._notify()

    def _follow(self) -> None:
        """Connect and read, again and again. Ends with ConnectionClosed."""
        while True:
            try:
                self._socket, request = dial.within(self._open_timeout, self._opening.run)
            except HandshakeError as error:
                if _says_stop(error):
                    self.is_finished = True
                    raise ConnectionClosed(None, "the server answered 204: no more") from None
                if self._backoff is None or not _may_heal(error):
                    raise
                level, reason = logging.WARNING, str(error)
            else:
                end = self._read_all(request)
                if self._backoff is None:
                    raise end
                level = logging.INFO if end.code is None else logging.WARNING
                reason = end.reason or ""
            self._check_end()
            self._backoff.wait(self._reporter(level, reason), self._asked())
            self._check_end()

    def _make_request(self, url: Url, headers: Pairs) -> EventStreamRequest:
        decoder = EventStreamDecoder(self._decoder.last_event_id, self._max_length)
        decoder.retry = self._decoder.retry
        return EventStreamRequest(url, headers, decoder)

    def _read_all(self, request: EventStreamRequest) -> ConnectionClosed:
        """Read one stream to its end; why it has ended, with 1006 where it was broken off."""
        try:
            self._decoder, self.latest, self.is_open = request.decoder, request, True
            if self._backoff is not None:
                self._backoff.opened()
            self._notify()
            self._hand_over(request.receive_events())
            while request.end is None:
                data = dial.receive(self._socket, self._idle_timeout)
                self._hand_over(request.receive_events(data))
        except OSError as error:
            # Without a number it is gevent's; with one it comes from TCP's keepalive.
            if isinstance(error, socket.timeout) and error.errno is None:
                return ConnectionClosed(1006, f"nothing came for {self._idle_timeout} seconds")
            return ConnectionClosed(1006, f"the connection was lost: {error.strerror or error}")
        finally:
            self.is_open = False
            self._socket.close()
            self._socket = None
        if request.end:
            return ConnectionClosed(1006, f"the stream was broken off: {request.end}")
        return ConnectionClosed(None, "the server has ended the stream")

    def _hand_over(self, events: list[ServerEvent]) -> None:
        """Hand events over, and wait until they have been taken."""
        self._check_end()
        if events:
            if self._backoff is not None:
                self._backoff.reset()
            self._events.extend(events)
            self._notify()
            self._changed.wait_for(lambda: not self._events, None)
            self._check_end()
        if self._decoder.failure:
            raise ConnectionClosed(1009, self._decoder.failure)

    def _check_end(self) -> None:
        if self.end is not None:  # in the child of a fork
            raise GreenletExit

    def _asked(self) -> float | None:
        return None if self.retry is None else max(self.retry, LEAST_DELAY)

    def _reporter(self, level: int, reason: str) -> Callable[[float], object]:
        shown = without_query(str(self._opening.url))
        return lambda delay: log.log(
            level, "%s: %s: trying again in %.1f seconds", shown, reason, delay
        )


def _says_stop(error: HandshakeError) -> bool:
    # WHATWG HTML §9.2.1. With another code than 1002 it is the proxy's answer.
    return error.status_code == 204 and error.code == 1002


def _may_heal(error: HandshakeError) -> bool:
    # An answer that is neither an event stream nor an error of the server's is its will.
    return heals(error) and (error.status_code is None or error.status_code >= 400)
