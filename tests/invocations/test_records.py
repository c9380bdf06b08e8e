"""The record: what handlers see of it, and the progress that they put there (§5)."""

import asyncio
import signal
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

import aiohttp
import msgspec
import pytest
import websockets
from aiohttp import web

from agentws import Agent, InvocationContext, InvocationWebSocketHandler
from agentws.agent.context import begin_conversation, end_conversation
from agentws.agent.conversation import Ended
from agentws.protocol.encoding import MOST_PROGRESS
from agentws.protocol.records import Record
from agentws.stores.log import Follower, Log
from tests.conftest import PATIENCE, Client, Frame, Running, Serve
from tests.support.processes import Start
from tests.support.redis_server import RedisServer
from tests.support.replicas import LEASE, ServePair, becomes, chunks, get

Session = aiohttp.ClientSession


class Job:
    """A coroutine handler whose context the test takes, and that ends when the test lets it."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)
        self.end = asyncio.Event()
        self._contexts: asyncio.Queue[InvocationContext] = asyncio.Queue()

    async def invoke(self, payload: Any, context: InvocationContext) -> Any:
        """Hand out the context, and wait for the end."""
        self._contexts.put_nowait(context)
        await self.end.wait()
        return payload

    async def begun(self, client: Client, **fields: Any) -> InvocationContext:
        """Invoke as `i` and return the context of the handler that runs."""
        await client.send(action="invoke", invocation_id="i", **fields)
        async with asyncio.timeout(PATIENCE):
            return await self._contexts.get()


@pytest.fixture
def job() -> Job:
    return Job()


async def record_of(client: Client) -> Frame:
    frame = await client.ask(action="get_invocation", invocation_id="i")
    record = frame["payload"]
    assert isinstance(record, dict)
    return record


# --- what get and cancel handlers see ---------------------------------------------------------


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
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
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


# --- progress ---------------------------------------------------------------------------------


async def test_progress_stands_in_the_record_until_the_end_and_after(
    serve: Serve, job: Job
) -> None:
    server = await serve(job.agent)
    async with server.connect() as client, server.connect() as other:
        context = await job.begun(client, payload="done")
        assert "progress" not in await record_of(other)
        for value in (0.5, {"step": [1, None]}, "é", False):
            context.report(value)
            assert (await record_of(other))["progress"] == value
        assert (await get(server))[1]["progress"] is False
        context.report("first")
        context.report("last")
        job.end.set()
        assert (await client.receive())["payload"] == "done"  # nobody who listens was told
        record = await record_of(other)
        assert (record["status"], record["progress"]) == ("completed", "last")


async def test_progress_that_is_null_is_none(serve: Serve, job: Job) -> None:
    server = await serve(job.agent)
    async with server.connect() as client, server.connect() as other:
        context = await job.begun(client)
        context.report(1)
        context.report(None)
        assert "progress" not in await record_of(other)


@pytest.mark.parametrize(
    "value",
    [
        "x" * (MOST_PROGRESS - 1),
        ["é"] * MOST_PROGRESS,
        object(),
        {"deep": [object()]},
        "half \ud83d",
        msgspec.Raw(b"{"),
        msgspec.Raw(b""),
        msgspec.Raw(b'"\xff"'),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_can_be_no_progress_is_refused(serve: Serve, job: Job, value: Any) -> None:
    server = await serve(job.agent)
    async with server.connect() as client, server.connect() as other:
        context = await job.begun(client)
        context.report("x" * (MOST_PROGRESS - 2))
        with pytest.raises(ValueError, match=r"^Progress"):
            context.report(value)
        assert len((await record_of(other))["progress"]) == MOST_PROGRESS - 2


async def test_after_the_end_nothing_is_reported(serve: Serve, job: Job) -> None:
    server = await serve(job.agent)
    async with server.connect() as client:
        context = await job.begun(client)
        context.report(1)
        job.end.set()
        await client.receive()
        context.report(2)
        context.report(object())
        assert (await record_of(client))["progress"] == 1


async def test_what_is_cancelled_may_report_while_it_cleans_up(serve: Serve) -> None:
    agent, begun = Agent(), asyncio.Event()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        try:
            yield 1
            begun.set()
            await asyncio.Event().wait()
        finally:
            context.report("cleaned up")

    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        await client.receive()
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
        await client.send(action="cancel_invocation", invocation_id="i")
        await client.until(type="result")
        assert (await record_of(client))["progress"] == "cleaned up"


class Talk(Ended):
    """What a context speaks through."""


def test_a_context_that_is_kept_keeps_nothing_of_what_it_reported_to() -> None:
    talk = Talk()
    context = InvocationContext("i", "s")
    begin_conversation(context, talk)
    alive = weakref.ref(talk)
    del talk
    end_conversation(context)
    assert alive() is None


class Sleeper(Follower):
    """A listener that counts how often it is woken."""

    woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_a_report_wakes_no_listener() -> None:
    log = Log(Record("i", "s", 0.0))
    sleeper = Sleeper(log)
    log.report(b"1")
    assert sleeper.woken == 0
    log.append(b"1")
    assert sleeper.woken == 1


# --- where there is none to report ------------------------------------------------------------

NONE_TO_REPORT = "Only an invoke handler has progress to report"


def complaint(context: InvocationContext) -> str:
    """Report, which must fail, and return why."""
    with pytest.raises(RuntimeError) as failure:
        context.report(1)
    return str(failure.value)


async def test_other_handlers_report_nothing(serve: Serve, job: Job) -> None:
    async def complain(context: InvocationContext) -> str:
        return complaint(context)

    job.agent.get_invocation_handler(complain)
    job.agent.cancel_invocation_handler(complain)

    @job.agent.ws_handler
    async def talk(ws: web.WebSocketResponse, context: InvocationContext) -> None:
        assert context.record is None
        await ws.send_str(complaint(context))

    server = await serve(job.agent)
    async with server.connect() as client, server.connect() as other:
        await job.begun(client)
        for action in ("get_invocation", "cancel_invocation"):
            frame = await other.ask(action=action, invocation_id="i")
            assert frame["payload"] == NONE_TO_REPORT
    async with websockets.connect(f"{server.ws}/invocations_ws") as raw:
        assert await raw.recv() == NONE_TO_REPORT


class InClassStyle(InvocationWebSocketHandler):
    """An agent that tells why it cannot report."""

    async def handle_websocket(self, ws: Any, context: InvocationContext) -> None: ...

    async def handle(self, request: web.Request, context: InvocationContext) -> web.StreamResponse:
        assert context.record is None
        return web.Response(text=complaint(context))


async def test_an_agent_in_class_style_keeps_its_own_records(serve: Serve) -> None:
    server = await serve(InClassStyle())
    async with Session(server.http) as session, session.post("/invocations") as answer:
        assert await answer.text() == NONE_TO_REPORT


async def test_another_thread_is_told_how_to_report(serve: Serve, job: Job) -> None:
    server = await serve(job.agent)
    async with server.connect() as client, server.connect() as other:
        context = await job.begun(client)
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            await asyncio.to_thread(context.report, 1)
        assert "progress" not in await record_of(other)
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(loop.call_soon_threadsafe, context.report, 1)
        assert (await record_of(other))["progress"] == 1


# --- on other replicas ------------------------------------------------------------------------


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
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        for number in range(payload):
            yield number
            context.report(number)

    pair = await serve_pair(redis, agent)
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
    agent, go_on = Agent(), asyncio.Event()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        for number in range(1, 501):
            yield number
            context.report({"of": number, "more": "x" * 1000})
            await asyncio.sleep(0.001)
        await go_on.wait()

    pair = await serve_pair(redis, agent)
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
