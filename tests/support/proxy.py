"""Proxies: one that gives connections to servers in turn, as gateways do; one that can move."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from ssl import SSLContext

from tests.conftest import Address


@asynccontextmanager
async def round_robin(servers: Sequence[Address]) -> AsyncIterator[Address]:
    """Listen on a port; each new connection goes to the next server."""
    targets = cycle(servers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _connect(reader, writer, next(targets))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with proxy:
        yield Address(proxy.sockets[0].getsockname()[1])


class Front:
    """An address whose connections lead, from their beginning to their end, to one server."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.port = 0
        self.opened = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lead a new connection to the target of the moment."""
        self.opened += 1
        await _connect(reader, writer, self.target)


@asynccontextmanager
async def fronted(target: Address, *, ssl: SSLContext | None = None) -> AsyncIterator[Front]:
    """Listen on a port, over TLS if need be, for a target that may be changed."""
    front = Front(target)
    proxy = await asyncio.start_server(front.serve, "127.0.0.1", 0, ssl=ssl)
    front.port = proxy.sockets[0].getsockname()[1]
    async with proxy:
        yield front


async def _connect(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Address
) -> None:
    try:
        onward = await asyncio.open_connection("127.0.0.1", target.port)
    except OSError:
        writer.transport.abort()
        return
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


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
