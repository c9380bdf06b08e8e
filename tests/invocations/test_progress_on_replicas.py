"""Progress as other replicas see it, whatever becomes of Redis or of the one that runs it (§5)."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
import pytest

from agentws import InvocationContext
from agentws.protocol.records import Record
from tests.conftest import PATIENCE, Running
from tests.invocations.conftest import Job, record_of
from tests.support.agents import agent_of
from tests.support.processes import Start
from tests.support.redis_server import RedisServer
from tests.support.replicas import LEASE, ServePair, becomes, chunks, get


async def progress_becomes(server: Running, value: Any) -> None:
    """Poll until the record tells this progress."""
    async with asyncio.timeout(PATIENCE):
        while (await get(server))[1].get("progress") != value:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)


async def test_every_replica_sees_the_progress_and_nobody_is_woken(
    redis: RedisServer, serve_pair: ServePair, job: Job
) -> None:
    pair = await serve_pair(redis, job.agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        context = await job.begun(client, payload="done")
        await other.send(action="attach_invocation", invocation_id="i")
        assert "progress" not in await record_of(other)
        assert not redis.client.hexists("{agentws}:record:i", "progress")
        with redis.client.pubsub(ignore_subscribe_messages=True) as news:  # type: ignore[no-untyped-call]
            news.subscribe("{agentws}:news:i")
            news.get_message(timeout=PATIENCE)
            for value in (1, {"b": "ü"}):
                context.report(value)
                await progress_becomes(pair.other, value)
            redis.client.publish("{agentws}:news:i", "the only news")
            assert next(news.listen())["data"] == "the only news"
        job.end.set()
        assert (await other.receive())["payload"] == "done"
        record = await record_of(other)
        assert (record["status"], record["progress"]) == ("completed", {"b": "ü"})


async def test_the_last_value_does_not_wait_when_the_end_comes(
    redis: RedisServer, serve_pair: ServePair, job: Job
) -> None:
    pair = await serve_pair(redis, job.agent)
    async with pair.owner.connect() as client:
        context = await job.begun(client)
        context.report("first")
        await progress_becomes(pair.other, "first")
        context.report("last")
        job.end.set()
        await client.receive()
        assert (await get(pair.other))[1]["progress"] == "last"
    kept = msgspec.json.decode(
        redis.client.hget("{agentws}:record:i", "record") or b"", type=Record
    )
    assert kept.progress is None  # it is not kept twice


async def test_the_last_value_is_there_with_the_end_of_a_stream(
    redis: RedisServer, serve_pair: ServePair
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        for number in range(payload):
            yield number
            context.report(number)

    pair = await serve_pair(redis, agent_of(invoke))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        for count in (1, 2, 300):
            await client.send(action="invoke", invocation_id=f"{count}", payload=count)
            await client.until(type="stream_end")
            frame = await other.ask(action="get_invocation", invocation_id=f"{count}")
            assert (frame["payload"]["status"], frame["payload"]["progress"]) == (
                "completed",
                count - 1,
            )


async def test_many_reports_are_few_writes(
    redis: RedisServer, serve_pair: ServePair, job: Job
) -> None:
    def writes() -> int:
        return int(redis.client.info("commandstats")["cmdstat_hset"]["calls"])

    pair = await serve_pair(redis, job.agent)
    async with pair.owner.connect() as client:
        context = await job.begun(client)
        before, began_at = writes(), time.monotonic()
        for number in range(1000):
            context.report(number)
            await asyncio.sleep(0.0005)
        await progress_becomes(pair.other, 999)
        assert 2 <= writes() - before <= 2 + (time.monotonic() - began_at) / 0.1
        context.report(999)
        written = writes()
        await asyncio.sleep(0.3)
        assert writes() == written  # what Redis has is not written again


async def test_a_stream_that_reports_with_each_chunk_loses_neither(
    redis: RedisServer, serve_pair: ServePair
) -> None:
    go_on = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        for number in range(1, 501):
            yield number
            context.report({"of": number, "more": "x" * 1000})
            await asyncio.sleep(0.001)
        await go_on.wait()

    pair = await serve_pair(redis, agent_of(invoke))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await client.send(action="invoke", invocation_id="i")
        await client.receive()
        await other.send(action="attach_invocation", invocation_id="i")
        assert await chunks(other, 500) == list(range(1, 501))
        await progress_becomes(pair.other, {"of": 500, "more": "x" * 1000})
        go_on.set()
        assert (await other.receive())["type"] == "stream_end"


def forget(redis: RedisServer) -> None:
    redis.empty()


def restart(redis: RedisServer) -> None:
    redis.stop()
    redis.start()


@pytest.mark.parametrize(("harm", "saved"), [(forget, None), (restart, None), (restart, "older")])
async def test_progress_survives_a_redis_that_does_not(
    own_redis: RedisServer,
    serve_pair: ServePair,
    job: Job,
    harm: Callable[[RedisServer], None],
    saved: str | None,
) -> None:
    pair = await serve_pair(own_redis, job.agent)
    async with pair.owner.connect() as client:
        context = await job.begun(client)
        if saved is not None:
            context.report(saved)
            await progress_becomes(pair.other, saved)
            own_redis.client.save()
        context.report("newer")
        await progress_becomes(pair.other, "newer")
        harm(own_redis)
        await becomes(pair.other, "healthy")
        await progress_becomes(pair.other, "newer")
        job.end.set()
        assert (await client.receive())["type"] == "result"
        assert (await get(pair.other))[1]["progress"] == "newer"


async def test_what_is_reported_while_redis_is_away_is_told_when_it_is_back(
    own_redis: RedisServer, serve_pair: ServePair, job: Job
) -> None:
    pair = await serve_pair(own_redis, job.agent)
    async with pair.owner.connect() as client:
        context = await job.begun(client)
        own_redis.stop()
        await becomes(pair.owner, "unavailable")
        context.report("meanwhile")
        assert (await get(pair.owner))[1]["progress"] == "meanwhile"
        own_redis.start()
        await becomes(pair.other, "healthy")
        await progress_becomes(pair.other, "meanwhile")


REPORTING = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        context.report("as far as it came")
        await asyncio.Event().wait()
"""


async def test_what_is_lost_tells_how_far_it_came(start: Start, redis: RedisServer) -> None:
    killed, other = [
        await (await start(REPORTING, store__url=redis.url, store__lease=LEASE)).listening()
        for _ in range(2)
    ]
    async with killed.connect() as client, other.connect() as poller:
        await client.ask(action="invoke", invocation_id="i", background=True)
        async with asyncio.timeout(PATIENCE):
            while "progress" not in await record_of(poller):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        killed.send(signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while (record := await record_of(poller))["status"] == "running":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert (record["status"], record["progress"]) == ("lost", "as far as it came")
