"""One test's exchange with a view, from the request to the end of the view and what it leaves.

The sessions of ``faye_wsgi.testing`` have one each. It knows what the view has raised, what was
said (the transcript), and when the test may go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Callable, NoReturn

from faye_wsgi.endpoint import EventTarget
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.http.headers import HeadersLike, check_headers
from faye_wsgi.testkit import leftovers
from faye_wsgi.testkit.frameworks import Target, find_target
from faye_wsgi.testkit.request import Request

__all__ = ["TIMEOUT", "Exchange"]

log = logging.getLogger("faye_wsgi")

TIMEOUT = 5.0  # seconds, of each wait that has no other
SHOWN = 200  # characters of a message in the transcript


class Exchange:
    """One connection of a test: its requests (a redirect makes another), and their end."""

    def __init__(self, client: Any, path: str, headers: HeadersLike, keeps: Iterable[str]) -> None:
        self._arguments = (client, path)
        self.headers = check_headers(headers)
        self._keeps = _check_keeps(keeps)
        self._target: Target | None = None
        self.requests: list[Request] = []
        self._transcript: list[str] = []
        self._raised: BaseException | None = None  # the view's, when the test has got it
        self._is_over = False

    @property
    def target(self) -> Target:
        """The application, once ``begin`` was called."""
        assert self._target is not None
        return self._target

    def begin(self) -> None:
        """Find the application, and the cookies that go with the request."""
        if self._target is not None:
            raise RuntimeError("this connection has been opened: connect again")
        target = self._target = find_target(*self._arguments)
        cookie = target.cookie()
        if cookie and not any(name.lower() == "cookie" for name, _ in self.headers):
            self.headers.append(("Cookie", cookie))
        leftovers.look()

    def new_request(self) -> Request:
        """Start the application on one end of a socket pair."""
        request = Request(self.target)
        leftovers.begin(request)
        self.requests.append(request)
        return request

    def finish(self, error: BaseException | None, close: Callable[[], object]) -> None:
        """Leave the block with ``error``: close, wait for the view, find what is left behind."""
        if self._is_over or self._target is None:
            return
        self._is_over = True
        left: list[str] = []
        try:
            close()
            self._check_end(error)
        finally:
            for request in self.requests:
                request.release()
            self._target.close()
            for request in self.requests:
                left += leftovers.end(request, self._keeps)
        if left and error is None:
            kinds = ", ".join(repr(one.partition(":")[0]) for one in left)
            raise AssertionError(
                f"the view has left behind {'; '.join(left)} (pass keeps=[{kinds}] if the "
                "application keeps that on purpose)"
            )

    def _check_end(self, error: BaseException | None) -> None:
        if error is None:
            self.wait_ended(TIMEOUT)
            return
        for request in self.requests:
            request.wait(TIMEOUT)
        view_error = self.view_error
        if view_error is not None and view_error is not error and view_error is not self._raised:
            # The block's own error is raised. The view's may be the reason for it.
            log.error("the view has raised, too", exc_info=view_error)

    # The view

    def wait_ended(self, timeout: float) -> None:
        """Wait until the view has ended, and raise what it has raised."""
        for request in self.requests:
            if not request.wait(timeout):
                self.fail(f"the view has not ended within {timeout} seconds{self.where()}")
        self.raise_view_error()

    def where(self) -> str:
        """Where the view is, as the end of a sentence."""
        places = [one.where() for one in self.requests if not one.wait(0)]
        return f": it is at\n{''.join(places)}" if places else ": the view has ended"

    @property
    def view_error(self) -> BaseException | None:
        """What the view has raised, if a test should see it."""
        if not self.target.raises:
            return None
        errors = (request.error for request in self.requests)
        return next((one for one in errors if one is not None and not _is_ordinary(one)), None)

    def raise_view_error(self) -> None:
        """Raise what the view has raised, once."""
        error = self.view_error
        if error is not None and error is not self._raised:
            self._raised = error
            raise error

    def raise_for(self, end: ConnectionClosed) -> None:
        """The connection has ended: raise the view's error, if that may be why."""
        if isinstance(end, HandshakeError) or end.code in (None, 1006, 1011):
            for request in self.requests:
                # The peer hears of the end before the exception has come through the middleware.
                request.wait(TIMEOUT)
        self.raise_view_error()

    # The transcript

    def note(self, arrow: str, thing: object) -> None:
        """Write down what was sent, received or done."""
        text = str(thing) if arrow == "**" else repr(thing)
        self._transcript.append(f"  {arrow} {text[:SHOWN]}{'…' if len(text) > SHOWN else ''}")

    def fail(self, reason: str) -> NoReturn:
        """AssertionError with the conversation."""
        said = "\n".join(self._transcript or ["  (nothing was said)"])
        raise AssertionError(f"{reason.rstrip()}\nThe conversation so far:\n{said}")


def _check_keeps(keeps: Iterable[str]) -> tuple[str, ...]:
    kinds = (keeps,) if isinstance(keeps, str) else tuple(keeps)
    for kind in kinds:
        if kind not in leftovers.KINDS:
            raise ValueError(f"keeps has {kind!r}: there are {', '.join(leftovers.KINDS)}")
    return kinds


def _is_ordinary(error: BaseException) -> bool:
    """Whether this is how a view without a decorator hears that the client has closed."""
    if not isinstance(error, ConnectionClosed) or isinstance(error, HandshakeError):
        return False
    # Not one of a Client: the view had that connection to another server.
    return isinstance(error.target, EventTarget) and hasattr(error.target, "environ")
