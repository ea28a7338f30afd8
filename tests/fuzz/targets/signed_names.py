"""Signed names of channels: none but those that were signed is accepted.

The input says how a signed name is changed: groups of three bytes (what, where, a letter). Without
a change it is accepted.
"""

from __future__ import annotations

from ..packages import PURE

SECRET = b"a secret of the server"
NOW = 1_700_000_000.0
NAMES = ("news", "a:b", "caf\u00e9?", ":", "room:1700000100")
LETTERS = ":?=_-\ud800\u00e9\0 0"


def check(data: bytes) -> None:
    if not data:
        return
    signing = PURE("delivery.signing")
    name = NAMES[data[0] % len(NAMES)]
    signed = signing.sign(SECRET, name, 60 if data[0] & 128 else None, NOW)
    changed = change(signed, data[1:])
    now = NOW + 61 * (data[0] & 64 > 0)
    try:
        found = signing.verify(SECRET, changed, now)
    except ValueError:
        assert changed != signed or (now > NOW and data[0] & 128)
        return
    assert now == NOW or not data[0] & 128, "it is too old"
    assert changed == signed and found == name, "it is accepted, and was not signed"


def change(text: str, script: bytes) -> str:
    for what, where, which in zip(script[0::3], script[1::3], script[2::3]):
        at = where % (len(text) + 1)
        letter = LETTERS[which] if which < len(LETTERS) else chr(which)
        if what % 3 == 0:
            text = text[:at] + letter + text[at:]
        elif what % 3 == 1:
            text = text[:at] + letter + text[at + 1 :]
        else:
            text = text[:at] + text[at + 1 :]
    return text
