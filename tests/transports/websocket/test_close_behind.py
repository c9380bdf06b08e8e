"""A close that comes right behind questions is answered after them (§3)."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any
from unittest.mock import ANY

import pytest

from agentws import Agent, InvocationContext
from agentws.transports.websocket.framed_ws import FLUSH_PATIENCE
from tests.conftest import Serve
from tests.support.agents import agent_of, echo
from tests.support.peers import CLOSE, PING, PONG, TEXT, FramedPeer, masked
from tests.transports.websocket.conftest import count, forever, seconds


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
    async with FramedPeer.connect(server) as peer:
        peer.act(action="invoke", invocation_id="i")
        await peer.receive()
        closed_at = seconds()
        peer.writer.write(as_text(action="ping") + CLOSING)
        assert (TEXT, {"type": "pong"}) in await until_close(peer)
        assert seconds() - closed_at < FLUSH_PATIENCE
