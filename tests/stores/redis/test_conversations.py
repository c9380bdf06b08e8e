"""Questions and inputs while Redis forgets, or is away (§5, §10)."""

import asyncio
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import PATIENCE, Client, Frame, Running
from tests.support.redis_server import RedisServer
from tests.support.replicas import SOON, Pair, ServePair, becomes, get

agent = Agent()


@agent.invoke_handler
async def invoke(payload: Any, context: InvocationContext) -> Any:
    answer = await context.ask("Which?")
    return [answer, (await context.receive()).payload]


@pytest.fixture
async def pair(own_redis: RedisServer, serve_pair: ServePair) -> Pair:
    return await serve_pair(own_redis, agent)


async def asked(client: Client) -> Frame:
    await client.send(action="invoke", invocation_id="i")
    return await client.until(type="input_required")


async def is_awaited(server: Running, question: Frame) -> None:
    """Wait until a poll tells of the question; nothing announces that Redis has it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            status, record = await get(server)
            if status == 200 and record["status"] == "input_required":
                (awaited,) = record["awaiting"]
                assert awaited["request_id"] == question["request_id"]
                return
            await asyncio.sleep(0.05)


async def test_a_question_is_written_again_where_redis_forgot_it(
    own_redis: RedisServer, pair: Pair
) -> None:
    async with pair.owner.connect() as client, pair.other.connect() as other:
        question = await asked(client)
        own_redis.empty()
        await is_awaited(pair.other, question)
        await other.send(action="attach_invocation", invocation_id="i", starting_after=1)
        assert (await other.until(type="input_required"))["request_id"] == question["request_id"]
        answer = {"request_id": question["request_id"], "input_id": "a", "payload": "this"}
        for fields in (answer, {"payload": "that"}):
            frame = await other.ask(action="send_input", invocation_id="i", **fields)
            while frame.get("action") != "send_input":
                frame = await other.receive()
            assert frame["payload"]["status"] == "accepted"
        assert (await client.until(type="result"))["payload"] == ["this", "that"]


async def test_while_redis_is_away_the_owner_is_spoken_to_and_others_are_told(
    own_redis: RedisServer, pair: Pair
) -> None:
    async with pair.owner.connect() as client, pair.other.connect() as other:
        question = await asked(client)
        own_redis.stop()
        async with asyncio.timeout(SOON + 1):
            frame = await other.ask(
                action="send_input", invocation_id="i", request_id=question["request_id"]
            )
        assert (frame["error"]["code"], frame["error"]["retryable"]) == ("store_unavailable", True)
        assert frame["error"]["message"] == "The store of invocations does not answer"
        frame = await other.ask(action="list_invocations")
        assert frame["error"]["code"] == "store_unavailable"
        await client.send(
            action="send_input",
            invocation_id="i",
            request_id=question["request_id"],
            payload="here",
        )
        assert (await client.until(action="send_input"))["payload"]["status"] == "accepted"
        own_redis.start()
        await becomes(pair.other, "healthy")
        await becomes(pair.owner, "healthy")
        async with asyncio.timeout(PATIENCE):
            while (await get(pair.other))[0] != 200:  # noqa: ASYNC110 - until it is written again
                await asyncio.sleep(0.05)
        frame = await other.ask(action="send_input", invocation_id="i", payload="there")
        assert frame["payload"]["status"] == "accepted"
        assert (await client.until(type="result"))["payload"] == ["here", "there"]
