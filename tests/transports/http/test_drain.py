"""HTTP while the daemon drains (§8)."""

import asyncio

import pytest

from tests.conftest import PATIENCE, Serve
from tests.support.agents import Gate, agent_of, soon
from tests.support.http_client import (
    ASYNC,
    JSON,
    SSE,
    Session,
    begin,
    chunk,
    event,
    failing_with,
    named,
    record_of,
    refusal,
)


async def test_while_it_drains_it_refuses_new_work_and_sees_to_the_old(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), server={"shutdown_grace": 2 * PATIENCE})
    url = f"{server.http}/invocations"
    for name in ("i", "j"):
        await begin(server, session, name, ["a", "b"])
    await soon(gate.entered)
    async with server.draining():
        for headers in ({}, JSON, ASYNC):
            async with session.post(url, json=["a"], headers=headers) as answer:
                error = await refusal(answer, 503, "shutting_down")
                assert (error["source"], error["retryable"]) == ("platform", True)
        assert (await record_of(server, session, "i"))["status"] == "running"
        async with session.post(f"{url}/j/cancel") as answer:
            assert await answer.json() == {"invocation_id": "j", "status": "cancelled"}
        async with session.get(f"{url}/i", headers={**SSE, "Last-Event-ID": "1"}) as answer:
            gate.opened.set()
            assert await event(answer) == chunk(2, "b")
            assert (await event(answer)).startswith(b"id: end\nevent: stream_end\n")


@pytest.mark.parametrize("streams", [False, True])
async def test_what_outlasts_the_grace_is_told_so(
    serve: Serve, session: Session, streams: bool
) -> None:
    gate = Gate()
    server = await serve(
        agent_of(gate.stream_late if streams else gate), server={"shutdown_grace": 0.1}
    )
    posting = asyncio.create_task(
        session.post(f"{server.http}/invocations", json=[], headers=named("i"))
    )
    await soon(gate.entered)
    async with server.draining() as drain:
        async with await posting as answer:
            if streams:
                assert (await answer.read()).startswith(failing_with("shutting_down"))
            else:
                await refusal(answer, 503, "shutting_down")
        assert await drain is True
    assert gate.cancelled.is_set()
