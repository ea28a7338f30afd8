"""The exceptions: what they are, what they carry, and how they read in a log."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Callable

import pytest

from faye_wsgi import errors
from faye_wsgi.errors import (
    ConnectionClosed,
    ExtensionError,
    HandshakeError,
    HijackError,
    ProtocolError,
    WebSocketError,
)


def test_all_are_caught_by_one_name() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), WebSocketError)
    assert not issubclass(WebSocketError, (OSError, ValueError))


def test_who_is_what() -> None:
    """A loop that ends with its connection ends with one that never opened, too."""
    assert issubclass(HandshakeError, ConnectionClosed)
    assert issubclass(ExtensionError, ProtocolError)
    assert not issubclass(HijackError, ConnectionClosed), "it is the operator's, not the peer's"


@pytest.mark.parametrize(
    "error, text",
    [
        (ConnectionClosed(), "connection closed"),
        (ConnectionClosed(1000, ""), "connection closed with 1000"),
        (ConnectionClosed(1001, "bye"), "connection closed with 1001: bye"),
        (ConnectionClosed(None, "bye"), "connection closed: bye"),
        (HandshakeError("no key"), "handshake failed: no key"),
        (HandshakeError("no key", status_code=400), "handshake failed (400): no key"),
        (ProtocolError("a reserved bit"), "a reserved bit"),
        (HijackError("a server: the cure"), "a server: the cure"),
    ],
)
def test_what_a_log_shows(error: Exception, text: str) -> None:
    assert str(error) == text


def test_a_closed_connection_has_its_code_reason_and_target() -> None:
    error = ConnectionClosed(1001, "bye")
    assert (error.code, error.reason, error.target) == (1001, "bye", None)
    assert (ConnectionClosed().code, ConnectionClosed().reason) == (None, None)


def test_a_failed_handshake_has_its_answer() -> None:
    error = HandshakeError("no")
    assert (error.code, error.reason) == (1002, "no")
    assert (error.status_code, error.headers, error.body) == (None, (), b"")
    error = HandshakeError("no", code=1006, status_code=503, headers=(("A", "b"),), body=b"later")
    assert (error.code, error.status_code, error.headers) == (1006, 503, (("A", "b"),))
    assert error.body == b"later"


def test_a_broken_protocol_has_the_close_code_that_answers_it() -> None:
    assert ProtocolError("x").code == 1002
    assert ExtensionError("x", 1007).code == 1007


def test_its_headers_are_found_in_any_case() -> None:
    pairs = (("Location", "/a"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2"))
    headers = HandshakeError("no", headers=pairs).headers
    assert headers["location"] == headers.get("LOCATION") == "/a" and "loCation" in headers
    assert headers.getall("Set-Cookie") == ["a=1", "b=2"] and headers["Set-Cookie"] == "b=2"
    assert headers.get("X-None") is None and headers.get("X-None", "-") == "-"
    assert "X-None" not in headers
    with pytest.raises(KeyError):
        headers["X-None"]
    assert list(headers) == list(pairs) and headers[0] == pairs[0] and pairs[1] in headers


COPIES = [copy.copy, copy.deepcopy] + [
    lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
]


@pytest.mark.parametrize("make_copy", COPIES)
@pytest.mark.parametrize(
    "error",
    [
        WebSocketError("a", "b"),
        ConnectionClosed(),
        ConnectionClosed(1001, "bye"),
        HandshakeError("no", code=1006, status_code=503, headers=(("A", "b"),), body=b"later"),
        ProtocolError("a reserved bit", 1007),
        ExtensionError("x"),
        HijackError("a server: the cure"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_is_the_same(error: Any, make_copy: Callable[[Any], Any]) -> None:
    error.target = lambda: "a live connection, which cannot be pickled"
    error.reason = f"{getattr(error, 'reason', None)}, and more"
    made = make_copy(error)
    assert type(made) is type(error) and made is not error
    assert (str(made), made.args) == (str(error), error.args)
    state = dict(vars(error))
    del state["target"]
    assert vars(made) == state
    if isinstance(error, HandshakeError):
        assert made.headers["a"] == "b" and made.target is None
