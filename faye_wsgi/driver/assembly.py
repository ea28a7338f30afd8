"""RFC 6455 §5.4: a message that arrives in pieces, and is put together here.

It may have several frames, and a frame may take several reads, for TCP cuts it anywhere. This
module knows neither limits nor extensions: the driver has checked a frame's header and its
declared length before it calls ``begin_frame``.

Compiled by Cython, with the types of ``assembly.pxd``.
"""

from __future__ import annotations

from faye_wsgi.driver.masking import mask, mask_pieces
from faye_wsgi.driver.utf8 import Utf8Validator

__all__ = ["Assembly"]

LARGE_PIECE = 1024  # bytes

_FIN = 0x80
_TEXT = 0x1


class Assembly:
    """One message, from the header of its first frame on.

    RFC 6455 §5.2, §5.4: the first byte of that frame, ``first``, has the opcode and the RSV
    bits of the message. RFC 6455 §8.1: with ``checks_text`` a text is checked as it arrives.
    That is not possible with extensions, which change the payload first.
    """

    __slots__ = (
        "_frame",
        "_key",
        "_payload",
        "_validator",
        "fin",
        "first",
        "frames",
        "opcode",
        "remaining",
        "stored",
    )

    def __init__(self, first: int, checks_text: bool) -> None:
        self.first = first
        self.opcode = first & 15
        self.stored = 0  # Bytes of payload that have arrived.
        self.frames = 0
        # The frame that is arriving:
        self.fin = False  # It is the last frame of the message.
        self.remaining = 0  # Bytes of its payload that are still to come.
        self._key = b""  # Its masking key, rotated to the next byte where text is checked.
        self._frame: list[bytes | bytearray] = []  # Its pieces.
        # The frames before it:
        self._payload: list[bytes | bytearray] = []
        self._validator: Utf8Validator | None = None
        if checks_text and self.opcode == _TEXT:
            self._validator = Utf8Validator()

    def begin_frame(self, first: int, length: int, key: bytes) -> None:
        """Begin a frame with ``length`` bytes of payload. ``key`` is b'' if it is not masked."""
        self.frames += 1
        self.fin = first & _FIN != 0
        self.remaining = length
        self._key = key

    def add(self, piece: bytes) -> bool:
        """Take the next bytes of the frame's payload; False if they are not valid UTF-8."""
        self.remaining -= len(piece)
        if self._validator is not None:
            # RFC 6455 §8.1: the first bad byte is found when it arrives, so unmask it now.
            piece = self._unmask(piece)
            if not self._validator.accepts(piece, self.fin and not self.remaining):
                return False
        self._store(piece)
        if not self.remaining:
            self._end_frame()
        return True

    def payload(self) -> bytes:
        """The payload of all frames, after the last one."""
        return b"".join(self._payload)

    def _unmask(self, piece: bytes) -> bytes:
        if not self._key:
            return piece
        turn = len(piece) & 3
        piece, key = mask(piece, self._key), self._key
        self._key = key[turn:] + key[:turn]
        return piece

    def _store(self, piece: bytes) -> None:
        # A bytes object takes 33 bytes more than it holds. A peer that sends byte by byte would
        # exceed max_length many times in memory, so small pieces go into one bytearray. A large
        # piece is kept as it came, and copied only once, at the end.
        self.stored += len(piece)
        if len(piece) >= LARGE_PIECE:
            self._frame.append(piece)
        elif not piece:
            pass
        elif self._frame and isinstance(self._frame[-1], bytearray):
            self._frame[-1] += piece
        else:
            self._frame.append(bytearray(piece))

    def _end_frame(self) -> None:
        frame, self._frame = self._frame, []
        if self._key and self._validator is None:
            self._payload.append(mask_pieces(frame, self._key))
        else:
            self._payload += frame
