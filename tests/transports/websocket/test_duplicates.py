"""An id that is taken: nothing is run, and nothing is taken from who has yet to read (§3)."""

from collections.abc import AsyncGenerator
from typing import Any

from agentws import InvocationContext
from tests.conftest import Client, Frame, Serve
from tests.support.agents import Gate, agent_of, echo, soon
from tests.transports.websocket.conftest import MIB, record_of, told


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
        await soon(gate.entered)
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
