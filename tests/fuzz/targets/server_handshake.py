"""The server's opening handshakes: RFC 6455 and the drafts.

The first byte chooses the method, the version, and whether drafts are allowed; the others are the
header lines.
"""

from __future__ import annotations

from ..packages import PURE

PROTOCOLS = ["a", "b1"]


def check(data: bytes) -> None:
    if not data:
        return
    request = PURE("driver.server_handshake").Request(
        "POST" if data[0] & 4 else "GET",
        read_headers(data[1:].decode("latin-1")),
        "HTTP/1.0" if data[0] & 8 else "HTTP/1.1",
        bool(data[0] & 16),
    )
    drafts = PURE("driver.hixie76")
    draft = drafts.find_handshake(request) if data[0] & 1 else None
    try:
        if draft is not None:
            _, response = draft(request, url="ws://host/\xe9", protocols=PROTOCOLS)
        else:
            _, response = PURE("driver.server_handshake").handshake(
                request,
                protocols=PROTOCOLS,
                extensions=[PURE("extensions.permessage_deflate").permessage_deflate],
            )
    except PURE("errors").HandshakeError as error:
        assert error.status_code in (400, 426), error
        assert not set("\r\n\0") & set(error.reason)
        return
    head = response.encode()
    assert head.startswith(b"HTTP/1.1 101 ") and head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n") == len(response.headers) + 2, "a header that a client has added"
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n") and b"\0" not in head


def read_headers(text: str) -> dict[str, str]:
    """As a server hands them over: names in lower case, repeated ones joined."""
    headers: dict[str, str] = {}
    for line in text.replace("\r", "").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            name = name.lower()
            headers[name] = f"{headers[name]},{value}" if name in headers else value.strip(" \t")
    return headers
