"""Invocations without a listener: in the background, or since their socket was lost (§5)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentws import InvocationContext
from tests.conftest import Frame, Serve
from tests.support.agents import Gate, agent_of, soon
from tests.transports.websocket.conftest import (
    Gates,
    Tap,
    assert_alive,
    count,
    end_of,
    record_of,
    vanish,
)


async def test_a_background_invoke_is_accepted_and_says_no_more(serve: Serve) -> None:
    server = await serve(agent_of(count))
    async with server.connect() as client, server.connect() as other:
        frame = await client.ask(
            action="invoke", payload=3, background=True, invocation_id="i", session_id="s"
        )
        assert frame == {"type": "accepted", "invocation_id": "i", "session_id": "s"}
        assert (await end_of(other, "i"))["type"] == "stream_end"
        await assert_alive(client)


async def test_the_socket_that_started_a_background_invocation_may_attach(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with server.connect() as client:
        await client.send(action="invoke", payload=1, background=True, invocation_id="i")
        await client.send(action="attach_invocation", invocation_id="i")
        assert (await client.receive())["type"] == "accepted"
        gate.opened.set()
        assert (await client.receive())["type"] == "result"


NO_GRACE = {"disconnect_grace": 0.05}


@pytest.mark.parametrize(
    ("setting", "message", "survives"),
    [
        ("cancel", {}, False),
        ("cancel", {"on_disconnect": "continue"}, True),
        ("cancel", {"background": True}, True),
        ("cancel", {"background": True, "on_disconnect": "cancel"}, True),
        ("continue", {}, True),
        ("continue", {"on_disconnect": "cancel"}, False),
    ],
)
async def test_a_deserted_invocation_is_cancelled_or_goes_on(
    serve: Serve, setting: str, message: Frame, survives: bool
) -> None:
    gates = Gates()
    server = await serve(
        agent_of(gates),
        invocations={**NO_GRACE, "on_disconnect": setting},
    )
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="asked", **message)
        # It is deserted at the same time, and tells when the grace is over.
        await client.send(action="invoke", invocation_id="clock", on_disconnect="cancel")
        await soon(gates["clock"].entered)
        vanish(client)
    await soon(gates["clock"].cancelled)
    async with server.connect() as client:
        assert (await record_of(client, "clock"))["status"] == "cancelled"
        gates["asked"].opened.set()
        end = await end_of(client, "asked")
        assert end["type"] == ("result" if survives else "error")
        status = (await record_of(client, "asked"))["status"]
        assert status == ("completed" if survives else "cancelled")


@pytest.mark.parametrize("chunks_before", [0, 2])
async def test_a_client_that_attaches_in_time_keeps_the_invocation(
    serve: Serve, chunks_before: int
) -> None:
    taps = {"kept": Tap(), "clock": Tap()}
    deserted = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        try:
            async for number in taps[context.invocation_id](payload, context):
                yield number
        finally:
            if context.invocation_id == "clock":
                deserted.set()

    server = await serve(agent_of(invoke), invocations={"disconnect_grace": 0.3})
    await taps["kept"].let_out(chunks_before)
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="kept")
        await client.send(action="invoke", invocation_id="clock")
        for _ in range(chunks_before):
            await client.receive()
        await assert_alive(client)
        vanish(client)
    async with server.connect() as client:
        await client.send(
            action="attach_invocation", invocation_id="kept", starting_after=chunks_before
        )
        await assert_alive(client)
        await soon(deserted)
        await taps["kept"].let_out(chunks_before + 1)
        await taps["kept"].close()
        assert (await client.receive())["sequence_number"] == chunks_before + 1
        assert (await client.receive())["type"] == "stream_end"


async def test_an_invocation_with_one_listener_left_is_not_deserted(serve: Serve) -> None:
    gates = Gates()
    server = await serve(agent_of(gates), invocations=NO_GRACE)
    async with server.connect() as stays:
        async with server.connect() as leaves:
            await leaves.send(action="invoke", invocation_id="shared")
            await leaves.send(action="invoke", invocation_id="clock")
            await soon(gates["clock"].entered)
            await stays.send(action="attach_invocation", invocation_id="shared")
            await assert_alive(stays)
        await soon(gates["clock"].cancelled)
        gates["shared"].opened.set()
        assert (await stays.receive())["type"] == "result"


async def test_an_invocation_that_was_attached_to_is_deserted_when_that_listener_leaves(
    serve: Serve,
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations=NO_GRACE)
    async with server.connect() as first:
        await first.send(action="invoke", invocation_id="i")
        await soon(gate.entered)
        async with server.connect() as second:
            await second.send(action="attach_invocation", invocation_id="i")
            await assert_alive(second)
            await first.connection.close()
        await soon(gate.cancelled)


@pytest.mark.parametrize("action", ["invoke", "attach_invocation"])
async def test_an_invocation_that_is_followed_right_before_the_end_is_deserted(
    serve: Serve, action: str
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations=NO_GRACE)
    async with server.connect() as first, server.connect() as second:
        if action == "attach_invocation":
            await first.send(action="invoke", invocation_id="i")
            await soon(gate.entered)
            await first.connection.close()
        await second.send(action=action, invocation_id="i")
        vanish(second)
        await soon(gate.entered)
        await soon(gate.cancelled)
