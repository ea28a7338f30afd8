"""One HTTP request that opens something, and the answer.

The requests of the client's opening handshake (Upgrade) and of the proxy step (CONNECT) ask the
receiver to switch to something else; that for an event stream asks for a body that goes on. h11
reads the answers; the limits on their size are set here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, NamedTuple

import h11

from faye_wsgi.errors import HandshakeError, Headers

__all__ = ["Answer", "Exchange"]

MAX_HEAD = 65536  # bytes of an answer's status line and headers
MAX_INTERIM = 16  # answers like 103 that may come before the real one
MAX_BODY = 4096  # bytes of a refusal's body that are kept for the user

_TLS_ALERT = b"\x15"  # RFC 8446 §5.1: how a TLS server answers plain text, never HTTP
# What servers say that read plain text where they expect TLS: nginx, Apache, Go, others.
_WANTS_TLS = (
    b"plain http request was sent to https port",
    b"speaking plain http to an ssl-enabled server port",
    b"client sent an http request to an https server",
    b"this combination of host and port requires tls",
)


class Answer(NamedTuple):
    """The head of a response, and the bytes that came after it."""

    status_code: int
    phrase: str
    headers: Headers
    http_version: str
    left: bytes = b""

    def get(self, name: str) -> str | None:
        """The value of a header (``name`` in lower case), repeated ones joined by commas."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None


def _switches(answer: Answer) -> bool:
    return False  # h11 knows by itself which answers switch


class Exchange:
    """A request and its answer.

    ``peer`` is the receiver's name in the errors, ``scheme`` that of its URL. ``is_wanted`` says
    which answer opens what was asked for, if it does not switch: ``read_body`` reads its body.
    """

    def __init__(
        self,
        peer: str,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        *,
        scheme: str = "ws",
        is_wanted: Callable[[Answer], bool] = _switches,
    ) -> None:
        self._peer = peer
        self._scheme = scheme
        self._is_wanted = is_wanted
        self.body_end: str | None = None  # why the body has ended; '' where it is complete
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._first = b""  # the first byte of the answer
        self._interim = 0
        self._refusal: Answer | None = None
        self._body = b""
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        try:
            request = h11.Request(method=method, target=target, headers=encoded)
            self.request: bytes = self._http.send(request) + self._http.send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise ValueError(f"this request cannot be sent: {error}") from None

    @property
    def is_refused(self) -> bool:
        """Whether the answer is a refusal, and only the rest of its body is waited for."""
        return self._refusal is not None

    def receive_data(self, data: bytes) -> Answer | None:
        """Take bytes of the answer: the one that was asked for, None while more is needed.

        HandshakeError: it is a refusal, which carries the answer, or no HTTP at all.
        """
        self._first = self._first or data[:1]
        try:
            self._http.receive_data(data)
            return self._next_answer()
        except h11.RemoteProtocolError as error:
            self._check_refused()
            if self._first == _TLS_ALERT:
                raise HandshakeError(self._speaks_tls()) from None
            raise HandshakeError(f"{self._peer} gave no valid answer: {error}") from None

    def receive_eof(self) -> HandshakeError:
        """The answer has ended, or its body took too long: the error for the user."""
        try:
            self._check_refused()
        except HandshakeError as error:
            return error
        return HandshakeError(f"{self._peer} closed the connection without an answer", code=1006)

    def read_body(self, data: bytes | None = None) -> bytes:
        """Take bytes behind the head of the wanted answer: what they have of its body.

        Call it without ``data`` first, for what has come with the head; b'' is the end of TCP.
        The last piece sets ``body_end``.
        """
        pieces: list[bytes] = []
        try:
            if data is not None:
                self._http.receive_data(data)
            event = self._http.next_event()
            while event is not h11.NEED_DATA:
                if not isinstance(event, h11.Data):
                    self.body_end = ""
                    break
                pieces.append(bytes(event.data))
                event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self.body_end = str(error) or "its body is malformed"
        return b"".join(pieces)

    def _speaks_tls(self) -> str:
        return f"{self._peer} speaks TLS here: write {self._scheme}s://"

    def _next_answer(self) -> Answer | None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return None
            if isinstance(event, (h11.InformationalResponse, h11.Response)):
                answer = self._read_head(event)
                if answer is not None:
                    return answer
            elif isinstance(event, h11.Data):
                self._body += bytes(event.data)
                if len(self._body) >= MAX_BODY:
                    self._check_refused()
            else:  # the end of the body
                self._check_refused()
                return None

    def _read_head(self, event: h11.InformationalResponse | h11.Response) -> Answer | None:
        answer = Answer(
            event.status_code,
            bytes(event.reason).decode("latin-1"),
            tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in _pairs(event)),
            bytes(event.http_version).decode("ascii"),
        )
        if self._http.their_state is h11.SWITCHED_PROTOCOL:
            return answer._replace(left=bytes(self._http.trailing_data[0]))
        if isinstance(event, h11.Response):
            if self._is_wanted(answer):
                return answer
            self._refusal = answer
            return None
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise HandshakeError(f"{self._peer} gave no answer, but {self._interim} interim ones")
        return None

    def _check_refused(self) -> None:
        refusal = self._refusal
        if refusal is not None:
            reason = f"{self._peer} answered {refusal.status_code} {refusal.phrase}".rstrip()
            body = self._body.lower()
            if refusal.status_code == 400 and any(words in body for words in _WANTS_TLS):
                reason = self._speaks_tls()
            raise HandshakeError(
                reason,
                status_code=refusal.status_code,
                headers=refusal.headers,
                body=self._body[:MAX_BODY],
            )


def _pairs(event: h11.InformationalResponse | h11.Response) -> list[tuple[bytes, bytes]]:
    raw = getattr(event.headers, "raw_items", None)  # as they were written; h11 0.10 and later
    return list(event.headers if raw is None else raw())
