"""Actions take effect in the order in which they came, and none waits for a handler (§3)."""

import asyncio
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Serve
from tests.support.agents import agent_of, echo, soon
from tests.transports.websocket.conftest import Gates, assert_alive, forever


async def test_a_quick_invocation_overtakes_a_slow_one(serve: Serve) -> None:
    gates = Gates()
    server = await serve(agent_of(gates))
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="slow")
        gates["quick"].opened.set()
        frame = await client.ask(action="invoke", invocation_id="quick")
        assert frame["invocation_id"] == "quick"
        gates["slow"].opened.set()
        assert (await client.receive())["invocation_id"] == "slow"


async def test_the_socket_answers_while_handlers_of_every_kind_run(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        while payload == "spin":  # noqa: ASYNC110 - it is to keep the loop busy
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> Any:
        await asyncio.Event().wait()

    agent.cancel_invocation_handler(get)
    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="invoke", payload="spin", invocation_id="i")
        await client.send(action="invoke", payload="wait")
        await client.send(action="get_invocation", invocation_id="i")
        await client.send(action="cancel_invocation", invocation_id="i")
        for _ in range(20):
            await assert_alive(client)


@pytest.mark.parametrize(
    ("leave", "number", "size"),
    [
        ("close", 600, 0),
        ("close", 600, 1000),
        ("end of file", 600, 0),
        ("end of file", 600, 1000),  # after a reset, the system drops what nobody has read
    ],
)
async def test_actions_sent_in_one_burst_before_the_end_take_effect(
    serve: Serve, leave: str, number: int, size: int
) -> None:
    started: list[int] = []
    all_started = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> None:
        started.append(payload["index"])
        if len(started) == number:
            all_started.set()

    server = await serve(agent_of(invoke), websocket={"max_invocations_per_connection": number})
    async with server.connect(max_queue=None) as client:
        padding = "x" * size
        for index in range(number):
            payload = {"index": index, "padding": padding}
            await client.send(action="invoke", payload=payload, background=True)
        if leave == "close":
            await client.connection.close()
        else:
            client.connection.transport.write_eof()
        await soon(all_started)
    assert started == list(range(number))


async def test_actions_of_one_burst_take_effect_in_their_order(serve: Serve) -> None:
    server = await serve(agent_of(forever))
    async with server.connect() as client:
        for action in (
            "cancel_invocation",
            "get_invocation",
            "invoke",
            "get_invocation",
            "invoke",
            "cancel_invocation",
        ):
            fields = {"background": True} if action == "invoke" else {}
            await client.send(action=action, invocation_id="i", **fields)
        answers: dict[str, list[str]] = {}
        for _ in range(6):
            frame = await client.receive()
            if frame["type"] == "error":
                answers.setdefault(frame["action"], []).append(frame["error"]["code"])
            elif frame["type"] == "accepted":
                answers.setdefault("invoke", []).append("accepted")
            else:
                payload = frame["payload"]
                verb = "get_invocation" if "created_at" in payload else "cancel_invocation"
                answers.setdefault(verb, []).append(payload["status"])
    assert answers["cancel_invocation"] == ["not_found", "cancelled"]
    assert answers["get_invocation"] == ["not_found", "running"]
    assert sorted(answers["invoke"]) == ["accepted", "already_exists"]


@pytest.mark.parametrize("action", ["get_invocation", "attach_invocation"])
async def test_a_client_may_ask_about_many_invocations_in_one_burst(
    serve: Serve, action: str
) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        for index in range(200):
            await client.ask(action="invoke", invocation_id=f"i{index}")
        for index in range(200):
            await client.send(action=action, invocation_id=f"i{index}")
        frames = [await client.receive() for _ in range(200)]
    assert {frame["type"] for frame in frames} == {"result"}
    assert {frame["invocation_id"] for frame in frames} == {f"i{index}" for index in range(200)}


async def test_an_invoke_is_not_refused_and_run_all_the_same(serve: Serve) -> None:
    runs: list[Any] = []
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        runs.append(payload)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> Any:
        await asyncio.Event().wait()

    server = await serve(agent, websocket={"max_invocations_per_connection": 2})
    async with server.connect() as client:
        for _ in range(2):
            await client.send(action="get_invocation", invocation_id="i")
        frame = await client.ask(action="invoke", background=True, payload=1)
        await assert_alive(client)
        assert (frame["type"] == "accepted") == (runs == [1])
