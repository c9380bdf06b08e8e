"""Several servers on one Redis, and an agent that says what a test tells it to say."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from agentws import Agent, InvocationContext
from tests.conftest import PATIENCE, Client, Frame, Running, Serve
from tests.support.redis_server import RedisServer

LEASE = 1.0
"""Seconds, for tests of what becomes of leases; on a busy machine, a replica may sleep past it."""
SOON = 3.0
"""Seconds within which whatever needs Redis is answered, with or without it."""


class Stage:
    """An agent that says what the test tells it to say, and remembers how it ended."""

    END = object()

    def __init__(self) -> None:
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)
        self.lines: dict[str, asyncio.Queue[Any]] = {}
        self.interrupted: dict[str, asyncio.Event] = {}

    async def invoke(self, payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        """Say what is told, until the end."""
        lines = self.of(context.invocation_id)
        try:
            while (line := await lines.get()) is not self.END:
                yield line
        except asyncio.CancelledError:
            self.interrupted[context.invocation_id].set()
            raise

    def of(self, invocation_id: str) -> asyncio.Queue[Any]:
        """Return what one invocation is to say."""
        self.interrupted.setdefault(invocation_id, asyncio.Event())
        return self.lines.setdefault(invocation_id, asyncio.Queue())

    def say(self, invocation_id: str, *lines: Any) -> None:
        """Have an invocation say something."""
        for line in lines:
            self.of(invocation_id).put_nowait(line)

    async def is_interrupted(self, invocation_id: str, patience: float = PATIENCE) -> None:
        """Wait until an invocation is cancelled."""
        async with asyncio.timeout(patience):
            await self.interrupted[invocation_id].wait()


@pytest.fixture
def stage() -> Stage:
    return Stage()


class Pair:
    """Two servers, one of which will run what the test invokes, and a client of each."""

    def __init__(self, owner: Running, other: Running) -> None:
        self.owner = owner
        self.other = other


ServePair = Callable[..., Awaitable[Pair]]


@pytest.fixture
def serve_pair(serve: Serve, stage: Stage) -> ServePair:
    """Start two servers on one Redis, with leases that outlast whatever keeps a machine busy."""

    async def start(
        redis: RedisServer, agent: Agent = stage.agent, lease: float = 15.0, **sections: Any
    ) -> Pair:
        store = {"url": redis.url, "lease": lease}
        first, second = [await serve(agent, store=store, **sections) for _ in range(2)]
        return Pair(first, second)

    return start


ServeAgent = Callable[..., Awaitable[Pair]]


@pytest.fixture(params=["one", "two"])
def serve_wherever(
    request: pytest.FixtureRequest, serve: Serve, serve_pair: ServePair
) -> ServeAgent:
    """Start an agent on one server, which is both of a pair, or on two that share a Redis."""

    async def start(agent: Agent, **sections: Any) -> Pair:
        if request.param == "one":
            server = await serve(agent, **sections)
            return Pair(server, server)
        return await serve_pair(request.getfixturevalue("redis"), agent, **sections)

    return start


async def chunks(client: Client, count: int) -> list[Any]:
    """Return the payloads of the next chunks, which must be numbered without a gap."""
    frames = [await client.receive() for _ in range(count)]
    assert {frame["type"] for frame in frames} <= {"stream_chunk"}, frames
    first = frames[0]["sequence_number"] if frames else 0
    assert [frame["sequence_number"] for frame in frames] == list(range(first, first + count))
    return [frame["payload"] for frame in frames]


async def replay(server: Running, count: int) -> list[Any]:
    """Attach to `i` on a new socket, and return the payloads of the first chunks."""
    async with server.connect() as client:
        await client.send(action="attach_invocation", invocation_id="i")
        return await chunks(client, count)


async def begin(client: Client, stage: Stage, *lines: Any, **fields: Any) -> None:
    """Invoke as `i`, and see the first lines arrive."""
    stage.say("i", *lines)
    await client.send(action="invoke", invocation_id="i", **fields)
    assert await chunks(client, len(lines)) == list(lines)


async def run_to_end(client: Client, stage: Stage, *lines: Any, **fields: Any) -> None:
    """Invoke as `i`, and see it end after these lines."""
    await begin(client, stage, *lines, **fields)
    stage.say("i", Stage.END)
    await client.until(type="stream_end")


async def get(server: Running, invocation_id: str = "i") -> tuple[int, Frame]:
    """Poll over HTTP; return status and body."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.http}/invocations/{invocation_id}") as response,
    ):
        return response.status, await response.json()


async def readiness(server: Running) -> str:
    return str((await probed(server))["status"])


async def probed(server: Running) -> Frame:
    """Return what a server says of its readiness."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.http}/readiness") as response,
    ):
        body: Frame = await response.json()
        return body


async def becomes(server: Running, status: str) -> None:
    """Wait until a server tells of its readiness; nothing announces the change."""
    async with asyncio.timeout(PATIENCE):
        while await readiness(server) != status:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)
