"""An echo as a bare ASGI application, for uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Callable

Event = dict[str, Any]


async def application(
    scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
) -> None:
    if scope["type"] != "websocket":
        return
    while True:
        event = await receive()
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif event["type"] == "websocket.disconnect":
            return
        else:
            await send({**event, "type": "websocket.send"})
