"""The echo of websockets, with asyncio; pings off, and compression unless asked for."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from websockets.asyncio.server import serve

COMPRESSION = "deflate" if sys.argv[2:] == ["deflate"] else None


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


async def main(port: int) -> None:
    async with serve(
        echo,
        "127.0.0.1",
        port,
        compression=COMPRESSION,
        ping_interval=None,
        max_size=None,
        backlog=2048,
    ) as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
