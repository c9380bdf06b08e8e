"""One session, one turn: what becomes of an invoke whose session is busy, on any replica (§5)."""

import asyncio
from typing import Any

import aiohttp
import pytest

from agentws import Agent, InvocationContext
from tests.conftest import PATIENCE, Client, Frame, Serve
from tests.support.replicas import ServeAgent, get


class Turns:
    """An agent that waits until it is told to end, and remembers whom it has run for."""

    def __init__(self, *, swallows: bool = False) -> None:
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)
        self.begun: list[str] = []
        self.end = asyncio.Event()
        self.swallows = swallows

    async def invoke(self, payload: Any, context: InvocationContext) -> Any:
        self.begun.append(context.invocation_id)
        while True:
            try:
                await self.end.wait()
            except asyncio.CancelledError:
                if not self.swallows:
                    raise
            else:
                return payload


@pytest.fixture
def turns() -> Turns:
    return Turns()


async def accepted(client: Client, invocation_id: str, **fields: Any) -> None:
    """Invoke, and wait until the id is claimed."""
    fields = {"session_id": "s", "query_id": "q", **fields}
    frame = await client.ask(action="invoke", invocation_id=invocation_id, **fields)
    assert (frame["type"], frame["query_id"]) == ("accepted", "q"), frame


async def refused(client: Client, invocation_id: str, **fields: Any) -> Frame:
    """Invoke, and return the error that comes of it."""
    frame = await client.ask(
        action="invoke", invocation_id=invocation_id, **{"session_id": "s", **fields}
    )
    assert (frame["type"], frame["action"]) == ("error", "invoke"), frame
    error: Frame = frame["error"]
    return error


async def test_by_default_invocations_run_side_by_side(
    serve_wherever: ServeAgent, turns: Turns
) -> None:
    pair = await serve_wherever(turns.agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await accepted(client, "a")
        await accepted(other, "b")
        turns.end.set()
        assert (await client.receive())["type"] == (await other.receive())["type"] == "result"


async def test_a_busy_session_rejects(serve_wherever: ServeAgent, turns: Turns) -> None:
    pair = await serve_wherever(turns.agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await accepted(client, "a")
        error = await refused(other, "b", if_session_busy="reject")
        assert (error["code"], error["source"]) == ("session_busy", "user")
        assert error["running_invocation_id"] == "a"
        assert (await get(pair.other, "b"))[0] == 404  # it left nothing behind
        await accepted(other, "c", session_id="another", if_session_busy="reject")
        turns.end.set()
        await client.until(type="result")
        await other.until(type="result")
        await accepted(other, "b", if_session_busy="reject")
    assert sorted(turns.begun) == ["a", "b", "c"]


async def test_what_is_named_is_the_newest(serve_wherever: ServeAgent, turns: Turns) -> None:
    pair = await serve_wherever(turns.agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        for invocation_id in ("a", "b", "c"):
            await accepted(client, invocation_id)
        error = await refused(other, "d", if_session_busy="reject")
        assert error["running_invocation_id"] == "c"


async def test_sessions_of_others_are_not_busy(serve_wherever: ServeAgent, turns: Turns) -> None:
    pair = await serve_wherever(turns.agent, invocations={"if_session_busy": "reject"})
    ann, bob = ({"x-agent-user-id": name} for name in ("ann", "bob"))
    async with pair.owner.connect(headers=ann) as client, pair.other.connect(headers=bob) as other:
        await accepted(client, "a")
        await accepted(other, "b")
        error = await refused(client, "c")  # as the setting has it
        assert error["running_invocation_id"] == "a"


async def test_an_invoke_interrupts(serve_wherever: ServeAgent, turns: Turns) -> None:
    pair = await serve_wherever(turns.agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await accepted(client, "a")
        await accepted(client, "b")
        await accepted(other, "c", if_session_busy="interrupt")
        ends = [await client.receive() for _ in range(2)]
        assert {end["invocation_id"] for end in ends} == {"a", "b"}
        for end in ends:
            error = end["error"]
            assert (error["code"], error["reason"]) == ("cancelled", "superseded")
            assert error["superseded_by"] == "c"
        for server in (pair.owner, pair.other):
            _, record = await get(server, "a")
            assert record["status"] == "cancelled"
            assert record["error"]["reason"] == "superseded"
            assert record["error"]["superseded_by"] == "c"
        turns.end.set()
        assert (await other.receive())["type"] == "result"
    assert turns.begun == ["a", "b", "c"]


async def test_what_does_not_end_is_not_interrupted(serve_wherever: ServeAgent) -> None:
    turns = Turns(swallows=True)
    pair = await serve_wherever(turns.agent, invocations={"cancel_grace": 0.1})
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await accepted(client, "a")
        await accepted(other, "b", if_session_busy="interrupt")
        _, waiting = await get(pair.owner, "b")
        assert waiting["status"] == "running"
        frame = await other.receive()
        assert frame["error"]["code"] == "session_busy"
        assert frame["error"]["running_invocation_id"] == "a"
        assert (await get(pair.owner, "b"))[0] == (await get(pair.other, "b"))[0] == 404
        turns.end.set()
        await client.until(type="error")
        await accepted(other, "b")  # its id is free
        await other.until(type="result")
    assert turns.begun == ["a", "b"]


async def test_one_that_waits_for_its_turn_can_be_cancelled(serve_wherever: ServeAgent) -> None:
    turns = Turns(swallows=True)
    pair = await serve_wherever(turns.agent, invocations={"cancel_grace": 1.0})
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await accepted(client, "a")
        await accepted(other, "b", if_session_busy="interrupt")
        frame = await other.ask(action="send_input", invocation_id="b")  # it takes inputs
        assert frame["payload"]["status"] == "accepted"
        await client.send(action="cancel_invocation", invocation_id="b")
        assert (await other.receive())["error"]["reason"] == "client"
        turns.end.set()
    assert turns.begun == ["a"]


async def test_of_two_that_interrupt_one_wins(serve_wherever: ServeAgent, turns: Turns) -> None:
    pair = await serve_wherever(turns.agent)
    async with (
        pair.owner.connect() as client,
        pair.owner.connect() as first,
        pair.other.connect() as second,
    ):
        await accepted(client, "a")
        for peer, name in ((first, "b"), (second, "c")):
            await peer.send(
                action="invoke", invocation_id=name, session_id="s", if_session_busy="interrupt"
            )
        assert (await client.receive())["error"]["reason"] == "superseded"
        ends = {
            asyncio.create_task(first.receive()): "b",
            asyncio.create_task(second.receive()): "c",
        }
        done, (left,) = await asyncio.wait(
            ends, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE
        )
        (loser,) = done
        assert loser.result()["error"]["reason"] == "superseded"
        assert loser.result()["error"]["superseded_by"] == ends[left]
        turns.end.set()
        assert (await left)["type"] == "result"
    assert ends[left] in turns.begun


async def test_of_many_that_are_rejected_one_runs(serve_wherever: ServeAgent, turns: Turns) -> None:
    pair = await serve_wherever(turns.agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        for number in range(20):
            await (client if number % 2 else other).send(
                action="invoke",
                invocation_id=f"i{number}",
                session_id="s",
                if_session_busy="reject",
                query_id="q",
            )
        frames = [await (client if number % 2 else other).receive() for number in range(20)]
        kinds = [frame["type"] for frame in frames]
        assert (kinds.count("accepted"), kinds.count("error")) == (1, 19)
        (winner,) = (frame["invocation_id"] for frame in frames if frame["type"] == "accepted")
        for frame in frames:
            if frame["type"] == "error":
                assert frame["error"]["running_invocation_id"] == winner
    assert turns.begun == [winner]


async def test_over_http_headers_say_the_same(serve_wherever: ServeAgent, turns: Turns) -> None:
    pair = await serve_wherever(turns.agent)
    url = f"{pair.other.http}/invocations?agent_session_id=s"
    async with pair.owner.connect() as client, aiohttp.ClientSession() as session:
        await accepted(client, "a")
        headers = {"x-agent-if-session-busy": "reject", "x-agent-invocation-id": "b"}
        async with session.post(url, headers=headers) as response:
            assert response.status == 409
            error = (await response.json())["error"]
            assert (error["code"], error["running_invocation_id"]) == ("session_busy", "a")
        headers = {"x-agent-if-session-busy": "interrupt", "prefer": "respond-async"}
        async with session.post(url, headers=headers) as response:
            assert response.status == 202
            newest = (await response.json())["invocation_id"]
        assert (await client.receive())["error"]["superseded_by"] == newest
        for name in ("x-agent-if-session-busy", "x-agent-on-disconnect"):
            async with session.post(url, headers={name: "maybe"}) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"]) == (400, "invalid_request")
                assert name in error["message"]


@pytest.mark.parametrize("value", ["", "maybe", 7])
@pytest.mark.parametrize("name", ["if_session_busy", "if_exists"])
async def test_another_word_is_refused(serve: Serve, turns: Turns, name: str, value: Any) -> None:
    server = await serve(turns.agent)
    async with server.connect() as client:
        error = await refused(client, "a", **{name: value})
        assert error["code"] == "invalid_request"
        assert name in error["message"]
    assert turns.begun == []
