"""RFC 7692, ``permessage-deflate``: compression of messages.

    WebSocket(environ, extensions=permessage_deflate)
    Client(url, extensions=permessage_deflate.configure(level=1, max_window_bits=11))

Each side compresses with a context of its own. Normally a context lives as long as the
connection ("context takeover"), so that a message can refer to earlier ones. It is made when
the first message needs it. zlib reserves about 256 KiB for compression and 40 KiB for
decompression. ``max_window_bits``, ``mem_level`` and the two ``no_context_takeover`` options
make that less. Use the first two together: after one message a connection takes about
110 KiB, with a window of 10 bits 96 KiB, and with ``mem_level=4`` as well 31 KiB.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from io import BytesIO
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

_TAIL = b"\x00\x00\xff\xff"  # RFC 7692 §7.2.1: the sender leaves it out.
_INPUT = 1 << 16  # Bytes that zlib gets in one call.
# Bytes that it returns: about 0.3 milliseconds. A message exceeds its limit by no more than that.
_OUTPUT = 1 << 17
_MAX_FINAL_BLOCKS = 1024  # In one message. Each of them costs a new context.


@dataclass(frozen=True)
class PermessageDeflate(Extension):
    """The extension and its options. ``configure`` returns another one.

    ``level`` (0 to 9, -1 for zlib's choice), ``mem_level`` (1 to 9) and ``strategy``
    (``zlib.Z_FILTERED``, ...) are zlib's. ``no_context_takeover`` drops our own context after
    each message, ``max_window_bits`` (8 to 15) limits its size. The two ``request_`` options
    ask the peer to do the same. A server that refuses fails the handshake; a client that
    cannot do it is accepted. A message of less than ``threshold`` bytes is not compressed.
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
        # RFC 7692 §5.1: the first offer that is acceptable, or none of them.
        for params in offers:
            offer = _read_parameters(params, is_offer=True)
            if offer is not None:
                return DeflateServerSession(self, offer)
        return None


class _Agreement(NamedTuple):
    """RFC 7692 §7.1: the four parameters. Window bits are 0 if the parameter is absent."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 0
    client_max_window_bits: int = 0


def _read_parameters(params: Parameters, is_offer: bool) -> _Agreement | None:
    """RFC 7692 §7.1: the parameters of an offer or a response; None if they are not allowed."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        if name in _FLAGS and value is True:
            found[name] = True
        elif name in _SIZES and isinstance(value, str) and value in _WINDOW_BITS:
            found[name] = _WINDOW_BITS[value]
        elif name == "client_max_window_bits" and value is True and is_offer:
            found[name] = MAX_WINDOW_BITS  # §7.1.2.2: any size will do.
        else:
            return None
    return _Agreement(**found)


class DeflateSession:
    """RFC 7692 §7.2, the data phase: after the handshake it is the same for both roles."""

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
        self.max_length = 2**26 - 1  # The pipeline sets it.
        self._own_takeover = self._peer_takeover = True
        self._own_bits = self._peer_bits = MAX_WINDOW_BITS
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None

    def process_outgoing_message(self, message: Message) -> Message:
        """RFC 7692 §7.2.1: compress the message if it is long enough, and set RSV1."""
        data = message.data
        if not data or len(data) < self._config.threshold:
            return message
        deflater = self._deflater or self._new_deflater()
        # The result of a sync flush ends with the tail.
        message.data = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)[:-4]
        message.rsv1 = True
        self._deflater = deflater if self._own_takeover else None
        return message

    def process_shared_message(self, message: Message, shared: dict[Any, Any]) -> Message:
        """Compress a message to many connections, once for all that have the same options."""
        # Their contexts differ, so this message cannot refer to an earlier one. Nor can a later
        # message refer to one before this: the peer's context has both, ours has not seen this
        # one, and the distances would be wrong. So the context is dropped before and after.
        self._deflater = None
        key = self._config, self._own_bits
        done: Message | None = shared.get(key)
        if done is None:
            done = shared[key] = self.process_outgoing_message(message)
            self._deflater = None
        return done

    def process_incoming_message(self, message: Message) -> Message:
        """RFC 7692 §7.2.2: decompress the message if it has RSV1."""
        if message.rsv1 and message.data:
            try:
                message.data = self._inflate(message.data)
            except zlib.error:
                raise self._failed() from None
        return message

    def process_incoming_in_steps(self, message: Message) -> Generator[None, None, Message]:
        """The same for a large message, which may become 1000 times larger."""
        if message.rsv1 and message.data:
            inflater, self._inflater = self._inflater, None
            output = BytesIO()
            try:
                yield from self._inflate_more(inflater, None, message.data, output)
            except zlib.error:
                raise self._failed() from None
            message.data = output.getvalue()
        return message

    def _failed(self) -> ExtensionError:
        self.close()
        return ExtensionError("a message cannot be decompressed", 1007)

    def close(self) -> None:
        """Free both contexts."""
        self._deflater = self._inflater = None

    def _new_deflater(self) -> zlib._Compress:
        # zlib does not compress a raw stream with a window of 8 bits (256 bytes). But its result
        # with 9 bits fits into such a window: it refers back by the size of its window less 262
        # bytes at most (its longest match and its lookahead), and 512 - 262 is 250.
        config, bits = self._config, max(self._own_bits, 9)
        return zlib.compressobj(
            config.level, zlib.DEFLATED, -bits, config.mem_level, config.strategy
        )

    def _inflate(self, data: bytes) -> bytes:
        inflater = self._inflater or zlib.decompressobj(-self._peer_bits)
        self._inflater = None  # Until the message has turned out to be valid.
        piece = inflater.decompress(data[:_INPUT], _OUTPUT)
        size = len(piece)
        if size == _OUTPUT or len(data) > _INPUT or size > self.max_length or inflater.eof:
            output = BytesIO()
            for _ in self._inflate_more(inflater, piece, data, output):
                pass
            return output.getvalue()
        self._end(inflater)  # The usual case: all of it came in one piece.
        return piece

    def _end(self, inflater: zlib._Decompress) -> None:
        # The tail is the rest of an empty block. If zlib makes any data of it, then the message
        # ended inside a block.
        if inflater.decompress(_TAIL, 1) or inflater.eof:
            raise zlib.error("the message is cut off")
        if self._peer_takeover:
            self._inflater = inflater

    def _inflate_more(
        self,
        inflater: zlib._Decompress | None,
        piece: bytes | None,
        data: bytes,
        output: BytesIO,
    ) -> Generator[None, None, None]:
        # ``piece`` is what zlib has made already. ``output`` grows where it is, as a rule, and its
        # value is no copy: joining many pieces would take as long as some steps.
        final_blocks = 0
        view = memoryview(data)
        for start in range(0, len(data), _INPUT):
            rest: bytes | memoryview = view[start : start + _INPUT]
            while True:
                # 1. Decompress one piece of limited size.
                if piece is None:
                    inflater = inflater or zlib.decompressobj(-self._peer_bits)
                    piece = inflater.decompress(rest, _OUTPUT)
                assert inflater is not None
                # 2. Check the limit now, while the message is being decompressed.
                if output.tell() + len(piece) > self.max_length:
                    output.close()  # The traceback keeps the frames alive, and so the output.
                    raise ExtensionError(f"a message is longer than {self.max_length} bytes", 1009)
                output.write(piece)
                is_full = len(piece) == _OUTPUT
                piece = None
                # 3. RFC 7692 §7.2.3.4: behind a final block, a new stream begins.
                if inflater.eof:
                    rest, inflater = inflater.unused_data, None
                    final_blocks += 1
                    if final_blocks > _MAX_FINAL_BLOCKS:
                        raise zlib.error("too many final blocks")
                    if not rest:
                        break
                else:
                    # 4. If the piece is full, zlib may have more of it.
                    rest = inflater.unconsumed_tail
                    if not is_full:
                        break
                yield
        if inflater is not None:
            self._end(inflater)


class DeflateServerSession(DeflateSession):
    """RFC 7692 §7.1: the server's session, made from an acceptable offer."""

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
            # §7.1.2.2: only a client that offers this parameter may get it.
            self._peer_bits = min(config.request_max_window_bits, offer.client_max_window_bits)

    def generate_response(self) -> OfferedParameters:
        params: dict[str, int | bool] = {}
        if not self._own_takeover:
            params["server_no_context_takeover"] = True
        if not self._peer_takeover:
            params["client_no_context_takeover"] = True
        if self._offer.server_max_window_bits:
            # §7.1.2.1: only for a client that asked. A smaller window than the peer expects
            # is always correct, and some clients fail if they get a parameter unasked.
            params["server_max_window_bits"] = self._own_bits
        if self._peer_bits < MAX_WINDOW_BITS:
            params["client_max_window_bits"] = self._peer_bits
        return params


class DeflateClientSession(DeflateSession):
    """RFC 7692 §7.1: the client's session, which makes an offer and checks the response."""

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
        # §7.1.2.2: always offered, so that the server may ask for a smaller window.
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
        # RFC 7692 §7.1: a server that accepts an offer must accept all of its parameters.
        config = self._config
        server_bits = response.server_max_window_bits or MAX_WINDOW_BITS
        return (
            (response.server_no_context_takeover or not config.request_no_context_takeover)
            and server_bits <= config.request_max_window_bits
            and response.client_max_window_bits <= config.max_window_bits
        )


permessage_deflate = PermessageDeflate()
