"""A way to the server that breaks time and again, and an agent that notices what is done twice.

`python -m tests.support.cutting` runs both for clients in other languages: it prints the port, ends
with its standard input, and prints then how often it has cut and what the agent has noticed.
"""

import argparse
import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from typing import Any

from agentws import Agent, InvocationContext
from agentws.config.settings import Settings
from agentws.daemon.server import Server
from tests.conftest import Address
from tests.support.redis_server import running_redis

BUDGETS = [0, 100, 250, 400, 500, 600, 700, 800, 900, 1_000, 1_500, 3_000, 20_000]
"""How many bytes, both ways together, a connection may carry; a handshake takes some 450."""


class Cutter(Address):
    """Leads connections to servers in turn, and cuts each when it has carried enough."""

    def __init__(self, port: int, servers: Sequence[Address], chance: random.Random) -> None:
        super().__init__(port)
        self.cuts = 0
        self.is_calm = False
        """Whether connections are left alone from now on."""
        self._open: set[asyncio.StreamWriter] = set()
        self._targets = cycle(servers)
        self._chance = chance

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lead a connection until it is cut, or one side ends it."""
        target = next(self._targets)
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", target.port)
        cut = _Cut(self._chance.randrange(self._chance.choice(BUDGETS) + 1))
        ways = [
            asyncio.create_task(self._copy(reader, onward, cut)),
            asyncio.create_task(self._copy(onward_reader, writer, cut)),
        ]
        self._open.add(writer)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(writer)
            for way in ways:
                way.cancel()
            self.cuts += cut.is_made
            for end in (writer, onward):
                if cut.is_made and self._chance.random() < 0.5:
                    _reset(end)
                end.close()

    def cut_all(self) -> None:
        """Cut the connections that there are."""
        for writer in self._open:
            writer.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: "_Cut"
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(64 * 1024):
                if not self.is_calm:
                    data = cut.take(data)
                writer.write(data)
                if cut.is_made:
                    return
                await writer.drain()


class _Cut:
    """Where one connection is cut."""

    def __init__(self, after: int) -> None:
        self.is_made = False
        self._left = after

    def take(self, data: bytes) -> bytes:
        """Return what of the data still gets through."""
        passed, self._left = data[: self._left], self._left - len(data)
        self.is_made = self._left <= 0
        return passed


def _reset(writer: asyncio.StreamWriter) -> None:
    """Have the connection end by a reset, which loses what is on its way."""
    with contextlib.suppress(OSError):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def cutting(servers: Sequence[Address], seed: int) -> AsyncIterator[Cutter]:
    """Listen on a port that leads to the servers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cutter = Cutter(listener.getsockname()[1], servers, random.Random(seed))
        async with await asyncio.start_server(cutter.serve, sock=listener):
            yield cutter


class Witness:
    """An agent that does what it is told, and knows how often.

    Its payload is `{"do": …}`:
    `stream`: `last` chunks, each its own number; `echo`: return `value`;
    `ask`: ask `questions` times, and stream each number and answer; `hear`: stream `inputs` inputs;
    `wait`: for ever.
    """

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.streams = Agent()
        self.streams.invoke_handler(self._stream)
        self.returns = Agent()
        self.returns.invoke_handler(self._return)

    async def _stream(self, payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        self.runs[context.invocation_id] += 1
        match payload:
            case {"do": "stream", "last": last}:
                for number in range(1, last + 1):
                    yield number
                    if number % 7 == 0:
                        await asyncio.sleep(0.001)
            case {"do": "ask", "questions": questions}:
                for number in range(questions):
                    yield [number, await context.ask({"number": number})]
            case {"do": "hear", "inputs": inputs}:
                for _ in range(inputs):
                    yield (await context.receive()).payload
            case {"do": "wait"}:
                await asyncio.Event().wait()

    async def _return(self, payload: Any, context: InvocationContext) -> Any:
        self.runs[context.invocation_id] += 1
        await asyncio.sleep(0.005)
        return payload["value"]

    @property
    def run_twice(self) -> list[str]:
        """The invocations that were run more than once."""
        return [name for name, count in self.runs.items() if count > 1]


@asynccontextmanager
async def _serving(agent: Agent, replicas: int) -> AsyncIterator[list[Address]]:
    async with AsyncExitStack() as stack:
        address = {"host": "127.0.0.1", "port": 0, "shutdown_grace": 0.0}
        sections: dict[str, Any] = {"server": address}
        if replicas > 1:
            sections["store"] = {"url": stack.enter_context(running_redis()).url}
        servers = []
        for _ in range(replicas):
            servers.append(Server(Settings(**sections), agent))
            await servers[-1].start()
            stack.push_async_callback(servers[-1].drain)
        yield [Address(server.port) for server in servers]


async def _main(replicas: int, seed: int, does: str) -> None:
    witness = Witness()
    agent = witness.streams if does == "streams" else witness.returns
    async with _serving(agent, replicas) as servers, cutting(servers, seed) as cutter:
        sys.stdout.write(json.dumps({"port": cutter.port}) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        sys.stdout.write(json.dumps({"cuts": cutter.cuts, "run_twice": witness.run_twice}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--agent", choices=["streams", "returns"], default="streams")
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.replicas, arguments.seed, arguments.agent))
