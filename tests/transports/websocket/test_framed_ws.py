"""The framed socket over the wire: every action and frame (§3-§5), and all bad input (§7)."""

import asyncio
import dataclasses
import datetime
import json
import re
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from unittest.mock import ANY

import msgspec
import pydantic
import pytest

from agentws import Agent, InvocationContext, InvocationError
from agentws.agent.handlers import InvokeHandler
from agentws.transports.websocket.framed_ws import FLUSH_PATIENCE
from tests.conftest import PATIENCE, Client, Frame, LogLines, Serve
from tests.support.peers import CLOSE, PING, PONG, TEXT, FramedPeer, masked

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MIB = 1024**2


async def echo(payload: Any, context: InvocationContext) -> Any:
    return payload


async def count(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
    for number in range(payload):
        yield number


async def forever(payload: Any, context: InvocationContext) -> Any:
    await asyncio.Event().wait()


def agent_of(invoke: InvokeHandler) -> Agent:
    agent = Agent()
    agent.invoke_handler(invoke)
    return agent


class Gate:
    """A coroutine handler that tells when it runs, and returns when it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, payload: Any, _context: InvocationContext) -> Any:
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return payload


class Gates:
    """A handler with one gate for each invocation, by its id."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def __getitem__(self, invocation_id: str) -> Gate:
        return self._gates.setdefault(invocation_id, Gate())

    async def __call__(self, payload: Any, context: InvocationContext) -> Any:
        return await self[context.invocation_id](payload, context)


class Tap:
    """A generator handler: yields numbers from 1 on as they are let out, ends when it is closed."""

    def __init__(self) -> None:
        self._let_out = 0
        self._closed = False
        self._news = asyncio.Condition()

    async def let_out(self, number: int) -> None:
        async with self._news:
            self._let_out = number
            self._news.notify_all()

    async def close(self) -> None:
        async with self._news:
            self._closed = True
            self._news.notify_all()

    async def __call__(
        self, _payload: Any, _context: InvocationContext
    ) -> AsyncGenerator[int, None]:
        number = 0
        while not (self._closed and number == self._let_out):
            async with self._news:
                while not self._closed and number == self._let_out:
                    await self._news.wait()
            while number < self._let_out:
                number += 1
                yield number


async def within_patience(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE)


def told(frame: Frame) -> Frame:
    """An error frame with the code in place of the error object."""
    assert frame["type"] == "error", frame
    return {**frame, "error": frame["error"]["code"]}


async def assert_alive(client: Client) -> None:
    assert await client.ask(action="ping") == {"type": "pong"}


async def end_of(client: Client, invocation_id: str) -> Frame:
    """Follow an invocation on this socket, and return the frame that ends it."""
    await client.send(action="attach_invocation", invocation_id=invocation_id)
    while (frame := await client.receive())["type"] == "stream_chunk":
        pass
    return frame


def answer_to(action: str, invocation_id: str, payload: Any) -> Frame:
    """The frame that answers an action, which has no session (§4)."""
    ids = {"action": action, "invocation_id": invocation_id}
    return {"type": "result", **ids, "payload": payload}


async def record_of(client: Client, invocation_id: str) -> Frame:
    frame = await client.ask(action="get_invocation", invocation_id=invocation_id)
    assert frame.keys() == {"type", "action", "invocation_id", "payload"}, frame
    assert (frame["type"], frame["action"]) == ("result", "get_invocation")
    record = frame["payload"]
    assert isinstance(record, dict)
    return record


def vanish(client: Client) -> None:
    """Drop the connection without a close frame."""
    client.connection.transport.abort()


# --- invoke -----------------------------------------------------------------------------------


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


# --- ping and pong ----------------------------------------------------------------------------


async def test_a_ping_is_answered_and_a_pong_taken_in_silence(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        await client.send(action="pong")
        assert await client.ask(action="ping") == {"type": "pong"}
        await client.send(action="pong")
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1


# --- sessions (§2) ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "configured", "query", "expected"),
    [
        ("m", "c", "q", "m"),
        (None, "c", "q", "c"),
        ("", "", "q", "q"),
        (None, "", "q", "q"),
        ("m", "", "", "m"),
    ],
)
async def test_the_session_is_the_messages_else_the_settings_else_the_querys(
    serve: Serve, message: str | None, configured: str, query: str, expected: str
) -> None:
    server = await serve(agent_of(echo), agent={"session_id": configured})
    async with server.connect(f"/invocations_ws/ws?agent_session_id={query}") as client:
        frame = await client.ask(action="invoke", session_id=message)
        assert frame["session_id"] == expected


async def test_without_any_the_session_is_one_uuid_for_the_connection(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    sessions = set()
    for _ in range(2):
        async with server.connect() as client:
            assert client.connection.response is not None
            made = client.connection.response.headers["x-agent-session-id"]
            assert UUID.fullmatch(made)
            for _ in range(2):
                assert (await client.ask(action="invoke"))["session_id"] == made
            sessions.add(made)
    assert len(sessions) == 2


async def test_get_and_cancel_handlers_are_told_the_session(serve: Serve) -> None:
    agent = Agent()

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> list[str]:
        return [context.invocation_id, context.session_id]

    agent.cancel_invocation_handler(get)
    server = await serve(agent)
    async with server.connect("/invocations_ws/ws?agent_session_id=q") as client:
        for action in ("get_invocation", "cancel_invocation"):
            frame = await client.ask(action=action, invocation_id="i", session_id="s")
            assert frame == answer_to(action, "i", ["i", "s"])
            frame = await client.ask(action=action, invocation_id="i")
            assert frame["payload"] == ["i", "q"]


# --- duplicates -------------------------------------------------------------------------------


async def test_an_id_that_runs_or_is_retained_is_refused_and_nothing_is_run(serve: Serve) -> None:
    gate, runs = Gate(), []

    async def invoke(payload: Any, context: InvocationContext) -> Any:
        runs.append(payload)
        return await gate(payload, context)

    server = await serve(agent_of(invoke))
    refusal = {
        "type": "error",
        "action": "invoke",
        "invocation_id": "i",
        "session_id": "s",
        "error": "already_exists",
    }
    again = {"action": "invoke", "payload": "second", "invocation_id": "i", "session_id": "s"}
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", payload="first", invocation_id="i")
        await within_patience(gate.entered.wait())
        for background in (False, True):
            assert told(await client.ask(**again, background=background)) == refusal
            assert told(await other.ask(**again, background=background)) == refusal
        gate.opened.set()
        assert (await client.receive())["payload"] == "first"
        for background in (False, True):
            assert told(await client.ask(**again, background=background)) == refusal
            assert told(await other.ask(**again, background=background)) == refusal
        assert (await record_of(other, "i"))["result"] == "first"
    assert runs == ["first"]


async def test_an_id_is_free_again_when_the_retention_is_over(serve: Serve) -> None:
    server = await serve(agent_of(echo), invocations={"retention": 0.0})
    async with server.connect() as client:
        assert (await client.ask(action="invoke", payload=1, invocation_id="i"))["payload"] == 1
        frame = await client.ask(action="get_invocation", invocation_id="i")
        assert told(frame)["error"] == "not_found"
        assert (await client.ask(action="invoke", payload=2, invocation_id="i"))["payload"] == 2


async def test_a_duplicate_takes_nothing_from_the_client_that_has_yet_to_read(
    serve: Serve,
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        yield "x" * 12 * MIB  # more than the network holds
        yield "last"

    server = await serve(agent_of(invoke))
    async with server.connect() as other, server.connect(max_size=None) as client:
        client.connection.transport.pause_reading()
        await client.send(action="invoke", invocation_id="i")
        while (await record_of_any(other, "i")).get("status") != "completed":
            pass
        await client.send(action="invoke", invocation_id="i")
        await client.send(action="ping")
        client.connection.transport.resume_reading()
        frames = [await client.receive() for _ in range(5)]
    shapes = [(frame["type"], frame.get("sequence_number")) for frame in frames]
    assert sorted(shapes, key=repr) == sorted(
        [
            ("stream_chunk", 1),
            ("stream_chunk", 2),
            ("stream_end", None),
            ("error", None),
            ("pong", None),
        ],
        key=repr,
    )


async def record_of_any(client: Client, invocation_id: str) -> Frame:
    """The record of an invocation, empty as long as there is none."""
    frame = await client.ask(action="get_invocation", invocation_id=invocation_id)
    return frame["payload"] if frame["type"] == "result" else {}


# --- background -------------------------------------------------------------------------------


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


# --- losing the socket ------------------------------------------------------------------------

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
        await within_patience(gates["clock"].entered.wait())
        vanish(client)
    await within_patience(gates["clock"].cancelled.wait())
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
        await within_patience(deserted.wait())
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
            await within_patience(gates["clock"].entered.wait())
            await stays.send(action="attach_invocation", invocation_id="shared")
            await assert_alive(stays)
        await within_patience(gates["clock"].cancelled.wait())
        gates["shared"].opened.set()
        assert (await stays.receive())["type"] == "result"


async def test_an_invocation_that_was_attached_to_is_deserted_when_that_listener_leaves(
    serve: Serve,
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations=NO_GRACE)
    async with server.connect() as first:
        await first.send(action="invoke", invocation_id="i")
        await within_patience(gate.entered.wait())
        async with server.connect() as second:
            await second.send(action="attach_invocation", invocation_id="i")
            await assert_alive(second)
            await first.connection.close()
        await within_patience(gate.cancelled.wait())


# --- get_invocation ---------------------------------------------------------------------------


def as_time(text: str) -> datetime.datetime:
    assert text.endswith(("Z", "+00:00"))
    return datetime.datetime.fromisoformat(text)


async def test_get_answers_the_record_of_a_coroutine(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    before = datetime.datetime.now(datetime.UTC)
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", payload=[1], invocation_id="i", session_id="s")
        await within_patience(gate.entered.wait())
        running = await record_of(other, "i")
        created_at = as_time(running.pop("created_at"))
        assert running == {"invocation_id": "i", "session_id": "s", "status": "running"}
        gate.opened.set()
        await client.receive()
        ended = await record_of(other, "i")
    assert as_time(ended.pop("created_at")) == created_at
    finished_at = as_time(ended.pop("finished_at"))
    assert before <= created_at <= finished_at <= datetime.datetime.now(datetime.UTC)
    assert ended == {
        "invocation_id": "i",
        "session_id": "s",
        "status": "completed",
        "result": [1],
    }


async def test_get_tells_what_is_held_of_a_stream(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap), invocations={"replay_bytes": 2})
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        running = await record_of(client, "i")
        assert running["status"] == "running"
        assert running["stream"] == {"first_available": 1, "last_sequence_number": 0}
        await tap.let_out(5)
        for _ in range(5):
            await client.receive()
        await tap.close()
        assert (await client.receive())["type"] == "stream_end"
        ended = await record_of(client, "i")
    assert ended["stream"] == {"first_available": 4, "last_sequence_number": 5}
    assert ended["status"] == "completed"
    assert "result" not in ended


async def test_get_tells_the_error_of_a_failed_invocation(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        raise InvocationError("quota", "Come back tomorrow", status=403)

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        await client.ask(action="invoke", invocation_id="i")
        record = await record_of(client, "i")
        assert record["status"] == "failed"
        assert record["error"] == {"code": "quota", "message": "Come back tomorrow"}
        assert "result" not in record


async def test_get_of_an_unknown_id_is_not_found(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        frame = await client.ask(action="get_invocation", invocation_id="i", session_id="s")
        expected = {"type": "error", "action": "get_invocation", "error": "not_found"}
        assert told(frame) == {**expected, "invocation_id": "i", "session_id": "s"}
        await assert_alive(client)


async def test_a_get_handler_answers_for_any_id(serve: Serve) -> None:
    gates = Gates()
    agent = agent_of(gates)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> Any:
        return {"asked": context.invocation_id}

    server = await serve(agent)
    async with server.connect() as client:
        gates["ended"].opened.set()
        await client.ask(action="invoke", invocation_id="ended")
        await client.send(action="invoke", invocation_id="running")
        for asked in ("running", "ended", "unknown"):
            frame = await client.ask(action="get_invocation", invocation_id=asked)
            assert frame["payload"] == {"asked": asked}


# --- cancel_invocation ------------------------------------------------------------------------


async def test_cancel_stops_a_coroutine_and_tells_its_listeners(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i", session_id="s")
        await within_patience(gate.entered.wait())
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


# --- attach_invocation ------------------------------------------------------------------------


async def test_attach_replays_and_follows_a_running_stream(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i", session_id="s")
        await tap.let_out(3)
        await client.until(sequence_number=3)
        await other.send(action="attach_invocation", invocation_id="i", starting_after=1)
        for number in (2, 3, 4):
            await tap.let_out(max(3, number))
            assert await other.receive() == {
                "type": "stream_chunk",
                "invocation_id": "i",
                "session_id": "s",
                "sequence_number": number,
                "payload": number,
            }
        await tap.close()
        end = {"type": "stream_end", "invocation_id": "i", "session_id": "s"}
        assert await other.receive() == end


@pytest.mark.parametrize(
    ("after", "numbers"), [(None, [1, 2, 3]), (1, [2, 3]), (3, []), (10**30, [])]
)
async def test_attach_replays_an_ended_stream_and_ends_at_once(
    serve: Serve, after: int | None, numbers: list[int]
) -> None:
    server = await serve(agent_of(count))
    async with server.connect() as client:
        await client.send(action="invoke", payload=3, invocation_id="i")
        await client.until(type="stream_end")
        await client.send(action="attach_invocation", invocation_id="i", starting_after=after)
        for number in numbers:
            assert (await client.receive())["sequence_number"] == number
        assert (await client.receive())["type"] == "stream_end"
        await assert_alive(client)


async def test_attach_to_an_ended_coroutine_answers_its_result(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client, server.connect() as other:
        first = await client.ask(action="invoke", payload=1, invocation_id="i")
        assert await other.ask(action="attach_invocation", invocation_id="i") == first


async def test_attach_to_a_failed_stream_replays_it_up_to_the_error(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        yield 1
        raise InvocationError("quota", "Enough")

    server = await serve(agent_of(invoke))
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i", session_id="s")
        expected = [await client.receive(), await client.receive()]
        await other.send(action="attach_invocation", invocation_id="i")
        assert [await other.receive(), await other.receive()] == expected
        assert expected[1] == {
            "type": "error",
            "invocation_id": "i",
            "session_id": "s",
            "error": {"code": "quota", "message": "Enough", "retryable": False, "source": "user"},
        }


@pytest.mark.parametrize("ended", [False, True])
async def test_attach_to_chunks_that_are_no_longer_held_is_a_gap(serve: Serve, ended: bool) -> None:
    tap = Tap()
    server = await serve(agent_of(tap), invocations={"replay_bytes": 2})
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i")
        await tap.let_out(5)
        await client.until(sequence_number=5)
        if ended:
            await tap.close()
            await client.until(type="stream_end")
        frame = await other.ask(action="attach_invocation", invocation_id="i", starting_after=2)
        assert frame["error"]["first_available"] == 4
        assert told(frame) == {
            "type": "error",
            "action": "attach_invocation",
            "invocation_id": "i",
            "error": "replay_gap",
        }
        await other.send(action="attach_invocation", invocation_id="i", starting_after=3)
        assert (await other.receive())["sequence_number"] == 4
        await tap.close()
        await other.until(type="stream_end")


async def test_attach_beyond_the_last_chunk_replays_nothing_and_follows(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i")
        await tap.let_out(2)
        await client.until(sequence_number=2)
        await other.send(action="attach_invocation", invocation_id="i", starting_after=3)
        await assert_alive(other)
        await tap.let_out(5)
        assert (await other.receive())["sequence_number"] == 4
        assert (await other.receive())["sequence_number"] == 5
        await tap.close()
        assert (await other.receive())["type"] == "stream_end"


async def test_attach_to_an_unknown_invocation_is_not_found(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        frame = await client.ask(action="attach_invocation", invocation_id="i")
        expected = {"type": "error", "action": "attach_invocation", "error": "not_found"}
        assert told(frame) == {**expected, "invocation_id": "i"}


@pytest.mark.parametrize("own", [True, False])
async def test_attaching_again_replaces_the_earlier_following(serve: Serve, own: bool) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with server.connect() as starter, server.connect() as other:
        await starter.send(action="invoke", invocation_id="i", on_disconnect="continue")
        await tap.let_out(2)
        await starter.until(sequence_number=2)
        client = starter if own else other
        if not own:
            await client.send(action="attach_invocation", invocation_id="i")
            await client.until(sequence_number=2)
        await client.send(action="attach_invocation", invocation_id="i", starting_after=1)
        assert (await client.receive())["sequence_number"] == 2
        await tap.let_out(4)
        for number in (3, 4):
            assert (await client.receive())["sequence_number"] == number
        await tap.close()
        assert (await client.receive())["type"] == "stream_end"
        await assert_alive(client)  # nothing came twice


async def test_attaching_often_before_anything_is_said_follows_once(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        for _ in range(20):
            await client.send(action="attach_invocation", invocation_id="i")
        await assert_alive(client)
        await tap.let_out(1)
        assert (await client.receive())["sequence_number"] == 1
        await tap.close()
        assert (await client.receive())["type"] == "stream_end"
        await assert_alive(client)


async def test_several_sockets_follow_one_stream_at_once(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with (
        server.connect() as starter,
        server.connect() as second,
        server.connect() as third,
    ):
        await starter.send(action="invoke", invocation_id="i")
        await assert_alive(starter)
        for client in (second, third):
            await client.send(action="attach_invocation", invocation_id="i")
            await assert_alive(client)
        for number in (1, 2, 3):
            await tap.let_out(number)
            for client in (starter, second, third):
                assert (await client.receive())["sequence_number"] == number
        await tap.close()
        for client in (starter, second, third):
            assert (await client.receive())["type"] == "stream_end"


# --- whose it is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "stranger"), [("ann", "bob"), ("ann", None), (None, "bob"), ("ann", "Ann")]
)
async def test_to_a_stranger_an_invocation_does_not_exist(
    serve: Serve, owner: str | None, stranger: str | None
) -> None:
    gate = Gate()
    agent = agent_of(gate)
    asked: list[str | None] = []

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> str:
        asked.append(context.user_id)
        return "asked"

    agent.cancel_invocation_handler(get)
    plain = agent_of(gate)

    for served in (plain, agent):
        server = await serve(served)
        gate.entered.clear()
        gate.opened.clear()
        async with (
            server.connect(headers=named(owner)) as client,
            server.connect(headers=named(owner)) as same,
            server.connect(headers=named(stranger)) as other,
        ):
            await client.send(action="invoke", payload=1, invocation_id="i")
            await within_patience(gate.entered.wait())
            for action in ("get_invocation", "cancel_invocation", "attach_invocation"):
                frame = await other.ask(action=action, invocation_id="i")
                assert told(frame)["error"] == "not_found"
            await same.send(action="attach_invocation", invocation_id="i")
            await assert_alive(same)
            gate.opened.set()
            assert (await client.receive())["payload"] == 1
            assert (await same.receive())["payload"] == 1
            for action in ("get_invocation", "cancel_invocation", "attach_invocation"):
                frame = await other.ask(action=action, invocation_id="i")
                assert told(frame)["error"] == "not_found"
            assert (await same.ask(action="get_invocation", invocation_id="i"))["type"] == "result"
    assert asked == [owner]


def named(user: str | None) -> dict[str, str]:
    return {} if user is None else {"x-agent-user-id": user}


# --- many at once -----------------------------------------------------------------------------


async def test_many_streams_share_a_socket_and_each_keeps_its_order(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        for number in range(50):
            if (number * payload) % 7 == 0:
                await asyncio.sleep(0)
            yield number

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        for index in range(30):
            await client.send(action="invoke", payload=index, invocation_id=f"i{index}")
        said: dict[str, list[int]] = {f"i{index}": [] for index in range(30)}
        switches, last, ended = 0, "", 0
        while ended < 30:
            frame = await client.receive()
            switches += frame["invocation_id"] != last
            last = frame["invocation_id"]
            if frame["type"] == "stream_end":
                assert len(said[last]) == 50
                ended += 1
            else:
                said[last].append(frame["sequence_number"])
    assert all(numbers == list(range(1, 51)) for numbers in said.values())
    assert switches > 30  # they did not wait for one another


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


@pytest.mark.parametrize("background", [True, False])
async def test_a_generator_that_awaits_nothing_leaves_others_their_turn(
    serve: Serve, background: bool
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        while payload == "greedy":
            yield "token"
        yield "polite"

    server = await serve(agent_of(invoke))
    async with server.connect() as greedy, server.connect() as polite:
        await greedy.send(action="invoke", payload="greedy", background=background)
        await greedy.receive()
        reading = asyncio.create_task(read_on(greedy))
        slowest = 0.0
        for _ in range(20):
            started = time.monotonic()
            await polite.send(action="invoke")
            await polite.until(type="stream_end")
            slowest = max(slowest, time.monotonic() - started)
        reading.cancel()
        await asyncio.wait({reading})
        vanish(greedy)
    assert slowest < 1.0


async def read_on(client: Client) -> None:
    while True:
        await client.connection.recv()


async def test_a_generator_waits_for_its_only_listener_which_then_misses_nothing(
    serve: Serve,
) -> None:
    total, yielded = 1000, 0

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        nonlocal yielded
        for _ in range(total):
            yielded += 1
            yield "x" * 64 * 1024

    server = await serve(agent_of(invoke), invocations={"replay_bytes": 1})
    async with server.connect() as client, server.connect() as other:
        client.connection.transport.pause_reading()
        await client.send(action="invoke")
        before = -1
        while yielded != before or yielded == 0:
            before = yielded
            for _ in range(50):
                await assert_alive(other)
        assert yielded < total / 2
        client.connection.transport.resume_reading()
        for number in range(1, total + 1):
            assert (await client.receive())["sequence_number"] == number
        assert (await client.receive())["type"] == "stream_end"


async def test_a_generator_waits_for_nobody_when_it_has_no_listener(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        for _ in range(300):
            yield "x" * 64 * 1024

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        await client.ask(action="invoke", background=True, invocation_id="i")
        while (await record_of(client, "i"))["status"] == "running":
            pass
        stream = (await record_of(client, "i"))["stream"]
    assert stream["last_sequence_number"] == 300
    assert 1 < stream["first_available"] <= 300


async def test_a_further_listener_that_falls_behind_is_told_of_the_gap(serve: Serve) -> None:
    start = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        await start.wait()
        for _ in range(400):
            yield "x" * 64 * 1024

    server = await serve(agent_of(invoke), invocations={"replay_bytes": MIB})
    async with server.connect() as fast, server.connect() as slow:
        await fast.send(action="invoke", invocation_id="i")
        await slow.send(action="attach_invocation", invocation_id="i")
        await assert_alive(slow)
        slow.connection.transport.pause_reading()
        start.set()
        await fast.until(type="stream_end")
        slow.connection.transport.resume_reading()
        number = 0
        while (frame := await slow.receive())["type"] == "stream_chunk":
            number += 1
            assert frame["sequence_number"] == number
        assert told(frame)["error"] == "replay_gap"
        first = frame["error"]["first_available"]
        assert number < first
        await slow.send(action="attach_invocation", invocation_id="i", starting_after=first - 1)
        assert (await slow.receive())["sequence_number"] == first
        assert (await slow.until(type="stream_end"))["invocation_id"] == "i"


# --- bursts -----------------------------------------------------------------------------------


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
        await within_patience(all_started.wait())
    assert started == list(range(number))


@pytest.mark.parametrize("action", ["invoke", "attach_invocation"])
async def test_an_invocation_that_is_followed_right_before_the_end_is_deserted(
    serve: Serve, action: str
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations=NO_GRACE)
    async with server.connect() as first, server.connect() as second:
        if action == "attach_invocation":
            await first.send(action="invoke", invocation_id="i")
            await within_patience(gate.entered.wait())
            await first.connection.close()
        await second.send(action=action, invocation_id="i")
        vanish(second)
        await within_patience(gate.entered.wait())
        await within_patience(gate.cancelled.wait())


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
        await within_patience(gate.entered.wait())
        await client.send(action="cancel_invocation", invocation_id="i")
        vanish(client)
        await within_patience(gate.cancelled.wait())


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


# --- a close behind questions (§3) ------------------------------------------------------------


def as_text(**fields: Any) -> bytes:
    return masked(TEXT, json.dumps(fields).encode())


CLOSING = masked(CLOSE, (4000).to_bytes(2, "big"))


async def until_close(peer: FramedPeer) -> list[tuple[int, Any]]:
    """Opcode and data of what comes before the server's close, which has the client's code."""
    received: list[tuple[int, Any]] = []
    while (frame := await peer.receive())[0] != CLOSE:
        received.append((frame[0], json.loads(frame[1]) if frame[0] == TEXT else frame[1]))
    assert int.from_bytes(frame[1], "big") == 4000
    return received


async def test_what_was_asked_in_one_write_with_the_close_is_answered_before_it(
    serve: Serve,
) -> None:
    server = await serve(agent_of(echo))
    polls = 33  # one more than a turn reads
    for sent, expected in (
        (as_text(action="ping"), [(TEXT, {"type": "pong"})]),
        (masked(PING, b"data"), [(PONG, b"data")]),
        (masked(PING, b"data") + as_text(action="ping"), [(PONG, b"data"), (TEXT, ANY)]),
        (as_text(action="get_invocation", invocation_id="i") * polls, [(TEXT, ANY)] * polls),
        (as_text(action="invoke", background=True), [(TEXT, ANY)]),
        (as_text(action="elsewhere"), [(TEXT, ANY)]),
    ):
        async with FramedPeer.connect(server) as peer:
            peer.writer.write(sent + CLOSING)
            assert await until_close(peer) == expected


async def test_the_replay_of_what_has_ended_goes_before_the_answer_to_a_close(
    serve: Serve,
) -> None:
    chunks = 1000
    server = await serve(agent_of(count))
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i", payload=chunks)
        await client.until(type="stream_end")
    async with FramedPeer.connect(server) as peer:
        peer.writer.write(as_text(action="attach_invocation", invocation_id="i") + CLOSING)
        frames = [frame for _, frame in await until_close(peer)]
    assert [frame.get("payload") for frame in frames] == [*range(chunks), None]
    assert frames[-1]["type"] == "stream_end"


async def test_a_handler_that_takes_its_time_is_waited_for_before_a_close(serve: Serve) -> None:
    agent = Agent()

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> Any:
        await asyncio.sleep(0.05)
        return context.invocation_id

    server = await serve(agent)
    async with FramedPeer.connect(server) as peer:
        peer.writer.write(as_text(action="get_invocation", invocation_id="i") + CLOSING)
        ((_, frame),) = await until_close(peer)
    assert frame["payload"] == "i"


@pytest.mark.parametrize("action", ["invoke", "get_invocation"])
async def test_a_close_is_answered_although_what_was_asked_takes_long(
    serve: Serve, action: str
) -> None:
    agent = agent_of(forever)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> Any:
        await asyncio.Event().wait()

    server = await serve(agent)
    async with FramedPeer.connect(server) as peer:
        peer.writer.write(as_text(action=action, invocation_id="i") + CLOSING)
        assert await until_close(peer) == []


async def test_a_stream_that_goes_on_does_not_hold_up_the_answer_to_a_close(serve: Serve) -> None:
    async def endless(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        while True:
            yield "x" * 1000

    server = await serve(agent_of(endless))
    loop = asyncio.get_running_loop()
    async with FramedPeer.connect(server) as peer:
        peer.act(action="invoke", invocation_id="i")
        await peer.receive()
        closed_at = loop.time()
        peer.writer.write(as_text(action="ping") + CLOSING)
        assert (TEXT, {"type": "pong"}) in await until_close(peer)
        assert loop.time() - closed_at < FLUSH_PATIENCE


# --- bad input (§7) ---------------------------------------------------------------------------

DEEP = "[" * 10_000 + "]" * 10_000
LONE_SURROGATE = '{"action":"invoke","payload":"%s and so on"}'

NOT_JSON: dict[str, str | bytes] = {
    "empty": "",
    "a word": "hello",
    "cut short": '{"action":"ping"',
    "something after it": '{"action":"ping"} {}',
    "single quotes": "{'action':'ping'}",
    "nan": '{"action":"invoke","payload":NaN}',
    "nested in the payload": '{"action":"invoke","payload":' + DEEP + "}",
    "nested in an unknown field": '{"action":"ping","x":' + DEEP + "}",
    "nested and no object": DEEP,
    "nested and never closed": "[" * 100_000,
    "nested objects": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "number out of range": '{"action":"invoke","payload":1e999}',
    "negative number out of range": '{"action":"invoke","payload":[-1e999]}',
    "high surrogate": LONE_SURROGATE % r"\ud800",
    "low surrogate": LONE_SURROGATE % r"\udc00",
    "surrogates swapped": LONE_SURROGATE % r"\udc00\ud800",
    "high surrogate at the end": r'{"action":"invoke","payload":"\ud83d"}',
    "surrogate in a key": r'{"action":"invoke","payload":{"\ud800 and so on":1}}',
    "control character": '{"action":"invoke","payload":"\x01"}',
    "binary, no UTF-8": b'{"action":"invoke","payload":"\xff"}',
    "binary, no UTF-8 in an unknown field": b'{"action":"ping","x":"\xff"}',
    "binary, overlong": b'{"action":"invoke","payload":"\xc0\xaf"}',
    "binary, a surrogate": b'{"action":"invoke","payload":"\xed\xa0\x80"}',
    "binary, UTF-16": '{"action":"ping"}'.encode("utf-16"),
    "binary, noise": bytes(range(256)),
}

NO_OBJECT: list[str | bytes] = [
    "[]",
    "1",
    "-0.5",
    "true",
    "null",
    '"ping"',
    '[{"action":"ping"}]',
    b"[]",
]

NO_ACTION: list[tuple[Frame, Frame]] = [
    ({}, {}),
    ({"action": None}, {}),
    ({"action": 5}, {}),
    ({"action": ["invoke"]}, {}),
    ({"action": {"invoke": 1}}, {}),
    ({"action": ""}, {}),
    ({"action": "Invoke"}, {}),
    ({"action": "x" * 10_000}, {}),
    ({"action": "result"}, {}),
    ({"type": "invoke"}, {}),
    ({"action": "explode", "invocation_id": "i"}, {"invocation_id": "i"}),
    ({"invocation_id": "i", "session_id": "s"}, {"invocation_id": "i", "session_id": "s"}),
    ({"action": 1, "invocation_id": "..", "session_id": "s"}, {"session_id": "s"}),
]

BAD_IDS: list[Any] = [5, True, {}, ["i"], "a b", "a/b", ".", "..", "a" * 257, "é", "i\n", "\x00"]

WITH_ID = ["get_invocation", "cancel_invocation", "attach_invocation"]

BAD_NUMBERS: list[Any] = ["1", -1, 1.5, True, [], ""]

BAD_REQUESTS: list[tuple[Frame, str]] = [
    *(({"action": "invoke", "invocation_id": bad}, "invocation_id") for bad in BAD_IDS),
    *(({"action": "invoke", "session_id": bad}, "session_id") for bad in BAD_IDS),
    *(({"action": action, "invocation_id": 5}, "invocation_id") for action in WITH_ID),
    *(({"action": action, "invocation_id": "a b"}, "invocation_id") for action in WITH_ID),
    *(({"action": action}, "invocation_id") for action in WITH_ID),
    *(({"action": action, "invocation_id": None}, "invocation_id") for action in WITH_ID),
    *(({"action": action, "invocation_id": ""}, "invocation_id") for action in WITH_ID),
    ({"action": "get_invocation", "invocation_id": "i", "session_id": 5}, "session_id"),
    ({"action": "cancel_invocation", "invocation_id": "i", "session_id": "."}, "session_id"),
    ({"action": "invoke", "invocation_id": "i", "session_id": "a b"}, "session_id"),
    ({"action": "invoke", "invocation_id": "a b", "session_id": "s"}, "invocation_id"),
    ({"action": "invoke", "background": "yes"}, "background"),
    ({"action": "invoke", "background": 1}, "background"),
    ({"action": "invoke", "on_disconnect": "explode"}, "on_disconnect"),
    ({"action": "invoke", "on_disconnect": True, "session_id": "s"}, "on_disconnect"),
    ({"action": "invoke", "on_disconnect": ""}, "on_disconnect"),
    ({"action": "invoke", "traceparent": 5}, "traceparent"),
    ({"action": "invoke", "tracestate": ["a"]}, "tracestate"),
    ({"action": "invoke", "baggage": {}}, "baggage"),
    *(
        (
            {"action": "attach_invocation", "invocation_id": "i", "starting_after": bad},
            "starting_after",
        )
        for bad in BAD_NUMBERS
    ),
]


def is_valid_id(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[a-z]{1,256}", value))


@pytest.fixture
async def bystander(serve: Serve) -> Any:
    """A socket with an invocation that runs beside whatever is sent, and must end as ever."""
    gate = Gate()
    server = await serve(agent_of(gate))
    async with server.connect() as client:
        await client.send(action="invoke", payload="unharmed", invocation_id="bystander")
        await within_patience(gate.entered.wait())
        yield client
        await assert_alive(client)
        gate.opened.set()
        assert (await client.receive())["payload"] == "unharmed"


@pytest.mark.parametrize("message", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_is_not_json(bystander: Client, message: str | bytes) -> None:
    await bystander.connection.send(message)
    frame = await bystander.receive()
    assert told(frame) == {"type": "error", "error": "invalid_json"}
    assert frame["error"]["source"] == "user"
    assert frame["error"]["retryable"] is False


@pytest.mark.parametrize("message", NO_OBJECT, ids=repr)
async def test_what_is_no_object(bystander: Client, message: str | bytes) -> None:
    await bystander.connection.send(message)
    frame = await bystander.receive()
    assert told(frame) == {"type": "error", "error": "invalid_message"}
    assert frame["error"]["source"] == "user"


@pytest.mark.parametrize(("message", "echoed"), NO_ACTION, ids=lambda value: repr(value)[:60])
async def test_what_has_no_action(bystander: Client, message: Frame, echoed: Frame) -> None:
    frame = await bystander.ask(**message)
    assert told(frame) == {"type": "error", "error": "invalid_action", **echoed}
    assert frame["error"]["source"] == "user"
    assert len(frame["error"]["message"]) < 1000
    action = message.get("action")
    if isinstance(action, str) and action:
        assert action[:64] in frame["error"]["message"]


@pytest.mark.parametrize(("message", "field"), BAD_REQUESTS, ids=lambda value: repr(value)[:80])
async def test_what_has_a_bad_field(bystander: Client, message: Frame, field: str) -> None:
    frame = await bystander.ask(**message)
    assert told(frame) == {
        "type": "error",
        "action": message["action"],
        "error": "invalid_request",
        **{
            name: message[name]
            for name in ("invocation_id", "session_id")
            if is_valid_id(message.get(name))
        },
    }
    assert frame["error"]["source"] == "user"
    assert field in frame["error"]["message"]


async def test_much_bad_input_in_one_burst_is_answered_one_by_one(bystander: Client) -> None:
    messages = [*NOT_JSON.values(), *NO_OBJECT] * 20
    for message in messages:
        await bystander.connection.send(message)
    for _ in messages:
        assert (await bystander.receive())["type"] == "error"


# --- what RFC 6455 closes a socket for --------------------------------------------------------


async def test_a_text_message_that_is_not_utf8_is_closed_with_1007(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        await client.connection.send(b'{"action":"ping","x":"\xff"}', text=True)
        assert await client.closed() == 1007


async def test_a_message_of_5_mib_is_closed_with_1009(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client, server.connect() as other:
        sending = asyncio.create_task(client.send(action="invoke", payload="x" * 5 * MIB))
        assert await client.closed() == 1009
        await asyncio.wait({sending})
        sending.exception()
        await assert_alive(other)


async def test_a_message_of_4_mib_is_answered(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect(max_size=None) as client:
        message = '{"action":"invoke","payload":"%s"}'
        padding = "x" * (4 * MIB - len(message % ""))
        await client.connection.send(message % padding)
        assert (await client.receive())["payload"] == padding


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("as_text", [True, False])
async def test_the_limit_of_a_message_is_exact(serve: Serve, parts: int, as_text: bool) -> None:
    server = await serve(agent_of(echo), websocket={"max_message_size": 1000})

    def message(size: int) -> list[bytes]:
        whole = b'{"action":"invoke","payload":"%b"}'
        whole %= b"x" * (size - len(whole) + 2)
        assert len(whole) == size
        step = size // parts
        return [whole[index * step : (index + 1) * step] for index in range(parts - 1)] + [
            whole[(parts - 1) * step :]
        ]

    async with server.connect() as client:
        for size in (999, 1000):
            await client.connection.send(message(size), text=as_text)
            assert (await client.receive())["type"] == "result"
        await client.connection.send(message(1001), text=as_text)
        assert await client.closed() == 1009


async def test_the_limit_counts_bytes_not_characters(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_message_size": 1000})
    async with server.connect() as client:
        message = json.dumps({"action": "invoke", "payload": "é" * 600}, ensure_ascii=False)
        assert len(message) < 1000 < len(message.encode())
        await client.connection.send(message)
        assert await client.closed() == 1009


# --- handlers that fail -----------------------------------------------------------------------

SECRET = "hunter2"


class Hopeless(Exception):
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


def raiser(error: Callable[[], BaseException]) -> InvokeHandler:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        raise error()

    return invoke


def giver(value: Callable[[], object]) -> InvokeHandler:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return value()

    return invoke


def endless_list() -> list[Any]:
    inner: list[Any] = [SECRET]
    inner.append(inner)
    return inner


def deep_list() -> list[Any]:
    inner: list[Any] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


async def cancels_itself(payload: Any, context: InvocationContext) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel(SECRET)
    await asyncio.sleep(0)


async def child_is_cancelled(payload: Any, context: InvocationContext) -> None:
    child = asyncio.create_task(asyncio.Event().wait())
    child.cancel(SECRET)
    await child


async def group_fails(payload: Any, context: InvocationContext) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        raise ValueError(SECRET)


async def own_timeout(payload: Any, context: InvocationContext) -> None:
    async with asyncio.timeout(0.001):
        await asyncio.Event().wait()


FAILURES: dict[str, InvokeHandler] = {
    "ValueError": raiser(lambda: ValueError(SECRET)),
    "an exception without text": raiser(Hopeless),
    "a lone surrogate in the text": raiser(lambda: ValueError(SECRET + "\ud800")),
    "SystemExit": raiser(lambda: SystemExit(SECRET)),
    "KeyboardInterrupt": raiser(lambda: KeyboardInterrupt(SECRET)),
    "CancelledError": raiser(lambda: asyncio.CancelledError(SECRET)),
    "GeneratorExit": raiser(lambda: GeneratorExit(SECRET)),
    "StopIteration": raiser(lambda: StopIteration(SECRET)),
    "StopAsyncIteration": raiser(lambda: StopAsyncIteration(SECRET)),
    "TimeoutError": raiser(lambda: TimeoutError(SECRET)),
    "RecursionError": raiser(lambda: RecursionError(SECRET)),
    "MemoryError": raiser(lambda: MemoryError(SECRET)),
    "BaseExceptionGroup": raiser(lambda: BaseExceptionGroup(SECRET, [SystemExit(SECRET)])),
    "InvocationError in a group": raiser(
        lambda: ExceptionGroup(SECRET, [InvocationError("x", SECRET)])
    ),
    "a timeout of its own": own_timeout,
    "cancels itself": cancels_itself,
    "awaits a cancelled child": child_is_cancelled,
    "a group that fails": group_fails,
    "returns an object": giver(object),
    "returns a socket": giver(lambda: socket_like()),
    "returns a function": giver(lambda: giver),
    "returns a lone surrogate": giver(lambda: SECRET + "\ud800"),
    "returns an endless list": giver(endless_list),
    "returns a list too deep": giver(deep_list),
    "returns a key that is none": giver(lambda: {(1, 2): SECRET}),
}


def socket_like() -> object:
    import socket

    with socket.socket() as made:
        return made


def yielding(invoke: InvokeHandler) -> InvokeHandler:
    """Yield once, then do what `invoke` does, and yield its value."""

    async def stream(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "first"
        answer = invoke(payload, context)
        assert not isinstance(answer, AsyncGenerator)
        yield await answer

    return stream


@pytest.mark.parametrize("invoke", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("streams", [False, True], ids=["coroutine", "generator"])
async def test_a_handler_that_fails_is_an_internal_error(
    serve: Serve, log_lines: LogLines, invoke: InvokeHandler, streams: bool
) -> None:
    gate = Gate()
    failing = yielding(invoke) if streams else invoke

    if streams:

        async def handler(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
            if payload == "gate":
                yield await gate(payload, context)
                return
            answer = failing(payload, context)
            assert isinstance(answer, AsyncGenerator)
            async for value in answer:
                yield value

        agent = agent_of(handler)
    else:

        async def coroutine(payload: Any, context: InvocationContext) -> Any:
            if payload == "gate":
                return await gate(payload, context)
            answer = failing(payload, context)
            assert not isinstance(answer, AsyncGenerator)
            return await answer

        agent = agent_of(coroutine)

    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="invoke", payload="gate", invocation_id="bystander")
        await within_patience(gate.entered.wait())
        await client.send(action="invoke", invocation_id="i", session_id="s")
        if streams:
            assert (await client.receive())["payload"] == "first"
        assert await client.receive() == {
            "type": "error",
            "invocation_id": "i",
            "session_id": "s",
            "error": {
                "code": "internal_error",
                "message": "Internal server error",
                "retryable": False,
                "source": "upstream",
            },
        }
        record = await record_of(client, "i")
        assert record["status"] == "failed"
        assert record["error"] == {"code": "internal_error", "message": "Internal server error"}
        assert SECRET not in json.dumps(record)
        gate.opened.set()
        frame = await client.receive()
        assert (frame["invocation_id"], frame["payload"]) == ("bystander", "gate")
    logged = await log_lines.next("agentws.invocations")
    assert logged.levelname == "ERROR"
    assert logged.exc_info  # the details go to the log


@pytest.mark.parametrize("action", ["get_invocation", "cancel_invocation"])
@pytest.mark.parametrize(
    "error",
    [
        lambda: ValueError(SECRET),
        lambda: SystemExit(SECRET),
        lambda: KeyboardInterrupt(SECRET),
        lambda: asyncio.CancelledError(SECRET),
        lambda: TimeoutError(SECRET),
        None,
    ],
    ids=[
        "ValueError",
        "SystemExit",
        "KeyboardInterrupt",
        "CancelledError",
        "TimeoutError",
        "value",
    ],
)
async def test_a_get_or_cancel_handler_that_fails_is_an_internal_error(
    serve: Serve, action: str, error: Callable[[], BaseException] | None
) -> None:
    gate = Gate()
    agent = agent_of(gate)

    @agent.get_invocation_handler
    async def fail(context: InvocationContext) -> object:
        if error is not None:
            raise error()
        return object()

    agent.cancel_invocation_handler(fail)
    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="invoke", payload=1, invocation_id="i")
        await within_patience(gate.entered.wait())
        assert await client.ask(action=action, invocation_id="i", session_id="s") == {
            "type": "error",
            "action": action,
            "invocation_id": "i",
            "session_id": "s",
            "error": {
                "code": "internal_error",
                "message": "Internal server error",
                "retryable": False,
                "source": "upstream",
            },
        }
        gate.opened.set()
        assert (await client.receive())["payload"] == 1


@pytest.mark.parametrize(
    ("code", "status", "retryable", "source"),
    [
        ("quota", None, False, "user"),
        ("quota", 429, True, "user"),
        ("teapot", 418, False, "user"),
        ("broken", 500, False, "upstream"),
        ("busy", 503, True, "upstream"),
        ("slow", 504, True, "upstream"),
        ("odd", 599, False, "upstream"),
        ("not_found", None, False, "user"),
        ("too_many_invocations", None, True, "user"),
        ("shutting_down", None, True, "upstream"),
        ("store_unavailable", None, True, "upstream"),
        ("store_unavailable", 409, False, "user"),
        ("lost", None, False, "upstream"),
        ("timeout", None, True, "upstream"),
        ("internal_error", None, False, "upstream"),
        ("", None, False, "user"),
    ],
)
async def test_an_invocation_error_reaches_the_client(
    serve: Serve, code: str, status: int | None, retryable: bool, source: str
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        yield 1
        raise InvocationError(code, "For your eyes", status=status)

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        assert (await client.receive())["sequence_number"] == 1
        error = {
            "code": code,
            "message": "For your eyes",
            "retryable": retryable,
            "source": source,
        }
        assert (await client.receive())["error"] == error
        record = await record_of(client, "i")
        assert record["error"] == {"code": code, "message": "For your eyes"}
        await client.send(action="attach_invocation", invocation_id="i", starting_after=1)
        assert (await client.receive())["error"] == error  # replayed from the record


async def test_an_invocation_error_with_half_an_emoji_is_still_told(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        raise InvocationError("cut\ud83d", "cut \ud83d")

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        error = (await client.ask(action="invoke"))["error"]
        assert error["code"].startswith("cut")
        assert error["message"].startswith("cut ")


# --- time limits ------------------------------------------------------------------------------


async def test_an_invocation_that_takes_too_long_fails_with_timeout(serve: Serve) -> None:
    async def stream(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.Event().wait()

    async def swallows(payload: Any, context: InvocationContext) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    for invoke in (forever, stream, swallows):
        server = await serve(agent_of(invoke), invocations={"timeout": 0.05})
        async with server.connect() as client:
            await client.send(action="invoke", invocation_id="i")
            error = (await client.until(type="error"))["error"]
            assert error["code"] == "timeout"
            assert (error["retryable"], error["source"]) == (True, "upstream")
            record = await record_of(client, "i")
            assert (record["status"], record["error"]["code"]) == ("failed", "timeout")
            assert "late" not in json.dumps(record)
            await assert_alive(client)


async def test_a_handler_that_ignores_its_cancellation_keeps_nothing_else_from_going_on(
    serve: Serve,
) -> None:
    end = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> Any:
        while payload == "stubborn" and not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return payload

    server = await serve(agent_of(invoke), invocations={"cancel_grace": 0.05})
    async with server.connect() as client:
        await client.send(action="invoke", payload="stubborn", invocation_id="i")
        for _ in range(2):
            frame = await client.ask(action="cancel_invocation", invocation_id="i")
            assert frame["payload"]["status"] == "cancelling"
        assert (await client.ask(action="invoke", payload="other"))["payload"] == "other"
        assert (await record_of(client, "i"))["status"] == "running"
        end.set()
        assert told(await client.receive())["error"] == "cancelled"
        assert (await record_of(client, "i"))["status"] == "cancelled"
