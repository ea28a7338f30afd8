"""What clients send to the endpoint of channels.

The first byte chooses between text and bytes; the others are the message.
"""

from __future__ import annotations

import json
from typing import Any

from ..packages import PURE

MAX_CHANNELS = 5


def check(data: bytes) -> None:
    if not data:
        return
    protocol = PURE("gateway.protocol")
    message: Any = data[1:]
    if data[0] & 1:
        message = message.decode("utf-8", "replace")
    try:
        command = protocol.parse(message, MAX_CHANNELS)
    except protocol.Refusal as refusal:
        answer = protocol.encode(refusal.answer)
        assert len(answer) < 2000, "a small answer, whatever was asked"
        assert json.loads(answer)["error"] == refusal.code
        return
    assert len(command.channels) <= MAX_CHANNELS
    assert len(command.channels) == 1 or command.is_list or command.action == "ping"
    assert command.last >= 0 and (command.limit is None or command.limit >= 0)
    assert sum(map(len, command.tokens)) <= protocol.MAX_TOKENS * MAX_CHANNELS
    answer = protocol.encode({"ref": command.ref, "channels": command.channels})
    assert json.loads(answer, parse_constant=refuse)["ref"] == command.ref
    json.dumps(command.data)


def refuse(constant: str) -> None:
    raise AssertionError(f"JSON has no {constant}")
