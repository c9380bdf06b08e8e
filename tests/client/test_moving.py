"""Servers that ask their clients to leave: nobody waits, and nothing comes twice."""

import asyncio
from collections.abc import AsyncGenerator

from agentws import InvocationContext
from tests.client.conftest import Connect
from tests.conftest import PATIENCE, Address, Serve
from tests.support.agents import agent_of
from tests.support.proxy import fronted, round_robin
from tests.support.redis_server import RedisServer


async def tick(payload: int, context: InvocationContext) -> AsyncGenerator[int, None]:
    """Stream numbers, one in 10 ms."""
    for number in range(1, payload + 1):
        yield number
        await asyncio.sleep(0.01)


async def test_sockets_that_grow_old_are_left_before_they_are_closed(
    serve: Serve, connect_to: Connect
) -> None:
    server = await serve(agent_of(tick), websocket={"max_connection_age": 2})
    states: list[str] = []
    async with fronted(server) as front, connect_to(Address(front.port)) as client:
        client.on_state(states.append)
        assert await client.invoke(400) == list(range(1, 401))
        assert front.opened > 2
    assert states == ["open", "closed"]


async def test_a_drain_moves_runs_to_another_replica(
    redis: RedisServer, serve: Serve, connect_to: Connect
) -> None:
    store = {"url": redis.url}
    owner, other = [
        await serve(agent_of(tick), store=store, server={"shutdown_grace": PATIENCE})
        for _ in range(2)
    ]
    states: list[str] = []
    async with round_robin([owner, other]) as address, connect_to(address) as client:
        client.on_state(states.append)
        run = client.invoke(300)
        reading = aiter(run)
        assert await anext(reading) == 1
        async with owner.draining():
            rest = [number async for number in reading]
            assert await client.invoke(1) == [1]  # by the other one
    assert rest == list(range(2, 301))
    assert states == ["open", "closed"]


async def test_the_only_replica_is_used_to_its_end(serve: Serve, connect_to: Connect) -> None:
    server = await serve(agent_of(tick), server={"shutdown_grace": PATIENCE})
    states: list[str] = []
    async with connect_to(server, give_up_after=0.1) as client:
        client.on_state(states.append)
        reading = aiter(client.invoke(100))
        assert await anext(reading) == 1
        async with server.draining():
            rest = [number async for number in reading]
    assert rest == list(range(2, 101))
    assert states[0] == "open"
