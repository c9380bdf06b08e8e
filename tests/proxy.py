"""A proxy that gives connections to servers in turn, as gateways do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle

from tests.conftest import Address


@asynccontextmanager
async def round_robin(servers: Sequence[Address]) -> AsyncIterator[Address]:
    """Listen on a port; each new connection goes to the next server."""
    targets = cycle(servers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", next(targets).port)
        ways = [
            asyncio.create_task(_copy(reader, onward[1])),
            asyncio.create_task(_copy(onward[0], writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:  # one side has ended, so the other does
            for way in ways:
                way.cancel()
            writer.close()
            onward[1].transport.abort()

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with proxy:
        yield Address(proxy.sockets[0].getsockname()[1])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
