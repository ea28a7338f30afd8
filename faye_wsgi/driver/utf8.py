"""UTF-8 checked as bytes arrive, RFC 6455 §8.1.

The interpreter's own decoder is C already, so there is no second one here.
"""

from __future__ import annotations

import codecs

from faye_wsgi.driver.masking import Buffer

__all__ = ["Utf8Validator"]

_Decoder = codecs.getincrementaldecoder("utf-8")


class Utf8Validator:
    """Takes a text in pieces and tells of the first byte that cannot belong to one."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = _Decoder()

    def accepts(self, piece: Buffer, final: bool = False) -> bool:
        """Take the next piece; False once the text is no UTF-8 (or, if final, is cut off)."""
        decoder = self._decoder
        try:
            decoder.decode(piece, final)
        except UnicodeDecodeError:
            return False
        # The decoder keeps the start of a surrogate (ED A0…BF) waiting for its third
        # byte, though the second one already condemns it.
        pending = decoder.getstate()[0]
        return not (len(pending) > 1 and pending[0] == 0xED and pending[1] >= 0xA0)
