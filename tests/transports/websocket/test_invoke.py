"""Invoking on the framed socket: what is answered, and what the handler is told (§3-§5)."""

import dataclasses
import datetime
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pydantic
import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Serve
from tests.support.agents import agent_of, echo
from tests.transports.websocket.conftest import UUID, Tap, assert_alive, count, told


async def test_a_coroutine_answers_with_one_result(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        assert await client.ask(
            action="invoke", payload={"a": [1, "é", None]}, invocation_id="i", session_id="s"
        ) == {
            "type": "result",
            "invocation_id": "i",
            "session_id": "s",
            "payload": {"a": [1, "é", None]},
        }
        await assert_alive(client)


async def test_a_generator_answers_with_numbered_chunks_and_an_end(serve: Serve) -> None:
    server = await serve(agent_of(count))
    async with server.connect() as client:
        await client.send(action="invoke", payload=3, invocation_id="i", session_id="s")
        ids = {"invocation_id": "i", "session_id": "s"}
        for number in (1, 2, 3):
            assert await client.receive() == {
                "type": "stream_chunk",
                **ids,
                "sequence_number": number,
                "payload": number - 1,
            }
        assert await client.receive() == {"type": "stream_end", **ids}
        await assert_alive(client)


async def test_a_generator_that_yields_nothing_answers_with_an_end_only(serve: Serve) -> None:
    server = await serve(agent_of(count))
    async with server.connect() as client:
        frame = await client.ask(action="invoke", payload=0, invocation_id="i", session_id="s")
        assert frame == {"type": "stream_end", "invocation_id": "i", "session_id": "s"}


async def test_chunks_arrive_while_the_generator_runs(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with server.connect() as client:
        await client.send(action="invoke")
        for number in (1, 2, 3):
            await tap.let_out(number)
            assert (await client.receive())["payload"] == number
        await tap.close()
        assert (await client.receive())["type"] == "stream_end"


async def test_a_binary_message_is_read_like_a_text_message(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        await client.connection.send(b'{"action":"invoke","payload":"\xc3\xa9"}')
        assert (await client.receive())["payload"] == "é"


async def test_a_fragmented_message_is_read_whole(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        await client.connection.send(['{"action":"inv', 'oke","payl', 'oad":"whole"}'])
        assert (await client.receive())["payload"] == "whole"


async def test_unknown_fields_are_ignored_and_null_is_as_not_given(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    nothing = dict.fromkeys(
        ("invocation_id", "session_id", "background", "on_disconnect", "traceparent", "baggage")
    )
    async with server.connect() as client:
        frame = await client.ask(action="invoke", payload=1, colour={"x": [None]}, **nothing)
        assert frame["payload"] == 1
        assert UUID.fullmatch(frame["invocation_id"])
        await client.send(
            action="attach_invocation",
            invocation_id=frame["invocation_id"],
            starting_after=None,
            other=1,
        )
        assert (await client.receive())["payload"] == 1


async def test_the_payload_defaults_to_an_empty_object(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        assert (await client.ask(action="invoke"))["payload"] == {}


async def test_every_invoke_without_an_id_gets_a_new_uuid(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        ids = [
            (await client.ask(action="invoke", **fields))["invocation_id"]
            for fields in ({}, {"invocation_id": ""}, {"invocation_id": None})
        ]
    assert len(set(ids)) == 3
    assert all(UUID.fullmatch(made) for made in ids)


@pytest.mark.parametrize("given", ["a" * 256, "A.b_c:d-1", "..x", "0"])
async def test_an_id_of_the_caller_is_kept(serve: Serve, given: str) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        frame = await client.ask(action="invoke", invocation_id=given, session_id=given)
        assert (frame["invocation_id"], frame["session_id"]) == (given, given)


async def test_the_context_tells_who_calls(serve: Serve) -> None:
    contexts: list[InvocationContext] = []

    async def invoke(payload: Any, context: InvocationContext) -> None:
        contexts.append(context)

    server = await serve(agent_of(invoke))
    async with server.connect(
        "/invocations_ws/ws?tenant=t&agent_session_id=q",
        {
            "X-Client-Version": "7",
            "x-agent-user-id": "ann",
            "x-agent-foundry-call-id": "c",
            "x-request-id": "r",
            "x-other": "no",
        },
    ) as client:
        await client.ask(action="invoke", invocation_id="i")
    (context,) = contexts
    assert (context.invocation_id, context.session_id) == ("i", "q")
    assert context.transport == "websocket"
    assert dict(context.client_headers) == {"x-client-version": "7"}
    assert dict(context.query) == {"tenant": "t", "agent_session_id": "q"}
    assert (context.user_id, context.call_id, context.request_id) == ("ann", "c", "r")


class Point(msgspec.Struct):
    x: int


@dataclasses.dataclass
class Place:
    name: str


class Model(pydantic.BaseModel):
    when: datetime.date


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, None),
        (False, False),
        (10**30, 10**30),
        (float("nan"), None),
        (float("-inf"), None),
        ({"a": (1, {2})}, {"a": [1, [2]]}),
        (Point(1), {"x": 1}),
        (Place("here"), {"name": "here"}),
        (Model(when=datetime.date(2024, 1, 2)), {"when": "2024-01-02"}),
        ([Model(when=datetime.date(2024, 1, 2))], [{"when": "2024-01-02"}]),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), "2024-01-02T00:00:00Z"),
    ],
    ids=repr,
)
async def test_a_handler_may_return_or_yield(serve: Serve, value: object, encoded: Any) -> None:
    async def stream(payload: Any, context: InvocationContext) -> AsyncGenerator[object, None]:
        yield value

    async def once(payload: Any, context: InvocationContext) -> object:
        return value

    for invoke in (once, stream):
        server = await serve(agent_of(invoke))
        async with server.connect() as client:
            frame = await client.ask(action="invoke")
            assert frame["payload"] == encoded
            assert "payload" in frame


async def test_without_an_invoke_handler_an_invoke_is_not_implemented(serve: Serve) -> None:
    server = await serve(Agent())
    async with server.connect() as client:
        frame = await client.ask(action="invoke", invocation_id="i", session_id="s")
        assert told(frame) == {
            "type": "error",
            "action": "invoke",
            "invocation_id": "i",
            "session_id": "s",
            "error": "not_implemented",
        }
        assert frame["error"]["source"] == "upstream"
        await assert_alive(client)


async def test_a_ping_is_answered_and_a_pong_taken_in_silence(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        await client.send(action="pong")
        assert await client.ask(action="ping") == {"type": "pong"}
        await client.send(action="pong")
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1
