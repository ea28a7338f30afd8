"""picows's echo, and its broadcast: a listener in Cython, on asyncio."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from picows import WSListener, WSMsgType, ws_create_server


class Echo(WSListener):  # type: ignore[misc,unused-ignore]
    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Broadcast(WSListener):  # type: ignore[misc,unused-ignore]
    everybody: set[Any] = set()

    def on_ws_connected(self, transport: Any) -> None:
        self.everybody.add(transport)

    def on_ws_disconnected(self, transport: Any) -> None:
        self.everybody.discard(transport)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
            return
        payload = frame.get_payload_as_bytes()
        for one in self.everybody:
            one.send(frame.msg_type, payload)


def listener(request: Any) -> Any:
    return Broadcast() if request.path == b"/broadcast" else Echo()


async def main(port: int) -> None:
    server = await ws_create_server(listener, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
