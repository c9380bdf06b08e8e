"""Several servers on one Redis: what one of them runs, all of them answer for (§5, §10)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import pytest

from agentws import Agent, InvocationContext, InvocationError
from tests.conftest import PATIENCE, Client, Serve
from tests.support.agents import Gate, agent_of, echo
from tests.support.redis_server import RedisServer
from tests.support.replicas import Pair, ServePair, Stage, begin, chunks, get, run_to_end

# --- the four verbs, from the other side ------------------------------------------------------


async def test_a_running_invocation_is_polled(
    pair: Pair, stage: Stage, client: Client, other: Client
) -> None:
    await run_to_end(client, stage, 1, 2, session_id="s")
    frame = await other.ask(action="get_invocation", invocation_id="i")
    assert frame["payload"].items() >= {"session_id": "s", "status": "completed"}.items()
    assert frame["payload"]["stream"] == {"first_available": 1, "last_sequence_number": 2}
    assert await get(pair.other) == await get(pair.owner)


async def test_who_has_seen_the_end_finds_it_everywhere(
    redis: RedisServer, serve_pair: ServePair
) -> None:
    pair = await serve_pair(redis, agent_of(echo))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        for number in range(100):
            answer = await client.ask(action="invoke", payload=number)
            frame = await other.ask(action="get_invocation", invocation_id=answer["invocation_id"])
            assert frame["payload"]["status"] == "completed"
            assert frame["payload"].get("result") == number


async def test_a_live_stream_is_followed(stage: Stage, client: Client, other: Client) -> None:
    await begin(client, stage, "a", "b")
    await other.send(action="attach_invocation", invocation_id="i", starting_after=1)
    assert await chunks(other, 1) == ["b"]
    for line in ["c", "d", "e"]:
        stage.say("i", line)
        assert await chunks(other, 1) == [line]
    stage.say("i", Stage.END)
    assert (await other.receive())["type"] == "stream_end"
    assert (await client.until(type="stream_end"))["invocation_id"] == "i"


async def test_a_live_stream_is_followed_over_http(
    pair: Pair, stage: Stage, client: Client
) -> None:
    await begin(client, stage, "a", "b")
    url = f"{pair.other.http}/invocations/i"
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(url) as response,
    ):
        stage.say("i", "c", Stage.END)
        text = await response.text()
    assert [line for line in text.splitlines() if line.startswith(("id", "event"))] == [
        *("id: 2", "event: stream_chunk", "id: 3", "event: stream_chunk"),
        *("id: end", "event: stream_end"),
    ]


async def test_who_has_seen_the_end_comes_to_rest_on_another_replica(
    pair: Pair, stage: Stage, client: Client
) -> None:
    await begin(client, stage, "a")
    url = f"{pair.other.http}/invocations/i"
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "end"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(url) as response:
            assert response.status == 400
        stage.say("i", Stage.END)
        await client.until(type="stream_end")
        async with session.get(url) as response:
            assert (response.status, await response.read()) == (204, b"")


async def test_many_follow_each_from_its_own_place(
    pair: Pair, stage: Stage, client: Client
) -> None:
    await begin(client, stage, *range(10))
    followers = []
    async with AsyncExitStack() as stack:
        for after in [0, 5, 10, 12, 3]:
            follower = await stack.enter_async_context(pair.other.connect())
            await follower.send(action="attach_invocation", invocation_id="i", starting_after=after)
            followers.append((after, follower))
        stage.say("i", *range(10, 20), Stage.END)
        for after, follower in followers:
            assert await chunks(follower, 20 - after) == list(range(after, 20))
            assert (await follower.receive())["type"] == "stream_end"


async def test_a_result_is_waited_for(redis: RedisServer, serve_pair: ServePair) -> None:
    gate = Gate()
    pair = await serve_pair(redis, agent_of(gate))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await client.send(action="invoke", invocation_id="i", payload={"a": "ü"}, background=True)
        assert (await client.receive())["type"] == "accepted"
        await other.send(action="attach_invocation", invocation_id="i")
        await other.ask(action="get_invocation", invocation_id="i")  # the attach was heard
        gate.opened.set()
        assert (await other.until(type="result"))["payload"] == {"a": "ü"}


async def test_a_failure_is_told_as_it_was(redis: RedisServer, serve_pair: ServePair) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield 1
        raise InvocationError("quota", "No more", 429)

    pair = await serve_pair(redis, agent_of(invoke))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await client.send(action="invoke", invocation_id="i")
        error = await client.until(type="error")
        await other.send(action="attach_invocation", invocation_id="i")
        assert await chunks(other, 1) == [1]
        assert await other.receive() == error
        assert error["error"]["retryable"] is True


@pytest.mark.parametrize("code", ["shutting_down", "lost"])
async def test_what_an_agent_raises_is_never_the_platforms(
    redis: RedisServer, serve_pair: ServePair, code: str
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        raise InvocationError(code, "Says the agent")

    pair = await serve_pair(redis, agent_of(invoke))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        error = await client.ask(action="invoke", invocation_id="i")
        assert (error["error"]["code"], error["error"]["source"]) == (code, "upstream")
        assert await other.ask(action="attach_invocation", invocation_id="i") == error


async def test_an_invocation_is_cancelled(
    pair: Pair, stage: Stage, client: Client, other: Client
) -> None:
    await begin(client, stage, 1)
    frame = await other.ask(action="cancel_invocation", invocation_id="i")
    assert frame["payload"] == {"invocation_id": "i", "status": "cancelled"}
    await stage.is_interrupted("i")
    assert (await client.until(type="error"))["error"]["code"] == "cancelled"
    frame = await other.ask(action="cancel_invocation", invocation_id="i")
    assert frame["error"]["code"] == "already_finished"
    assert (await get(pair.other))[1]["status"] == "cancelled"


async def test_a_handler_that_does_not_obey_is_still_cancelling(
    redis: RedisServer, serve_pair: ServePair
) -> None:
    end = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> None:
        while not end.is_set():
            with suppress(asyncio.CancelledError):
                await end.wait()

    pair = await serve_pair(redis, agent_of(invoke), invocations={"cancel_grace": 0.3})
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await client.send(action="invoke", invocation_id="i", background=True)
        await client.receive()
        frame = await other.ask(action="cancel_invocation", invocation_id="i")
        assert frame["payload"] == {"invocation_id": "i", "status": "cancelling"}
        assert (await get(pair.other))[1]["status"] == "running"
        end.set()


async def test_an_id_is_taken_everywhere(stage: Stage, client: Client, other: Client) -> None:
    await begin(client, stage, 1)
    for expected in ("running", "ended"):
        frame = await other.ask(action="invoke", invocation_id="i")
        assert frame["error"]["code"] == "already_exists", expected
        stage.say("i", Stage.END)
        await asyncio.wait_for(wait_for_end(other), PATIENCE)


async def wait_for_end(client: Client) -> None:
    await client.send(action="attach_invocation", invocation_id="i")
    await client.until(type="stream_end")


async def test_of_many_replicas_that_claim_an_id_at_once_one_gets_it(
    stage: Stage, client: Client, other: Client
) -> None:
    for number in range(20):
        stage.say(f"i{number}", 0, Stage.END)
        answers = await asyncio.gather(
            *(it.ask(action="invoke", invocation_id=f"i{number}") for it in (client, other))
        )
        kinds = sorted(frame["type"] for frame in answers)
        assert kinds == ["error", "stream_chunk"]
        winner = (client, other)[[frame["type"] for frame in answers].index("stream_chunk")]
        assert (await winner.receive())["type"] == "stream_end"


@pytest.mark.parametrize("action", ["get_invocation", "cancel_invocation", "attach_invocation"])
async def test_another_owners_invocation_does_not_exist(
    pair: Pair, stage: Stage, action: str
) -> None:
    alice, bob = {"x-agent-user-id": "alice"}, {"x-agent-user-id": "bob"}
    async with (
        pair.owner.connect(headers=alice) as client,
        pair.other.connect(headers=bob) as stranger,
        pair.other.connect(headers=alice) as owner,
    ):
        await begin(client, stage, 1)
        frame = await stranger.ask(action=action, invocation_id="i")
        assert frame["error"]["code"] == "not_found"
        assert not stage.interrupted["i"].is_set()
        frame = await owner.ask(action=action, invocation_id="i")
        assert frame["type"] in ("result", "stream_chunk")


async def test_what_nobody_started_is_nowhere(other: Client) -> None:
    for action in ("get_invocation", "cancel_invocation", "attach_invocation"):
        frame = await other.ask(action=action, invocation_id="i")
        assert frame["error"]["code"] == "not_found"


# --- listeners --------------------------------------------------------------------------------


async def test_a_listener_on_another_replica_counts(
    redis: RedisServer, serve_pair: ServePair, stage: Stage
) -> None:
    pair = await serve_pair(redis, invocations={"disconnect_grace": 0.5})
    async with pair.other.connect() as other:
        async with pair.owner.connect() as client:
            await begin(client, stage, 1)
            await other.send(action="attach_invocation", invocation_id="i")
            assert await chunks(other, 1) == [1]
        for line in range(2, 8):  # three times as long as the owner would wait for nobody
            await asyncio.sleep(0.25)
            stage.say("i", line)
            assert await chunks(other, 1) == [line]
    await stage.is_interrupted("i")
    assert (await get(pair.other))[1]["status"] == "cancelled"


async def test_a_lone_listener_that_reads_loses_nothing(
    redis: RedisServer, serve_pair: ServePair
) -> None:
    go_on, count = asyncio.Event(), 5000

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        await go_on.wait()
        for number in range(count):
            yield number

    pair = await serve_pair(redis, agent_of(invoke), invocations={"replay_bytes": 1000})
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await client.send(action="invoke", invocation_id="i", background=True)
        await client.receive()
        await other.send(action="attach_invocation", invocation_id="i")
        await other.ask(action="get_invocation", invocation_id="i")
        await asyncio.sleep(0.1)  # until the owner has heard of it, nobody waits for it
        go_on.set()
        assert await chunks(other, count) == list(range(count))
        assert (await other.receive())["type"] == "stream_end"


async def test_who_comes_too_late_is_told_of_the_gap(
    redis: RedisServer, serve_pair: ServePair, stage: Stage
) -> None:
    pair = await serve_pair(redis, invocations={"replay_bytes": 40})
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await begin(client, stage, *("x" * 8 for _ in range(20)))
        for server in ("running", "ended"):
            frame = await other.ask(action="attach_invocation", invocation_id="i")
            assert frame["error"]["code"] == "replay_gap", server
            first = frame["error"]["first_available"]
            assert first == 17
            await other.send(
                action="attach_invocation", invocation_id="i", starting_after=first - 1
            )
            assert await chunks(other, 4) == ["x" * 8] * 4
            stage.say("i", Stage.END)
            await other.until(type="stream_end")


async def test_many_attach_while_it_ends(stage: Stage, client: Client, other: Client) -> None:
    for number in range(50):
        invocation_id = f"i{number}"
        stage.say(invocation_id, 1, 2, Stage.END)
        await client.send(action="invoke", invocation_id=invocation_id)
        await client.receive()
        await other.send(action="attach_invocation", invocation_id=invocation_id, starting_after=1)
        assert await chunks(other, 1) == [2]
        assert (await other.receive())["type"] == "stream_end"
        await client.until(type="stream_end")


# --- what the agent's own handlers decide -----------------------------------------------------


async def test_custom_handlers_run_where_they_are_asked(
    redis: RedisServer, serve_pair: ServePair, stage: Stage
) -> None:
    @stage.agent.get_invocation_handler
    async def get_invocation(context: InvocationContext) -> Any:
        return {"of": context.invocation_id}

    @stage.agent.cancel_invocation_handler
    async def cancel_invocation(context: InvocationContext) -> Any:
        return "as you like"

    pair = await serve_pair(redis)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await begin(client, stage, 1)
        for invocation_id in ("i", "unknown"):
            frame = await other.ask(action="get_invocation", invocation_id=invocation_id)
            assert frame["payload"] == {"of": invocation_id}
        frame = await other.ask(action="cancel_invocation", invocation_id="i")
        assert frame["payload"] == "as you like"
        await stage.is_interrupted("i")
        assert (await client.until(type="error"))["error"]["code"] == "cancelled"


# --- the end of a replica ---------------------------------------------------------------------


async def test_a_replica_that_is_stopped_leaves_logs_that_others_read(
    redis: RedisServer, serve_pair: ServePair, stage: Stage
) -> None:
    pair = await serve_pair(redis, server={"shutdown_grace": 0.2})
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await begin(client, stage, 1, 2)
        await other.send(action="attach_invocation", invocation_id="i")
        assert await chunks(other, 2) == [1, 2]
        draining = asyncio.create_task(pair.owner.server.drain())
        assert (await client.receive())["type"] == "going_away"
        stage.say("i", 3)
        assert await chunks(other, 1) == [3]
        end = await other.receive()
        assert (end["error"]["code"], end["error"]["source"]) == ("shutting_down", "platform")
        await draining
        await other.send(action="attach_invocation", invocation_id="i", starting_after=2)
        assert await chunks(other, 1) == [3]
        assert await other.receive() == end
        assert (await get(pair.other))[1]["status"] == "failed"


async def test_a_drain_during_which_others_end_leaves_nothing_undone(
    redis: RedisServer, serve: Serve
) -> None:
    agent, shut_down = Agent(), asyncio.Event()

    @agent.invoke_handler
    async def swallow(payload: float, context: InvocationContext) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(payload)

    @agent.shutdown_handler
    async def shutdown() -> None:
        shut_down.set()

    patience = 0.2
    server = await serve(agent, store={"url": redis.url}, invocations={"cancel_grace": patience})
    async with server.connect() as client:
        # Some end before they are given up, some at that very time, some after.
        for number in range(40):
            await client.send(action="invoke", payload=patience * number / 20)
        await client.send(action="invoke", payload=0.0, background=True)
        await client.until(type="accepted")
        await server.server.drain()
        ends = [await client.until(type="error") for _ in range(40)]
        assert await client.closed() == 1001
    assert {frame["error"]["code"] for frame in ends} == {"shutting_down"}
    assert len({frame["invocation_id"] for frame in ends}) == 40
    assert shut_down.is_set()
