"""Compression of messages, RFC 7692: ``permessage-deflate``.

    WebSocket(environ, extensions=permessage_deflate)
    Client(url, extensions=permessage_deflate.configure(level=1, max_window_bits=11))

Each side compresses with a context of its own, which normally lives as long as the
connection ("context takeover"), so that a message may refer to earlier ones. A context
is made when the first message needs it. zlib takes about 256 KiB for compressing
and 40 KiB for reading; ``max_window_bits``, ``mem_level`` and the two
``no_context_takeover`` options make it less. Window and ``mem_level`` go together: after
one message a connection has about 110 KiB, with a window of 10 bits 96, with
``mem_level=4`` besides 31.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from faye_wsgi.errors import ExtensionError
from faye_wsgi.extensions.base import Extension, Message, OfferedParameters, Parameters

__all__ = ["PermessageDeflate", "permessage_deflate"]

MAX_WINDOW_BITS = 15
_WINDOW_BITS = {str(bits): bits for bits in range(8, MAX_WINDOW_BITS + 1)}
_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_SIZES = ("server_max_window_bits", "client_max_window_bits")
_RANGES = {
    "level": (-1, 9),
    "mem_level": (1, 9),
    "strategy": (0, 4),
    "max_window_bits": (8, MAX_WINDOW_BITS),
    "request_max_window_bits": (8, MAX_WINDOW_BITS),
    "threshold": (0, 2**63 - 1),
}

_TAIL = b"\x00\x00\xff\xff"  # RFC 7692 §7.2.1: left out by the sender of each message
_INPUT = 1 << 16  # bytes read at a time
_OUTPUT = 1 << 17  # and written: what a message may go over its limit before it is seen
_MAX_FINAL_BLOCKS = 1024  # in a message: each of them costs a new context


@dataclass(frozen=True)
class PermessageDeflate(Extension):
    """The extension and its options; ``configure`` gives another one.

    ``level`` (0 to 9, -1 for zlib's choice), ``mem_level`` (1 to 9) and ``strategy``
    (``zlib.Z_FILTERED``, ...) are zlib's. ``no_context_takeover`` drops our own context
    after each message, ``max_window_bits`` (8 to 15) bounds it; the two ``request_``
    options ask the same of the peer: a server that cannot do it is refused, a client
    that cannot is served nevertheless. Messages of less than ``threshold`` bytes are sent
    as they are.
    """

    level: int = zlib.Z_DEFAULT_COMPRESSION
    mem_level: int = 8
    strategy: int = zlib.Z_DEFAULT_STRATEGY
    no_context_takeover: bool = False
    max_window_bits: int = MAX_WINDOW_BITS
    request_no_context_takeover: bool = False
    request_max_window_bits: int = MAX_WINDOW_BITS
    threshold: int = 0

    name = "permessage-deflate"
    rsv1 = True

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check(field.name, getattr(self, field.name))

    @staticmethod
    def _check(name: str, value: object) -> None:
        if name not in _RANGES:
            if not isinstance(value, bool):
                raise TypeError(f"{name} is a bool, not {value!r}")
        elif not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is an int, not {value!r}")
        else:
            least, most = _RANGES[name]
            if not least <= value <= most:
                raise ValueError(f"{name} is between {least} and {most}, not {value}")

    def configure(self, **options: Any) -> PermessageDeflate:
        """The same extension with some options changed."""
        return dataclasses.replace(self, **options)

    def create_client_session(self) -> DeflateClientSession:
        return DeflateClientSession(self)

    def create_server_session(self, offers: Sequence[Parameters]) -> DeflateServerSession | None:
        # RFC 7692 §5.1: the first offer that can be accepted; there may be none.
        for params in offers:
            offer = _read_parameters(params, is_offer=True)
            if offer is not None:
                return DeflateServerSession(self, offer)
        return None


class _Agreement(NamedTuple):
    """The four parameters of RFC 7692 §7.1; 0 stands for window bits that are not there."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 0
    client_max_window_bits: int = 0


def _read_parameters(params: Parameters, is_offer: bool) -> _Agreement | None:
    """The parameters of an offer or a response; None where RFC 7692 §7.1 forbids them."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        if name in _FLAGS and value is True:
            found[name] = True
        elif name in _SIZES and isinstance(value, str) and value in _WINDOW_BITS:
            found[name] = _WINDOW_BITS[value]
        elif name == "client_max_window_bits" and value is True and is_offer:
            found[name] = MAX_WINDOW_BITS  # §7.1.2.2: the client can do it, any size is right
        else:
            return None
    return _Agreement(**found)


class DeflateSession:
    """The data phase, RFC 7692 §7.2: the same for both roles once they have agreed."""

    __slots__ = (
        "_config",
        "_deflater",
        "_inflater",
        "_own_bits",
        "_own_takeover",
        "_peer_bits",
        "_peer_takeover",
        "max_length",
    )

    def __init__(self, config: PermessageDeflate) -> None:
        self._config = config
        self.max_length = 2**26 - 1  # the pipeline says how long it may be
        self._own_takeover = self._peer_takeover = True
        self._own_bits = self._peer_bits = MAX_WINDOW_BITS
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None

    def process_outgoing_message(self, message: Message) -> Message:
        """Compress, unless that cannot pay: RSV1 tells the peer (RFC 7692 §7.2.1)."""
        data = message.data
        if not data or len(data) < self._config.threshold:
            return message
        deflater = self._deflater or self._new_deflater()
        # What a sync flush returns ends in the tail.
        message.data = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)[:-4]
        message.rsv1 = True
        self._deflater = deflater if self._own_takeover else None
        return message

    def process_shared_message(self, message: Message, shared: dict[Any, Any]) -> Message:
        """Compress a message that goes to many, once for all who do it alike."""
        # Their contexts differ, so it refers to no earlier message. What follows must not
        # refer to what is before it either: our context does not have it, the peer's has.
        self._deflater = None
        key = self._config, self._own_bits
        done: Message | None = shared.get(key)
        if done is None:
            done = shared[key] = self.process_outgoing_message(message)
            self._deflater = None
        return done

    def process_incoming_message(self, message: Message) -> Message:
        """Read a compressed message; one without RSV1 is as it was (RFC 7692 §7.2.2)."""
        if message.rsv1 and message.data:
            try:
                message.data = self._inflate(message.data)
            except zlib.error:
                self.close()
                raise ExtensionError("a message cannot be decompressed", 1007) from None
        return message

    def close(self) -> None:
        """Free both contexts."""
        self._deflater = self._inflater = None

    def _new_deflater(self) -> zlib._Compress:
        # zlib refuses to compress a raw stream with a window of 8 bits, but what it makes
        # with 9 fits into one: it never looks back further than its window less 262 bytes
        # (its longest match and what it reads ahead), which leaves 250 of 512.
        config, bits = self._config, max(self._own_bits, 9)
        return zlib.compressobj(
            config.level, zlib.DEFLATED, -bits, config.mem_level, config.strategy
        )

    def _inflate(self, data: bytes) -> bytes:
        inflater = self._inflater or zlib.decompressobj(-self._peer_bits)
        self._inflater = None  # until the message has been found good
        piece = inflater.decompress(data[:_INPUT], _OUTPUT)
        size = len(piece)
        if size == _OUTPUT or len(data) > _INPUT or size > self.max_length or inflater.eof:
            return self._inflate_more(inflater, piece, data)
        self._end(inflater)  # nearly always it comes out in one piece
        return piece

    def _end(self, inflater: zlib._Decompress) -> None:
        # The tail ends an empty block; if it says anything more, the message was cut off.
        if inflater.decompress(_TAIL, 1) or inflater.eof:
            raise zlib.error("the message is cut off")
        if self._peer_takeover:
            self._inflater = inflater

    def _inflate_more(self, started: zlib._Decompress, piece: bytes, data: bytes) -> bytes:
        inflater: zlib._Decompress | None = started
        pieces: list[bytes] = []
        size = final_blocks = 0
        view = memoryview(data)
        for start in range(0, len(data), _INPUT):
            rest: bytes | memoryview = view[start : start + _INPUT]
            while True:
                # 1. a piece, bounded whatever the input claims; the first is there
                if start or pieces or inflater is None:
                    inflater = inflater or zlib.decompressobj(-self._peer_bits)
                    piece = inflater.decompress(rest, _OUTPUT)
                # 2. the limit, while it happens
                size += len(piece)
                if size > self.max_length:
                    pieces.clear()  # or the traceback would keep them alive
                    raise ExtensionError(f"a message is longer than {self.max_length} bytes", 1009)
                pieces.append(piece)
                # 3. RFC 7692 §7.2.3.4: after a final block, the rest is a new stream
                if inflater.eof:
                    rest, inflater = inflater.unused_data, None
                    final_blocks += 1
                    if final_blocks > _MAX_FINAL_BLOCKS:
                        raise zlib.error("too many final blocks")
                    if not rest:
                        break
                    continue
                # 4. a full piece may mean that zlib holds back more
                rest = inflater.unconsumed_tail
                if len(piece) < _OUTPUT:
                    break
        if inflater is not None:
            self._end(inflater)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class DeflateServerSession(DeflateSession):
    """The server's side: RFC 7692 §7.1, from an offer that has been found acceptable."""

    __slots__ = ("_offer",)

    def __init__(self, config: PermessageDeflate, offer: _Agreement) -> None:
        super().__init__(config)
        self._offer = offer
        self._own_takeover = not (config.no_context_takeover or offer.server_no_context_takeover)
        self._peer_takeover = not (
            config.request_no_context_takeover or offer.client_no_context_takeover
        )
        self._own_bits = min(
            config.max_window_bits, offer.server_max_window_bits or MAX_WINDOW_BITS
        )
        if offer.client_max_window_bits:
            # §7.1.2.2: only a client that offers it can be asked
            self._peer_bits = min(config.request_max_window_bits, offer.client_max_window_bits)

    def generate_response(self) -> OfferedParameters:
        params: dict[str, int | bool] = {}
        if not self._own_takeover:
            params["server_no_context_takeover"] = True
        if not self._peer_takeover:
            params["client_no_context_takeover"] = True
        if self._offer.server_max_window_bits:
            # §7.1.2.1: said only to who asked. A smaller window than the peer's is
            # always right, and some clients fail at an answer to no question.
            params["server_max_window_bits"] = self._own_bits
        if self._peer_bits < MAX_WINDOW_BITS:
            params["client_max_window_bits"] = self._peer_bits
        return params


class DeflateClientSession(DeflateSession):
    """The client's side: it offers what the options say, and checks the answer."""

    __slots__ = ()

    def generate_offer(self) -> OfferedParameters:
        config = self._config
        params: dict[str, int | bool] = {}
        if config.no_context_takeover:
            params["client_no_context_takeover"] = True
        if config.request_no_context_takeover:
            params["server_no_context_takeover"] = True
        if config.request_max_window_bits < MAX_WINDOW_BITS:
            params["server_max_window_bits"] = config.request_max_window_bits
        # §7.1.2.2: always there, so that a server may ask for less
        bits = config.max_window_bits
        params["client_max_window_bits"] = bits if bits < MAX_WINDOW_BITS else True
        return params

    def activate(self, params: Parameters) -> bool:
        config, response = self._config, _read_parameters(params, is_offer=False)
        if response is None or not self._answers(response):
            return False
        self._own_takeover = not (config.no_context_takeover or response.client_no_context_takeover)
        self._peer_takeover = not response.server_no_context_takeover
        self._own_bits = response.client_max_window_bits or config.max_window_bits
        self._peer_bits = response.server_max_window_bits or MAX_WINDOW_BITS
        return True

    def _answers(self, response: _Agreement) -> bool:
        # RFC 7692 §7.1: what was offered to the server it must grant, or not accept at all.
        config = self._config
        server_bits = response.server_max_window_bits or MAX_WINDOW_BITS
        return (
            (response.server_no_context_takeover or not config.request_no_context_takeover)
            and server_bits <= config.request_max_window_bits
            and response.client_max_window_bits <= config.max_window_bits
        )


permessage_deflate = PermessageDeflate()
