"""WHATWG HTML §9.2.3, the client's side of one event stream: a URL becomes a request, then events.

``request`` is sent. The bytes of the answer go to ``receive_data`` until it returns the open
stream, or raises HandshakeError. From then on they go to ``receive_events``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from faye_wsgi.driver.eventstream import EventStreamDecoder, ServerEvent
from faye_wsgi.errors import HandshakeError, Headers
from faye_wsgi.http.exchange import Answer, Exchange
from faye_wsgi.http.url import Url

__all__ = ["RESERVED_HEADERS", "EventStreamRequest"]

# The request has no body, and the answer is read as it comes.
RESERVED_HEADERS = (
    "accept-encoding",
    "connection",
    "content-length",
    "last-event-id",
    "te",
    "transfer-encoding",
    "upgrade",
)
MEDIA_TYPE = "text/event-stream"
_FORBIDDEN = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")  # RFC 9110 §5.5; a tab is allowed


class EventStreamRequest:
    """One request for an event stream, and its answer.

    ``headers`` are the user's own. What the body says goes to ``decoder``, whose ``last_event_id``
    is sent.
    """

    def __init__(
        self, url: Url, headers: Iterable[tuple[str, str]], decoder: EventStreamDecoder
    ) -> None:
        self.decoder = decoder
        self.status_code: int | None = None
        self.headers: Headers = ()
        added = list(headers)
        named = {name.lower() for name, _ in added}
        fields = [pair for pair in self._fields(url) if pair[0].lower() not in named]
        self._exchange = Exchange(
            "the server",
            "GET",
            url.target,
            fields + added,
            scheme=url.scheme,
            is_wanted=_is_event_stream,
        )
        self.request = self._exchange.request

    def _fields(self, url: Url) -> list[tuple[str, str]]:
        fields = [
            ("Host", url.host_header),
            ("Accept", MEDIA_TYPE),
            # Without this a server may compress, and would do so in blocks of many events.
            ("Accept-Encoding", "identity"),
            ("Cache-Control", "no-store"),
        ]
        if url.authorization:
            fields.append(("Authorization", url.authorization))
        # UTF-8 on the wire, as browsers send it. HTTP drops spaces at the ends (Fetch §2.2.2).
        last_event_id = self.decoder.last_event_id.encode("utf-8", "replace").decode("latin-1")
        last_event_id = last_event_id.strip(" \t")
        if last_event_id and not _FORBIDDEN.search(last_event_id):
            fields.append(("Last-Event-ID", last_event_id))
        return fields

    @property
    def is_refused(self) -> bool:
        """Whether only the rest of a refusal's body is waited for."""
        return self._exchange.is_refused

    @property
    def end(self) -> str | None:
        """None while the body goes on; then why it has ended, '' where it is complete."""
        return self._exchange.body_end

    def receive_data(self, data: bytes) -> EventStreamRequest | None:
        """Take bytes of the answer: this object once the stream has begun, None before.

        HandshakeError: it is anything else than an event stream; its ``status_code`` says what.
        """
        try:
            answer = self._exchange.receive_data(data)
        except HandshakeError as error:
            raise _explained(error) from None
        if answer is None:
            return None
        self.status_code, self.headers = answer.status_code, answer.headers
        return self

    def receive_eof(self) -> HandshakeError:
        """The answer has ended, or took too long: the error for the user."""
        return _explained(self._exchange.receive_eof())

    def receive_events(self, data: bytes | None = None) -> list[ServerEvent]:
        """Take bytes of the stream: the events that they complete.

        Call it without ``data`` first, for what has come with the head; b'' is the end of TCP.
        """
        return self.decoder.receive_data(self._exchange.read_body(data))


def _is_event_stream(answer: Answer) -> bool:
    media_type = (answer.get("content-type") or "").partition(";")[0].strip().lower()
    coding = (answer.get("content-encoding") or "identity").strip().lower()
    return answer.status_code == 200 and media_type == MEDIA_TYPE and coding == "identity"


def _explained(error: HandshakeError) -> HandshakeError:
    """The error, which says what is missing where the status is right."""
    if error.status_code == 200:
        coding = error.headers.get("Content-Encoding")
        kind = error.headers.get("Content-Type")
        what = f"is {kind[:100]}" if kind else "has no Content-Type"
        what = f"is compressed ({coding[:100]}), which was not asked for" if coding else what
        error.reason = f"{error.reason}, and no event stream: its body {what}"
    return error
