"""A message that arrives in pieces: in several frames, or in a frame that comes in several reads.

RFC 6455 §5.4 has the fragments of a message; TCP cuts frames wherever it likes. This module
knows neither limits nor extensions: the driver has checked a frame's header and its declared
length before it begins the frame here.

Compiled by Cython, with the types of ``assembly.pxd``.
"""

from __future__ import annotations

from faye_wsgi.driver.masking import mask, mask_pieces
from faye_wsgi.driver.utf8 import Utf8Validator

__all__ = ["LARGE_PIECE", "Assembly"]

LARGE_PIECE = 1024  # bytes

_FIN = 0x80
_TEXT = 0x1


class Assembly:
    """One message, from the header of its first frame on.

    ``first`` is the first byte of that frame. The RSV bits of a message and its opcode are
    those of its first frame (RFC 6455 §5.2, §5.4). ``checks_text``: a text is checked as it
    arrives (RFC 6455 §8.1). What an extension has still to change is not a text yet.
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
        self.stored = 0  # bytes of payload that have arrived
        self.frames = 0
        # The frame that is arriving:
        self.fin = False  # it is the last one of the message
        self.remaining = 0  # bytes of its payload that have not arrived
        self._key = b""  # its masking key, turned to the next byte where text is checked
        self._frame: list[bytes | bytearray] = []  # its pieces
        # The frames before it:
        self._payload: list[bytes | bytearray] = []
        self._validator: Utf8Validator | None = None
        if checks_text and self.opcode == _TEXT:
            self._validator = Utf8Validator()

    def begin_frame(self, first: int, length: int, key: bytes) -> None:
        """Begin a frame of ``length`` bytes of payload; ``key`` is empty if it is not masked."""
        self.frames += 1
        self.fin = first & _FIN != 0
        self.remaining = length
        self._key = key

    def add(self, piece: bytes) -> bool:
        """Take the next bytes of the frame's payload; False if they are not valid UTF-8."""
        self.remaining -= len(piece)
        if self._validator is not None:
            # The first bad byte is found when it arrives, which needs it unmasked.
            piece = self._unmask(piece)
            if not self._validator.accepts(piece, self.fin and not self.remaining):
                return False
        self._store(piece)
        if not self.remaining:
            self._end_frame()
        return True

    def payload(self) -> bytes:
        """The whole payload, when the last frame has arrived."""
        return b"".join(self._payload)

    def _unmask(self, piece: bytes) -> bytes:
        if not self._key:
            return piece
        turn = len(piece) & 3
        piece, key = mask(piece, self._key), self._key
        self._key = key[turn:] + key[:turn]
        return piece

    def _store(self, piece: bytes) -> None:
        # A list of small bytes objects takes far more memory than their bytes: a peer that
        # sends byte by byte must not multiply what it is allowed. So small pieces go into one
        # bytearray. A large piece is kept as it came, to be copied only once, at the end.
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
