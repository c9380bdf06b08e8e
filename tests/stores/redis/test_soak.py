"""Clients that are cut off at random, while their Redis fails over, forgets and refuses in turn."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Address, Frame, Serve
from tests.support.primary import Primary
from tests.support.proxy import round_robin
from tests.support.resumer import CHUNKS, Resumer

pytestmark = pytest.mark.soak

AT_A_TIME = 20
"""How many streams are followed at the same time."""

LONGEST = 60.0
"""Seconds within which a stream has ended, whatever happens to Redis."""

LEASE = 3.0


class Storyteller:
    """An agent that streams for a second or so, and knows which streams it has told to the end."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)

    async def invoke(
        self, payload: int, context: InvocationContext
    ) -> AsyncGenerator[dict[str, int], None]:
        """Count, at an uneven pace."""
        chance = random.Random(context.invocation_id)
        for number in range(1, payload + 1):
            yield {"number": number}
            await asyncio.sleep(chance.choice([0, 0, 0.005, 0.03]))
        self.told[context.invocation_id] += 1


class Listener(Resumer):
    """One that also bears with a Redis that comes and goes, as the protocol tells clients to."""

    def take(self, frame: Frame) -> str | None:
        """Begin anew where nothing has begun, and try again where the store was away."""
        if frame["type"] != "error":
            return super().take(frame)
        code = frame["error"]["code"]
        if code == "store_unavailable" or (code == "not_found" and not self.numbers):
            self.is_known = bool(self.numbers)
            return None
        if code == "already_exists":
            return super().take(frame)
        return str(code)


async def fail_over(primary: Primary) -> None:
    primary.fail_over()
    await primary.in_step()


async def forget(primary: Primary) -> None:
    """Crash, and come back with what was saved a moment ago."""
    primary.old.client.save()
    await asyncio.sleep(0.5)
    primary.old.stop()
    await asyncio.sleep(0.2)
    primary.old.start()


async def refuse(primary: Primary) -> None:
    primary.old.client.config_set("maxmemory", "1")
    await asyncio.sleep(0.5)
    primary.old.client.config_set("maxmemory", "0")


Trouble = Callable[[Primary], Coroutine[Any, Any, None]]
TROUBLES: list[Trouble] = [fail_over, forget, refuse]


async def ill_treat(primary: Primary) -> None:
    """Make one kind of trouble after another."""
    while True:
        for trouble in TROUBLES:
            await asyncio.sleep(1.5 * LEASE)
            await trouble(primary)


async def follow_one_after_another(
    address: Address, seed: int, until: float
) -> list[tuple[Listener, str]]:
    """Follow streams to their ends, as many as there is time for; return how each ended."""
    chance = random.Random(seed)
    ends: list[tuple[Listener, str]] = []
    while time.monotonic() < until:
        listener = Listener(address, f"stream-{seed}-{len(ends)}", random.Random(chance.random()))
        async with asyncio.timeout(LONGEST):
            ends.append((listener, await listener.follow()))
    return ends


async def test_no_chunk_is_lost_and_every_invocation_ends(
    primary: Primary, serve: Serve, soak_seconds: float
) -> None:
    storyteller = Storyteller()
    store = {"url": primary.url, "lease": LEASE}
    servers = [await serve(storyteller.agent, store=store) for _ in range(2)]
    async with round_robin(servers) as address:
        trouble = asyncio.create_task(ill_treat(primary))
        until = time.monotonic() + soak_seconds
        try:
            followed = await asyncio.gather(
                *(follow_one_after_another(address, seed, until) for seed in range(AT_A_TIME))
            )
        finally:
            trouble.cancel()
            await asyncio.wait({trouble})
    ends = [end for ends in followed for end in ends]
    for listener, end in ends:
        if end == "stream_end":
            assert listener.numbers == list(range(1, CHUNKS + 1))
        else:  # only of what had ended may Redis have forgotten how
            assert end in ("lost", "not_found"), end
            assert storyteller.told[listener.invocation_id]
        assert listener.numbers == list(range(1, len(listener.numbers) + 1))
    assert set(storyteller.told.values()) == {1}
    print(Counter(end for _, end in ends), sum(it.cuts for it, _ in ends), "cuts")  # noqa: T201
