"""Inputs: what clients say to a running invocation, on whatever replica (§5)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Client, Frame, Serve
from tests.support.replicas import ServeAgent


def echoing() -> Agent:
    """Return an agent that yields what it is told, until that is `stop`."""
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "ready"
        async for message in context.inputs:
            if message.payload == "stop":
                return
            yield message.payload

    return agent


async def ready(client: Client, **fields: Any) -> None:
    await client.send(action="invoke", invocation_id="i", **fields)
    await client.until(type="stream_chunk", payload="ready")


async def say(client: Client, payload: Any, **fields: Any) -> Frame:
    await client.send(action="send_input", invocation_id="i", payload=payload, **fields)
    return await client.until(action="send_input")


async def test_what_is_said_arrives_in_order(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(echoing())
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await ready(client)
        for number in range(10):
            await other.send(action="send_input", invocation_id="i", payload=number)
        for _ in range(10):
            frame = await other.until(action="send_input")
            assert frame["payload"] == {"invocation_id": "i", "status": "accepted"}
        heard = [(await client.receive())["payload"] for _ in range(10)]
        assert heard == list(range(10))
        await say(other, "stop")
        assert (await client.receive())["type"] == "stream_end"


async def test_over_http_it_is_accepted_with_202(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(echoing())
    async with pair.owner.connect() as client, aiohttp.ClientSession() as session:
        await ready(client)
        url = f"{pair.other.http}/invocations/i/inputs"
        body = {"payload": {"text": "hi"}, "input_id": "one"}
        async with session.post(url, json=body) as response:
            assert response.status == 202
            assert response.headers["x-agent-invocation-id"] == "i"
            assert await response.json() == {
                "invocation_id": "i",
                "input_id": "one",
                "status": "accepted",
            }
        assert (await client.receive())["payload"] == {"text": "hi"}
        async with session.post(url) as response:  # an absent payload is an empty one
            assert response.status == 202
        assert (await client.receive())["payload"] == {}
        async with session.post(url, json={"payload": None}) as response:
            assert response.status == 202
        assert (await client.receive())["payload"] is None


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("[1]", "The body must be a JSON object"),
        ('{"inputId":"x"}', "it is input_id"),
        ('{"input_id":"a b"}', "input_id must be"),
        ('{"request_id":7}', "request_id: expected"),
    ],
)
async def test_a_bad_body_is_refused(serve: Serve, body: str, complaint: str) -> None:
    server = await serve(echoing())
    async with server.connect() as client, aiohttp.ClientSession() as session:
        await ready(client)
        async with session.post(f"{server.http}/invocations/i/inputs", data=body) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (400, "invalid_request")
            assert complaint in error["message"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"invocation_id": ""}, "invocation_id"),
        ({"invocation_id": "i", "input_id": "a b"}, "input_id"),
        ({"invocation_id": "i", "request_id": 7}, "request_id"),
        ({"invocation_id": "i", "queryId": "q"}, "query_id"),
    ],
)
async def test_a_bad_message_names_its_field(serve: Serve, fields: Frame, name: str) -> None:
    server = await serve(echoing())
    async with server.connect() as client:
        frame = await client.ask(action="send_input", **fields)
        assert (frame["error"]["code"], frame["action"]) == ("invalid_request", "send_input")
        assert name in frame["error"]["message"]


async def test_an_input_is_taken_once(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(echoing())
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await ready(client)
        for peer in (other, client, other):
            frame = await say(peer, "hello", input_id="one")
            assert frame["payload"]["status"] == "accepted"
        await say(other, "stop")
        await other.send(action="attach_invocation", invocation_id="i", starting_after=1)
        assert (await other.receive())["payload"] == "hello"
        assert (await other.receive())["type"] == "stream_end"
        for peer in (client, other):
            assert (await say(peer, "hello", input_id="one"))["payload"]["status"] == "accepted"
            late = (await say(peer, "hello", input_id="two"))["error"]
            assert (late["code"], late["source"]) == ("already_finished", "user")


async def test_an_inbox_has_its_bound(serve_wherever: ServeAgent) -> None:
    agent = Agent()
    read = asyncio.Event()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "ready"
        await read.wait()
        for _ in range(3):
            yield (await context.receive()).payload

    pair = await serve_wherever(agent, invocations={"max_pending_inputs": 2})
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await ready(client)
        assert "payload" in await say(other, 1)
        assert "payload" in await say(other, 2, input_id="two")
        error = (await say(other, 3, input_id="three"))["error"]
        assert (error["code"], error["retryable"]) == ("too_many_inputs", True)
        assert error["source"] == "platform"
        read.set()
        await client.until(type="stream_chunk", payload=2)
        # What was refused was not seen: under the same name it is taken now.
        assert "payload" in await say(other, 3, input_id="three")
        assert (await client.until(type="stream_chunk", payload=3))["sequence_number"] == 4


async def test_what_is_not_there_or_anothers_is_not_found(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(echoing())
    ann, bob = ({"x-agent-user-id": name} for name in ("ann", "bob"))
    async with pair.owner.connect(headers=ann) as client, pair.other.connect(headers=bob) as other:
        await ready(client)
        for invocation_id in ("i", "unknown"):
            frame = await other.ask(action="send_input", invocation_id=invocation_id, query_id="q")
            assert frame["error"]["code"] == "not_found"
            assert (frame["invocation_id"], frame["query_id"]) == (invocation_id, "q")


async def test_several_may_wait_and_each_message_goes_to_one(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        with pytest.raises(TimeoutError):
            await context.receive(timeout=0.01)
        yield "ready"
        first, second = await asyncio.gather(context.receive(), context.receive())
        yield sorted([first.payload, second.payload])

    server = await serve(agent)
    async with server.connect() as client:
        await ready(client)
        await client.send(action="send_input", invocation_id="i", payload=1)
        await client.send(action="send_input", invocation_id="i", payload=2)
        await client.until(type="stream_chunk", payload=[1, 2])


async def test_what_nobody_reads_is_dropped_with_the_end(serve: Serve) -> None:
    agent = Agent()
    go_on = asyncio.Event()
    contexts: list[InvocationContext] = []

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        contexts.append(context)
        yield "ready"
        await go_on.wait()

    server = await serve(agent)
    async with server.connect() as client:
        await ready(client)
        await say(client, "hello")
        go_on.set()
        await client.until(type="stream_end")
        with pytest.raises(RuntimeError, match="has ended"):
            await contexts[0].receive()
        with pytest.raises(RuntimeError, match="has ended"):
            await contexts[0].ask("Anybody?")


async def test_others_than_invoke_handlers_hear_nothing(serve: Serve) -> None:
    agent = echoing()

    @agent.get_invocation_handler
    async def look(context: InvocationContext) -> str:
        with pytest.raises(RuntimeError, match="Only an invoke handler") as failure:
            await context.receive()
        return str(failure.value)

    server = await serve(agent)
    async with server.connect() as client:
        frame = await client.ask(action="get_invocation", invocation_id="i")
        assert "Only an invoke handler can talk to its clients" in frame["payload"]


async def test_a_handler_learns_of_the_drain(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield context.draining
        await context.drained()
        yield context.draining
        yield (await context.receive()).payload

    server = await serve(agent, server={"shutdown_grace": 5.0})
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        assert (await client.until(type="stream_chunk"))["payload"] is False
        async with server.draining():
            assert (await client.until(type="stream_chunk"))["payload"] is True
            await say(client, "bye")  # what runs is spoken to until the end
            await client.until(type="stream_end")
