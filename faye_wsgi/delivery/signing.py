"""Signed names of channels, which a page may subscribe to without being asked again."""

from __future__ import annotations

import base64
import hmac
import time

__all__ = ["sign", "verify"]


def sign(secret: bytes, channel: str, ttl: float | None, now: float | None = None) -> str:
    """``CHANNEL:END:SIGNATURE``; END is a time in seconds since 1970, or empty."""
    end = "" if ttl is None else str(int((time.time() if now is None else now) + ttl))
    return f"{channel}:{end}:{_signature(secret, channel, end)}"


def verify(secret: bytes, signed: str, now: float | None = None) -> str:
    """The channel of a signed name; ValueError if it is forged or too old."""
    rest, _, signature = signed.rpartition(":")
    channel, _, end = rest.rpartition(":")
    expected = _signature(secret, channel, end)
    if not hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), expected.encode()):
        raise ValueError("the signature of this channel's name is not ours")
    if end and int(end) < (time.time() if now is None else now):
        raise ValueError("the signature of this channel's name is too old")
    return channel


def _signature(secret: bytes, channel: str, end: str) -> str:
    # "replace" would make a question mark of half a surrogate pair: two names, one signature.
    text = f"faye_wsgi.channels:{end}:{channel}".encode("utf-8", "surrogatepass")
    digest = hmac.new(secret, text, "sha256").digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
