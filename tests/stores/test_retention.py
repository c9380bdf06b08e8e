"""What a daemon retains is bounded: traffic leaves nothing behind."""

import gc
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Client, Serve

INVOCATIONS = 400
"""How many make one round: at one every nine seconds, an hour's worth."""

ROUNDS = 8
MUCH = 200_000
"""Bytes: less than what half a round would leave behind if it were not forgotten."""


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_traffic_leaves_nothing_behind(
    request: pytest.FixtureRequest, serve: Serve, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")  # or pytest would keep a line for each invocation
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        for _ in range(10):
            yield payload

    url = request.getfixturevalue("redis").url if kind == "redis" else "memory://"
    server = await serve(
        agent, store={"url": url}, invocations={"max_retained": 50, "replay_bytes": 2000}
    )
    async with server.connect() as client:
        tracemalloc.start()
        try:
            sizes = [await size_after(client) for _ in range(ROUNDS)]
        finally:
            tracemalloc.stop()
    assert max(sizes[ROUNDS // 2 :]) - min(sizes[1 : ROUNDS // 2]) < MUCH, sizes


async def size_after(client: Client) -> int:
    """Let some invocations begin and end, and return how many bytes are in use then."""
    for number in range(INVOCATIONS):
        await client.send(action="invoke", payload=f"{number:0100}")
        await client.until(type="stream_end")
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
