"""RFC 6455 §8.1: UTF-8, checked as bytes arrive.

The interpreter's own decoder is written in C already, so there is no second one here.
"""

from __future__ import annotations

from codecs import utf_8_decode

from faye_wsgi.driver.masking import Buffer

__all__ = ["Utf8Validator"]


class Utf8Validator:
    """Checks a text in pieces, and finds the first byte that is wrong."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""  # the start of a character whose other bytes have not arrived

    def accepts(self, piece: Buffer, final: bool = False) -> bool:
        """Take the next piece; False if the text is not valid UTF-8.

        With ``final``, a text that ends inside a character is not valid either.
        """
        if self._pending:
            piece = self._pending + piece
        try:
            _, used = utf_8_decode(piece, "strict", final)
        except UnicodeDecodeError:
            return False
        self._pending = pending = bytes(piece[used:])
        # The decoder lets the start of a surrogate (ED A0 to ED BF) wait for a third byte,
        # but the second byte is wrong already.
        return not (len(pending) > 1 and pending[0] == 0xED and pending[1] >= 0xA0)
