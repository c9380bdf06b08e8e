"""What the client in Python can take, with the daemon on another core."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from agentws.client import Client, Run, connect
from bench.contenders import Server
from bench.loops import run

_IN_FLIGHT: Final = 50
_AWAY: Final = 1.0
"""Seconds without a socket, in which the runs that are resumed have come to their ends."""


def chunks(server: Server, count: int) -> float:
    """Return how many chunks of one stream, of so many, a reader gets in a second."""
    return run(_chunks(server, count))


def invokes(server: Server, count: int) -> float:
    """Return how many results a second are awaited, many at a time on one socket."""
    return run(_invokes(server, count))


def resume(server: Server, count: int) -> float:
    """Return the seconds from the opening of a socket to what so many runs had missed."""
    return run(_resume(server, count))


def seconds_to_import(times: int) -> float:
    """Return by how much longer an interpreter takes that imports the client."""
    pairs = [(_start("import agentws.client"), _start("pass")) for _ in range(times)]
    return min(imported for imported, _ in pairs) - min(idle for _, idle in pairs)


def _start(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


async def _chunks(server: Server, length: int) -> float:
    async with connect(f"http://127.0.0.1:{server.port}") as client:
        await client.invoke({"chunks": 1})
        began = time.perf_counter()
        count = 0
        async for _ in client.invoke({"chunks": length}):
            count += 1
        return count / (time.perf_counter() - began)


async def _invokes(server: Server, count: int) -> float:
    in_turn = max(count // _IN_FLIGHT, 1)
    async with connect(f"http://127.0.0.1:{server.port}") as client:
        await client.invoke(1)
        began = time.perf_counter()
        await asyncio.gather(*(_invoke_in_turn(client, in_turn) for _ in range(_IN_FLIGHT)))
        return in_turn * _IN_FLIGHT / (time.perf_counter() - began)


async def _invoke_in_turn(client: Client, times: int) -> None:
    for _ in range(times):
        await client.invoke({"message": "Hello, agent"})


async def _resume(server: Server, count: int) -> float:
    async with (
        _front(server.port) as front,
        connect(f"http://127.0.0.1:{front.port}", max_retry_delay=0.05) as client,
    ):
        turned_at: list[float] = []
        client.on_state(lambda _: turned_at.append(time.perf_counter()))
        runs = [client.invoke(_AWAY / 2) for _ in range(count)]
        readings = [aiter(run) for run in runs]
        for reading in readings:
            await anext(reading)
        await front.be_away(_AWAY)
        await asyncio.gather(*(_read_to_end(run) for run in runs))
        return time.perf_counter() - turned_at[-1]  # when it was open again


async def _read_to_end(run: Run) -> None:
    async for _ in run:
        pass


class _Front:
    """Leads connections to the daemon, until it cuts them all."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._is_away = False
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lead one connection."""
        if self._is_away:
            writer.transport.abort()
            return
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, onward}
        await asyncio.gather(_copy(reader, onward), _copy(onward_reader, writer))

    async def be_away(self, seconds: float) -> None:
        """Cut all connections, and let nobody in for a while."""
        self._is_away = True
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()
        await asyncio.sleep(seconds)
        self._is_away = False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def _front(target: int) -> AsyncIterator[_Front]:
    front = _Front(target)
    server = await asyncio.start_server(front.serve, "127.0.0.1", 0)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
