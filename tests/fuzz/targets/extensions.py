"""``Sec-WebSocket-Extensions``: its grammar, and both sides of the negotiation.

The first byte chooses the client's options; the others are the header.
"""

from __future__ import annotations

from ..packages import PURE

MAX_LENGTH = 1000


def check(data: bytes) -> None:
    if not data:
        return
    header = data[1:].decode("latin-1")
    check_grammar(header)
    negotiation = PURE("extensions.negotiation")
    deflate = PURE("extensions.permessage_deflate").permessage_deflate
    error = PURE("errors").ExtensionError
    try:
        pipeline = negotiation.negotiate([deflate], header, MAX_LENGTH)
    except error:
        pipeline = None
    if pipeline is not None:
        check_grammar(pipeline.header)
        assert pipeline.header.isascii() and pipeline.header.isprintable()
        assert pipeline.rsv_mask == 0x40
    options = {"request_no_context_takeover": data[0] & 1 > 0, "max_window_bits": 8 + data[0] % 8}
    try:
        negotiation.ClientNegotiation([deflate.configure(**options)]).activate(header, MAX_LENGTH)
    except error as found:
        assert len(str(found).encode()) <= 123, "it does not fit into a close frame"


def check_grammar(header: str) -> None:
    """What is read is written, and read again."""
    headers = PURE("http.headers")
    try:
        offers = headers.parse_extensions(header)
    except ValueError:
        return
    again = ", ".join(
        "; ".join([name, *(k if v is True else f'{k}="{v}"' for k, v in parameters.items())])
        for name, parameters in offers
    )
    if len(again) <= headers.MAX_EXTENSIONS_HEADER:
        assert headers.parse_extensions(again) == offers
