"""Other libraries' clients: python peer.py LIBRARY PORT WINDOW SIZE SECONDS."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from meter import Meter

meter = Meter()


def websocket_client() -> None:
    import websocket

    ws = websocket.create_connection(meter.url, skip_utf8_validation=False)
    for _ in range(meter.window):
        ws.send(meter.message)
    while ws.recv() and meter.goes_on():
        ws.send(meter.message)


def websockets_sync() -> None:
    from websockets.sync.client import connect

    with connect(meter.url, compression=None, ping_interval=None, max_size=None) as ws:
        for _ in range(meter.window):
            ws.send(meter.message)
        while ws.recv() and meter.goes_on():
            ws.send(meter.message)


async def websockets_asyncio() -> None:
    from websockets.asyncio.client import connect

    async with connect(meter.url, compression=None, ping_interval=None, max_size=None) as ws:
        for _ in range(meter.window):
            await ws.send(meter.message)
        while await ws.recv() and meter.goes_on():
            await ws.send(meter.message)


async def aiohttp() -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.ws_connect(meter.url) as ws:
        for _ in range(meter.window):
            await ws.send_str(meter.message)
        while await ws.receive_str() and meter.goes_on():
            await ws.send_str(meter.message)


async def picows() -> None:
    from picows import WSListener, WSMsgType, ws_connect

    message = meter.message.encode()

    class Echo(WSListener):  # type: ignore[misc,unused-ignore]
        def on_ws_connected(self, transport: Any) -> None:
            for _ in range(meter.window):
                transport.send(WSMsgType.TEXT, message)

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            frame.get_payload_as_utf8_text()
            if meter.goes_on():
                transport.send(WSMsgType.TEXT, message)
            else:
                transport.disconnect()

    transport, _ = await ws_connect(Echo, meter.url)
    await transport.wait_disconnected()


RUN = {
    "websocket-client": websocket_client,
    "websockets-sync": websockets_sync,
    "websockets-asyncio": lambda: asyncio.run(websockets_asyncio()),
    "aiohttp": lambda: asyncio.run(aiohttp()),
    "picows": lambda: asyncio.run(picows()),
}
RUN[sys.argv[1]]()
