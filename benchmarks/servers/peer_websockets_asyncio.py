"""The echo of websockets, with asyncio; compression and pings off, as in the others."""
from __future__ import annotations

import asyncio
import sys
from typing import Any

from websockets.asyncio.server import serve


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


async def main(port: int) -> None:
    async with serve(echo, '127.0.0.1', port, compression=None, ping_interval=None,
                     max_size=None, backlog=2048) as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
