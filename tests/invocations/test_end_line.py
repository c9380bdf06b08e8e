"""The line that each invocation leaves behind."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp

from agentws import Agent, InvocationContext, InvocationError
from tests.conftest import LogLines, Serve

INVOCATIONS = "agentws.invocations"


def agent() -> Agent:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: str, context: InvocationContext) -> AsyncGenerator[int, None]:
        yield 1
        yield 2
        if payload == "refuse":
            raise InvocationError("no_quota", "There is no quota", 402)
        if payload == "wait":
            await asyncio.Event().wait()

    return agent


async def ends(log_lines: LogLines) -> dict[str, Any]:
    """Return the next line of an end."""
    while True:
        line = vars(await log_lines.next(INVOCATIONS))
        if "status" in line:
            return line


async def test_a_line_tells_what_and_how_long_and_how_it_ended(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent())
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i", session_id="s", payload="")
        line = await ends(log_lines)
    assert line["levelname"] == "INFO"
    assert line["msg"] % line["args"] == "Invocation completed"
    assert (line["invocation_id"], line["session_id"]) == ("i", "s")
    assert (line["transport"], line["status"], line["chunks"]) == ("websocket", "completed", 2)
    assert isinstance(line["duration_ms"], int)
    assert {"error_code", "reason"}.isdisjoint(line)


async def test_an_error_that_the_agent_raised_is_told_by_its_code(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent())
    async with aiohttp.ClientSession() as session:
        await (await session.post(f"{server.http}/invocations", json="refuse")).read()
    line = await ends(log_lines)
    assert (line["transport"], line["status"]) == ("http", "failed")
    assert line["error_code"] == "no_quota"


async def test_a_cancelled_one_is_told_with_its_reason(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent(), invocations={"disconnect_grace": 0.01})
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i", payload="wait")
        await client.until(sequence_number=2)
        await client.send(action="cancel_invocation", invocation_id="i")
        line = await ends(log_lines)
        assert (line["status"], line["error_code"]) == ("cancelled", "cancelled")
        assert line["reason"] == "The invocation was cancelled"
        await client.send(action="invoke", payload="wait")
        await client.until(sequence_number=2)
    assert (await ends(log_lines))["reason"] == "Nobody listened to the invocation any more"


async def test_a_refused_one_leaves_no_line(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent())
    async with server.connect() as client:
        for payload in ("", "again"):
            await client.send(action="invoke", invocation_id="i", payload=payload)
        await client.until(type="error")
        await client.send(action="invoke", invocation_id="other", payload="")
        lines = [await ends(log_lines) for _ in range(2)]
    assert [line["invocation_id"] for line in lines] == ["i", "other"]


async def test_lines_can_be_off(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent(), server={"invocation_log": False})
    async with server.connect() as client:
        await client.send(action="invoke", payload="")
        await client.until(type="stream_end")
    await log_lines.next("agentws.connection")
    assert not [record for record in log_lines.records if record.name == INVOCATIONS]
