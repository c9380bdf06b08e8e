"""Polling on the framed socket: `get_invocation`."""

import datetime
from typing import Any

from agentws import InvocationContext, InvocationError
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, echo, soon
from tests.transports.websocket.conftest import Gates, Tap, assert_alive, record_of, told


def as_time(text: str) -> datetime.datetime:
    assert text.endswith(("Z", "+00:00"))
    return datetime.datetime.fromisoformat(text)


async def test_get_answers_the_record_of_a_coroutine(serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    before = datetime.datetime.now(datetime.UTC)
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", payload=[1], invocation_id="i", session_id="s")
        await soon(gate.entered)
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
