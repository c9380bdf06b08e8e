"""Cancelling on the framed socket: `cancel_invocation`."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentws import InvocationContext, InvocationError
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, echo, soon
from tests.transports.websocket.conftest import (
    Gates,
    answer_to,
    assert_alive,
    forever,
    record_of,
    told,
    vanish,
)


async def test_cancel_stops_a_coroutine_and_tells_its_listeners(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i", session_id="s")
        await soon(gate.entered)
        frame = await other.ask(action="cancel_invocation", invocation_id="i")
        answer = {"invocation_id": "i", "status": "cancelled"}
        assert frame == answer_to("cancel_invocation", "i", answer)
        assert gate.cancelled.is_set()
        frame = await client.receive()
        ids = {"invocation_id": "i", "session_id": "s"}
        assert told(frame) == {"type": "error", **ids, "error": "cancelled"}
        record = await record_of(client, "i")
        assert record["status"] == "cancelled"
        assert record["error"]["code"] == "cancelled"


async def test_cancel_on_the_same_socket_answers_and_ends_the_invocation(serve: Serve) -> None:
    server = await serve(agent_of(forever))
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        await client.send(action="cancel_invocation", invocation_id="i")
        frames = [await client.receive(), await client.receive()]
        assert {frame["type"] for frame in frames} == {"result", "error"}
        await assert_alive(client)


async def test_cancel_closes_a_generator(serve: Serve) -> None:
    cleaned_up = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.set()

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        await client.ask(action="invoke", invocation_id="i")
        await client.send(action="cancel_invocation", invocation_id="i")
        await client.until(type="error")
        assert cleaned_up.is_set()


async def test_a_handler_that_swallows_its_cancellation_and_returns_is_cancelled(
    serve: Serve,
) -> None:
    async def once(payload: Any, context: InvocationContext) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "dropped"
        return "never"

    async def stream(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        try:
            yield "first"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "dropped"

    for invoke in (once, stream):
        server = await serve(agent_of(invoke))
        async with server.connect() as client, server.connect() as other:
            await client.send(action="invoke", invocation_id="i")
            if invoke is stream:
                assert (await client.receive())["payload"] == "first"
            frame = await other.ask(action="cancel_invocation", invocation_id="i")
            assert frame["payload"]["status"] == "cancelled"
            assert told(await client.receive())["error"] == "cancelled"
            record = await record_of(client, "i")
            assert record["status"] == "cancelled"
            assert "dropped" not in json.dumps(record)


async def test_a_handler_that_outlasts_the_grace_is_still_being_cancelled(serve: Serve) -> None:
    let_go = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            await let_go.wait()
        return "never"

    server = await serve(agent_of(invoke), invocations={"cancel_grace": 0.05})
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i")
        frame = await other.ask(action="cancel_invocation", invocation_id="i")
        assert frame["payload"] == {"invocation_id": "i", "status": "cancelling"}
        assert (await record_of(other, "i"))["status"] == "running"
        let_go.set()
        assert told(await client.receive())["error"] == "cancelled"
        assert (await record_of(other, "i"))["status"] == "cancelled"


async def test_cancel_of_an_ended_or_unknown_invocation_is_refused(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        await client.ask(action="invoke", invocation_id="ended")
        for asked, code in (("ended", "already_finished"), ("unknown", "not_found")):
            frame = await client.ask(
                action="cancel_invocation", invocation_id=asked, session_id="s"
            )
            assert told(frame) == {
                "type": "error",
                "action": "cancel_invocation",
                "invocation_id": asked,
                "session_id": "s",
                "error": code,
            }


async def test_a_cancel_handler_decides_for_any_id_and_the_task_is_cancelled_after_it(
    serve: Serve,
) -> None:
    gates = Gates()
    agent = agent_of(gates)
    seen: list[tuple[str, bool]] = []

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> Any:
        await asyncio.sleep(0)
        gate = gates[context.invocation_id]
        seen.append((context.invocation_id, gate.cancelled.is_set()))
        return {"bye": context.invocation_id}

    server = await serve(agent)
    async with server.connect() as client, server.connect() as other:
        gates["ended"].opened.set()
        await client.ask(action="invoke", invocation_id="ended")
        await client.send(action="invoke", invocation_id="running")
        for asked in ("running", "ended", "unknown"):
            frame = await other.ask(action="cancel_invocation", invocation_id=asked)
            assert frame == answer_to("cancel_invocation", asked, {"bye": asked})
        assert told(await client.receive())["error"] == "cancelled"
        assert gates["running"].cancelled.is_set()
        assert (await record_of(client, "ended"))["status"] == "completed"
    assert seen == [("running", False), ("ended", False), ("unknown", False)]


async def test_when_a_cancel_handler_raises_the_invocation_goes_on(serve: Serve) -> None:
    gate = Gate()
    agent = agent_of(gate)

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> Any:
        raise InvocationError("not_now", "It is busy")

    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="invoke", payload=1, invocation_id="i")
        frame = await client.ask(action="cancel_invocation", invocation_id="i")
        assert told(frame)["error"] == "not_now"
        gate.opened.set()
        assert (await client.receive())["payload"] == 1


@pytest.mark.parametrize("custom", [False, True])
async def test_a_cancel_sent_right_before_the_end_takes_effect(serve: Serve, custom: bool) -> None:
    gate = Gate()
    agent = agent_of(gate)
    if custom:

        @agent.cancel_invocation_handler
        async def cancel(context: InvocationContext) -> None:
            await asyncio.sleep(0.01)

    server = await serve(agent, invocations={"on_disconnect": "continue"})
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        await soon(gate.entered)
        await client.send(action="cancel_invocation", invocation_id="i")
        vanish(client)
        await soon(gate.cancelled)
