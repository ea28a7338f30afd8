"""The client's side of a test's event stream: one HTTP request on one end of a socket pair.

A greenlet reads the response and puts its events into a queue, so that no wait of the test ends
in the middle of a read.
"""

from __future__ import annotations

from collections.abc import Iterable
from http.client import HTTPException, HTTPResponse
from typing import Any

import gevent
import gevent.socket
from gevent.event import AsyncResult
from gevent.queue import Empty, Queue

from faye_wsgi.driver.eventstream import EventStreamDecoder, ServerEvent
from faye_wsgi.errors import HandshakeError
from faye_wsgi.testkit.request import Line

__all__ = ["Feed"]

READ_SIZE = 65536


class Feed:
    """One response: its head, its body where it is a refusal, its events where it is a stream."""

    def __init__(
        self,
        line: Line,
        target: str,
        headers: Iterable[tuple[str, str]],
        decoder: EventStreamDecoder,
    ) -> None:
        self._decoder = decoder
        self._opened = AsyncResult()
        self._events: Any = Queue()  # None is the end
        family, kind = line.family, line.type
        self._socket = gevent.socket.socket(family, kind, fileno=line.detach())
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._greenlet = gevent.spawn(self._read)

    def wait_open(self, timeout: float) -> HTTPResponse:
        """The head of the stream; HandshakeError for any other answer, or TimeoutError."""
        try:
            response: HTTPResponse = self._opened.get(timeout=timeout)
        except gevent.Timeout:
            raise TimeoutError("there was no answer in time") from None
        return response

    def next(self, timeout: float) -> ServerEvent | None:
        """The next event, None at the end; TimeoutError."""
        try:
            event: ServerEvent | None = self._events.get(timeout=timeout)
        except Empty:
            raise TimeoutError("there was no event in time") from None
        if event is None:
            self._events.put(None)  # for the next call
        return event

    def close(self) -> None:
        """End TCP."""
        self._greenlet.kill()
        self._socket.close()
        self._events.put(None)

    def _read(self) -> None:
        response = HTTPResponse(self._socket, method="GET")
        try:
            response.begin()
            kind = response.headers.get_content_type()
            if response.status != 200 or kind != "text/event-stream":
                raise _refusal(response, response.read())
            self._opened.set(response)
            data = response.read1(READ_SIZE)
            while data:
                for event in self._decoder.receive_data(data):
                    self._events.put(event)
                data = response.read1(READ_SIZE)
        except HandshakeError as error:
            self._opened.set_exception(error)
        except (OSError, HTTPException) as error:
            reason = f"there was no answer: {error or type(error).__name__}"
            self._opened.set_exception(HandshakeError(reason, code=1006))
        finally:
            response.close()
            self._socket.close()  # the view's server waits a while for our end of TCP
            self._events.put(None)


def _refusal(response: HTTPResponse, body: bytes) -> HandshakeError:
    return HandshakeError(
        f"the server answered {response.status} {response.reason}, and no event stream",
        status_code=response.status,
        headers=tuple(response.getheaders()),
        body=body,
    )
