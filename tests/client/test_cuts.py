"""Cut off at random, time and again: nothing is lost, repeated, reordered or done twice."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentws import Agent
from agentws.client import Cancelled, Chunk, Client, Question, connect
from tests.conftest import Serve
from tests.support.cutting import Cutter, Witness, cutting
from tests.support.redis_server import RedisServer

CUTS = 2_500
"""How often each test has the connections cut; there are four."""

WORKERS = 25
"""How many clients there are at a time."""

LONGEST = 60.0
"""Seconds within which whatever a client began has ended."""

Task = Callable[[Client, random.Random], Awaitable[None]]


async def read_a_stream(client: Client, chance: random.Random) -> None:
    last = chance.randint(0, 60)
    run = client.invoke({"do": "stream", "last": last})
    numbers = [event.number async for event in run.events() if isinstance(event, Chunk)]
    assert numbers == list(range(1, last + 1))


async def await_a_stream(client: Client, chance: random.Random) -> None:
    last = chance.randint(0, 60)
    run = client.invoke({"do": "stream", "last": last})
    assert await run == list(range(1, last + 1))
    assert run.cursor == last


async def read_slowly_and_several(client: Client, chance: random.Random) -> None:
    runs = [client.invoke({"do": "stream", "last": 40}) for _ in range(4)]
    for run in runs:
        assert [chunk async for chunk in run] == list(range(1, 41))


async def attach_to_what_runs(client: Client, chance: random.Random) -> None:
    background = client.invoke({"do": "stream", "last": 50}, background=True)
    await background
    after = chance.randint(0, 50)
    assert await client.attach(background.id, after=after) == list(range(after + 1, 51))


async def answer_questions(client: Client, chance: random.Random) -> None:
    run = client.invoke({"do": "ask", "questions": 3})
    asked, answers = [], []
    async for event in run.events():
        if isinstance(event, Question):
            asked.append(event.payload["number"])
            await event.answer(f"answer {len(asked)}")
        elif isinstance(event, Chunk):
            answers.append(event.payload)
    assert asked == [0, 1, 2]
    assert answers == [[number, f"answer {number + 1}"] for number in range(3)]


async def say_things(client: Client, chance: random.Random) -> None:
    run = client.invoke({"do": "hear", "inputs": 4})
    for number in range(4):
        await run.send(number)
    assert await run == [0, 1, 2, 3]


async def cancel_what_waits(client: Client, chance: random.Random) -> None:
    run = client.invoke({"do": "wait"})
    await run.cancel()
    with pytest.raises(Cancelled) as failure:
        await run
    assert failure.value.reason == "client"


STREAMING: list[Task] = [
    read_a_stream,
    await_a_stream,
    read_slowly_and_several,
    attach_to_what_runs,
    answer_questions,
    say_things,
    cancel_what_waits,
]


async def await_results(client: Client, chance: random.Random) -> None:
    values = [chance.random() for _ in range(5)]
    runs = [client.invoke({"value": value}, session_id="s") for value in values]
    assert [await run for run in runs] == values


async def ask_for_records(client: Client, chance: random.Random) -> None:
    run = client.invoke({"value": 1})
    assert await run == 1
    assert (await client.get(run.id))["result"] == 1


RETURNING: list[Task] = [await_results, ask_for_records]


async def work(cutter: Cutter, seed: int, tasks: list[Task], goes_on: Callable[[], bool]) -> None:
    """Do one thing after another with one client."""
    chance = random.Random(seed)
    async with connect(cutter.http, max_retry_delay=0.02, max_queue=16) as client:
        while goes_on():
            async with asyncio.timeout(LONGEST):
                await chance.choice(tasks)(client, chance)


@asynccontextmanager
async def cut_off(
    serve: Serve, agent: Agent, redis: RedisServer | None, seed: int
) -> AsyncIterator[Cutter]:
    """Serve an agent, by one server or by two that share a Redis, behind a cutter.

    Sockets that are not cut, are left for new ones soon.
    """
    sections: dict[str, Any] = {"websocket": {"max_connection_age": 2}}
    if redis is not None:
        sections["store"] = {"url": redis.url}
    servers = [await serve(agent, **sections) for _ in range(1 if redis is None else 2)]
    async with cutting(servers, seed) as cutter:
        yield cutter


async def be_cut_off(cutter: Cutter, tasks: list[Task], goes_on: Callable[[], bool]) -> None:
    """Have clients at work until it is enough, and let them end in peace."""
    async with asyncio.TaskGroup() as group:
        for seed in range(WORKERS):
            group.create_task(work(cutter, seed, tasks, goes_on))


@pytest.fixture(params=["one server", "two servers on one Redis"])
def replicas(request: pytest.FixtureRequest) -> RedisServer | None:
    """Return the Redis that servers share, None for one server alone."""
    if request.param == "one server":
        return None
    redis: RedisServer = request.getfixturevalue("redis")
    return redis


@pytest.mark.parametrize("tasks", [STREAMING, RETURNING], ids=["streaming", "returning"])
async def test_thousands_of_cuts_cost_nothing(
    serve: Serve, replicas: RedisServer | None, tasks: list[Task]
) -> None:
    witness = Witness()
    agent = witness.streams if tasks is STREAMING else witness.returns
    async with cut_off(serve, agent, replicas, seed=1) as cutter:
        await be_cut_off(cutter, tasks, lambda: cutter.cuts < CUTS)
        assert cutter.cuts >= CUTS
    assert len(witness.runs) > 100
    assert witness.run_twice == []


@pytest.mark.soak
@pytest.mark.parametrize("tasks", [STREAMING, RETURNING], ids=["streaming", "returning"])
async def test_any_number_of_cuts_costs_nothing(
    serve: Serve, replicas: RedisServer | None, tasks: list[Task], soak_seconds: float
) -> None:
    witness, until = Witness(), time.monotonic() + soak_seconds / 4
    agent = witness.streams if tasks is STREAMING else witness.returns
    seed = random.randrange(2**32)
    async with cut_off(serve, agent, replicas, seed) as cutter:
        await be_cut_off(cutter, tasks, lambda: time.monotonic() < until)
    assert witness.run_twice == []
    print(f"seed {seed}: {cutter.cuts} cuts, {len(witness.runs)} invocations")  # noqa: T201
