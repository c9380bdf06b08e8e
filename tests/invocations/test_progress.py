"""Progress: what a handler reports stands in the record, until the end and after (§5)."""

import asyncio
import gc
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import msgspec
import pytest
import websockets
from aiohttp import web

from agentws import InvocationContext, InvocationWebSocketHandler
from agentws.protocol.encoding import MOST_PROGRESS
from agentws.protocol.records import Record
from agentws.stores.log import Follower, Log
from tests.conftest import Serve
from tests.invocations.conftest import Job, record_of
from tests.support.agents import agent_of, soon
from tests.support.replicas import get


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
    begun = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        try:
            yield 1
            begun.set()
            await asyncio.Event().wait()
        finally:
            context.report("cleaned up")

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        await client.receive()
        await soon(begun)
        await client.send(action="cancel_invocation", invocation_id="i")
        await client.until(type="result")
        assert (await record_of(client))["progress"] == "cleaned up"


async def test_a_context_that_is_kept_keeps_nothing_of_its_invocation(
    serve: Serve, job: Job
) -> None:
    server = await serve(job.agent)
    async with server.connect() as client:
        context = await job.begun(client, session_id="kept")
        assert logs_of(context)
        job.end.set()
        await client.until(type="result")
    gc.collect()
    assert not logs_of(context)
    context.report("too late")  # which nobody hears


def logs_of(context: InvocationContext) -> list[Log]:
    """Return the logs of a session that are in memory."""
    logs = [each for each in gc.get_objects() if type(each) is Log]
    return [log for log in logs if log.record.session_id == context.session_id]


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


Session = aiohttp.ClientSession
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
