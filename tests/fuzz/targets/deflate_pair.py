"""permessage-deflate on both sides: what one compresses, the other reads.

Five bytes choose the options of each side. The others are messages, between bytes of FF.
"""

from __future__ import annotations

from typing import Any

from ..packages import PURE

MAX_LENGTH = 1 << 20


def check(data: bytes) -> None:
    if len(data) < 10:
        return
    negotiation = PURE("extensions.negotiation")
    theirs = negotiation.ClientNegotiation([configured(data[:5])])
    ours = negotiation.negotiate([configured(data[5:10])], theirs.header, MAX_LENGTH)
    if ours is None:
        return  # the server cannot do what the client asks for
    try:
        client = theirs.activate(ours.header, MAX_LENGTH)
    except PURE("errors").ExtensionError:
        # RFC 7692 §7.1.1.1: a client may want what a server need not grant.
        assert data[0] & 2 or data[3] % 8 < 7, "it asked for nothing"
        return
    for payload in data[10:].split(b"\xff"):
        carry(client, ours, payload * (1 + len(payload) % 50))
        carry(ours, client, payload)


def configured(options: bytes) -> Any:
    flags, level, memory, asked_bits, bits = options
    return PURE("extensions.permessage_deflate").PermessageDeflate(
        no_context_takeover=bool(flags & 1),
        request_no_context_takeover=bool(flags & 2),
        threshold=flags >> 2 & 15,
        level=level % 11 - 1,
        strategy=level // 11 % 5,
        mem_level=memory % 9 + 1,
        request_max_window_bits=asked_bits % 8 + 8,
        max_window_bits=bits % 8 + 8,
    )


def carry(sender: Any, reader: Any, payload: bytes) -> None:
    message = PURE("extensions.base").Message(2, payload)
    sent = sender.process_outgoing(message)
    assert reader.process_incoming(sent).data == payload
