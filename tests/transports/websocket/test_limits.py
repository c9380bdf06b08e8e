"""How many sockets there may be, and how many invocations of one (§1, §8)."""

import asyncio
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from agentws import Agent, InvocationContext
from tests.conftest import PATIENCE, LogLines, Serve
from tests.support.agents import Gate, agent_of, echo
from tests.transports.websocket.conftest import FRAMED, assert_alive, ending_of, forever, refusal


async def test_one_socket_past_the_limit_is_refused_before_the_upgrade(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_connections": 2})
    async with server.connect() as first:
        async with server.connect() as second:
            status, error, headers = await refusal(server)
            assert (status, error["code"]) == (503, "too_many_connections")
            assert int(headers["Retry-After"]) >= 1
            assert (error["retryable"], error["source"]) == (True, "platform")
            await assert_alive(second)
        await assert_alive(first)
        async with asyncio.timeout(PATIENCE):
            while True:  # the place is free once the server has seen the close
                try:
                    async with server.connect() as third:
                        await assert_alive(third)
                        break
                except InvalidStatus:
                    await asyncio.sleep(0)


async def test_a_refused_handshake_takes_no_place(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_connections": 1})
    for _ in range(3):
        await refusal(server, f"{FRAMED}?agent_session_id=..")
    async with server.connect() as client:
        await assert_alive(client)


async def test_a_socket_that_is_gone_takes_no_place_although_a_handler_works_for_it(
    serve: Serve, log_lines: LogLines
) -> None:
    agent = Agent()

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> None:
        await asyncio.Event().wait()

    server = await serve(agent, websocket={"max_connections": 1})
    async with server.connect() as client:
        await client.send(action="get_invocation", invocation_id="i")
        await assert_alive(client)
    assert await ending_of(log_lines) == (1000, None)
    for _ in range(3):
        async with server.connect() as client:
            await assert_alive(client)
        await ending_of(log_lines)


@pytest.mark.parametrize(
    ("settings", "same_socket"),
    [
        ({"invocations": {"max_running": 3}}, True),
        ({"invocations": {"max_running": 3}}, False),
        ({"websocket": {"max_invocations_per_connection": 3}}, True),
    ],
)
@pytest.mark.parametrize("background", [False, True])
async def test_an_invocation_past_the_limit_is_refused(
    serve: Serve, settings: dict[str, Any], same_socket: bool, background: bool
) -> None:
    server = await serve(agent_of(forever), **settings)
    async with server.connect() as client, server.connect() as other:
        for index in range(3):
            await client.send(action="invoke", invocation_id=f"i{index}", background=index == 1)
        assert (await client.receive())["type"] == "accepted"
        asking = client if same_socket else other
        frame = await asking.ask(
            action="invoke", invocation_id="i3", session_id="s", background=background
        )
        assert (frame["action"], frame["invocation_id"], frame["session_id"]) == (
            "invoke",
            "i3",
            "s",
        )
        assert frame["error"]["code"] == "too_many_invocations"
        assert (frame["error"]["retryable"], frame["error"]["source"]) == (True, "platform")
        frame = await other.ask(action="get_invocation", invocation_id="i3")
        assert frame["error"]["code"] == "not_found"
        await client.send(action="cancel_invocation", invocation_id="i1")
        await client.until(type="result")
        frame = await asking.ask(action="invoke", invocation_id="i3", background=True)
        assert frame["type"] == "accepted"


async def test_the_limit_of_one_connection_leaves_others_alone(serve: Serve) -> None:
    server = await serve(agent_of(forever), websocket={"max_invocations_per_connection": 1})
    async with server.connect() as client, server.connect() as other:
        for socket_ in (client, other):
            assert (await socket_.ask(action="invoke", background=True))["type"] == "accepted"
            frame = await socket_.ask(action="invoke", background=True)
            assert frame["error"]["code"] == "too_many_invocations"


async def test_what_a_socket_attaches_to_does_not_count_as_its_own(serve: Serve) -> None:
    server = await serve(agent_of(forever), websocket={"max_invocations_per_connection": 2})
    async with server.connect() as starter, server.connect() as client:
        for index in range(2):
            await starter.ask(action="invoke", invocation_id=f"i{index}", background=True)
            await client.send(action="attach_invocation", invocation_id=f"i{index}")
        await assert_alive(client)
        assert (await client.ask(action="invoke", background=True))["type"] == "accepted"


async def test_one_user_runs_so_many_on_whatever_socket(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations={"max_running_per_owner": 2})
    ann, bob = ({"x-agent-user-id": name} for name in ("ann", "bob"))
    async with (
        server.connect(headers=ann) as first,
        server.connect(headers=ann) as second,
        server.connect(headers=bob) as other,
        server.connect() as nobody,
    ):
        for client in (first, second, other, nobody, nobody, nobody):
            assert (await client.ask(action="invoke", query_id="q"))["type"] == "accepted"
        error = (await second.ask(action="invoke"))["error"]
        assert (error["code"], error["source"]) == ("too_many_invocations", "platform")
        assert "This user runs the limit of 2" in error["message"]
        gate.opened.set()
        assert (await first.receive())["type"] == "result"
        assert (await second.ask(action="invoke", query_id="q"))["type"] in ("accepted", "result")
