"""A dropped connection costs nothing: streams survive cuts at any byte."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Address, Serve
from tests.support.proxy import round_robin
from tests.support.redis_server import RedisServer
from tests.support.resumer import CHUNKS, Resumer

STREAMS = 150
SEEDS = [1, 2, 3]


def streaming() -> Agent:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: int, context: InvocationContext) -> AsyncGenerator[Any, None]:
        chance = random.Random(context.invocation_id)
        for number in range(1, payload + 1):
            yield {"number": number}
            if chance.random() < 0.2:
                await asyncio.sleep(0)

    return agent


@pytest.fixture(params=["one server", "two servers on one Redis"])
async def address(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[Address]:
    """Serve the agent behind one address, by one server or by two that take turns."""
    if request.param == "one server":
        yield await serve(streaming())
        return
    store = {"url": request.getfixturevalue("redis").url}
    servers = [await serve(streaming(), store=store) for _ in range(2)]
    async with round_robin(servers) as proxy:
        yield proxy


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_chunk_is_lost_repeated_or_reordered_wherever_the_socket_is_cut(
    address: Address, seed: int
) -> None:
    assert await follow_all(address, seed, STREAMS) > 3 * STREAMS


async def test_no_chunk_is_lost_repeated_or_reordered_while_redis_comes_and_goes(
    own_redis: RedisServer, serve: Serve
) -> None:
    async def ill_treat() -> None:
        while True:
            await asyncio.sleep(0.1)
            own_redis.client.client_kill_filter(skipme=True)
            await asyncio.sleep(0.1)
            own_redis.pause()
            await asyncio.sleep(0.2)
            own_redis.resume()

    store = {"url": own_redis.url}
    servers = [await serve(streaming(), store=store) for _ in range(2)]
    async with round_robin(servers) as proxy:
        trouble = asyncio.create_task(ill_treat())
        try:
            await follow_all(proxy, 4, STREAMS, may_be_withdrawn=True)
        finally:
            trouble.cancel()
            await asyncio.wait({trouble})
            own_redis.resume()


async def follow_all(address: Address, seed: int, count: int, **options: bool) -> int:
    """Follow streams to their ends, check what arrived, and return how often they were cut."""
    chance = random.Random(seed)
    clients = [
        Resumer(address, f"stream-{seed}-{index}", random.Random(chance.random()), **options)
        for index in range(count)
    ]
    ends: list[str] = []
    for start in range(0, count, 25):
        ends += await asyncio.gather(*(client.follow() for client in clients[start : start + 25]))
    assert set(ends) == {"stream_end"}
    for client in clients:
        assert client.numbers == list(range(1, CHUNKS + 1))
    return sum(client.cuts for client in clients)
