"""What get and cancel handlers see of the record, and what they leave to it (§5)."""

import asyncio
from typing import Any

from agentws import InvocationContext
from tests.conftest import Serve
from tests.invocations.conftest import Job, record_of
from tests.support.agents import soon
from tests.support.redis_server import RedisServer
from tests.support.replicas import ServePair, get


async def test_get_and_cancel_handlers_see_the_record(serve: Serve, job: Job) -> None:
    seen: list[Any] = []

    async def look(context: InvocationContext) -> str:
        seen.append(context.record)
        return "seen"

    plain = await serve(job.agent)
    async with plain.connect() as client:
        await job.begun(client, session_id="s", payload=7)
        running = await record_of(client)
        assert (running["status"], running["session_id"]) == ("running", "s")
    job.agent.get_invocation_handler(look)
    server = await serve(job.agent)
    async with server.connect() as client, server.connect() as other:
        context = await job.begun(client, session_id="s", payload=7)
        assert context.record is None
        assert (await other.ask(action="get_invocation", invocation_id="i"))["payload"] == "seen"
        assert seen.pop().keys() == running.keys()
        await other.ask(action="get_invocation", invocation_id="unknown")
        assert seen.pop() is None
        job.end.set()
        assert (await client.receive())["payload"] == 7
        job.agent.cancel_invocation_handler(look)
        frame = await other.ask(action="cancel_invocation", invocation_id="i")
        assert frame["payload"] == "seen"
        record = seen.pop()
        assert (record["status"], record["result"]) == ("completed", 7)
        await other.ask(action="cancel_invocation", invocation_id="unknown")
        assert seen.pop() is None


async def test_a_get_handler_sees_the_record_of_another_replica(
    redis: RedisServer, serve_pair: ServePair, job: Job
) -> None:
    @job.agent.get_invocation_handler
    async def look(context: InvocationContext) -> Any:
        return {"seen": context.record}

    pair = await serve_pair(redis, job.agent)
    async with pair.owner.connect() as client:
        await job.begun(client, session_id="s")
        for server in (pair.owner, pair.other):
            seen = (await get(server))[1]["seen"]
            assert (seen["status"], seen["session_id"]) == ("running", "s")
        assert await get(pair.other, "unknown") == (200, {"seen": None})


async def test_a_get_handler_that_answers_none_leaves_it_to_the_record(
    serve: Serve, job: Job
) -> None:
    @job.agent.get_invocation_handler
    async def look(context: InvocationContext) -> Any:
        return "unknown to me" if context.invocation_id == "own" else None

    server = await serve(job.agent)
    async with server.connect() as client, server.connect() as other:
        await job.begun(client, session_id="s")
        assert (await record_of(other))["status"] == "running"
        assert (await get(server))[1] == await record_of(other)
        frame = await other.ask(action="get_invocation", invocation_id="own")
        assert frame["payload"] == "unknown to me"
        frame = await other.ask(action="get_invocation", invocation_id="unknown")
        assert frame["error"]["code"] == "not_found"
        status, body = await get(server, "unknown")
        assert (status, body["error"]["code"]) == (404, "not_found")


async def test_the_record_is_the_one_at_the_time_of_the_answer(serve: Serve, job: Job) -> None:
    """So that a get handler may wait for something, and then leave the answer to the record."""
    asked, ended = asyncio.Event(), asyncio.Event()

    @job.agent.get_invocation_handler
    async def wait(context: InvocationContext) -> None:
        asked.set()
        await ended.wait()

    server = await serve(job.agent)
    async with server.connect() as client, server.connect() as other:
        await job.begun(client, payload=7)
        await other.send(action="get_invocation", invocation_id="i")
        await soon(asked)
        job.end.set()
        await client.receive()
        ended.set()
        assert (await other.receive())["payload"]["result"] == 7


async def test_a_cancel_handler_that_answers_none_answers_null(serve: Serve, job: Job) -> None:
    @job.agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> None:
        pass

    server = await serve(job.agent)
    async with server.connect() as client:
        frame = await client.ask(action="cancel_invocation", invocation_id="i")
        assert (frame["type"], frame["payload"]) == ("result", None)
