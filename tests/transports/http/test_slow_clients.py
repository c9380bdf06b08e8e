"""Clients that read slowly, or not at all."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from agentws import InvocationContext
from tests.conftest import PATIENCE, Serve
from tests.support.agents import Gate, agent_of, soon
from tests.support.http_client import KIB, MIB, Session, chunk, event, named, record_of
from tests.support.peers import HttpPeer

AT_ONCE = {"disconnect_grace": 0.0}
PIECE = "x" * 32 * KIB


async def test_a_client_that_does_not_read_is_dropped_and_slows_nobody(
    serve: Serve, session: Session
) -> None:
    pieces = 400
    gate = Gate()
    attached = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        await attached.wait()
        for _ in range(pieces):
            yield PIECE
        await gate.passed()

    server = await serve(
        agent_of(invoke),
        websocket={"send_timeout": 0.5},
        invocations={**AT_ONCE, "replay_bytes": 64 * MIB},
    )
    async with HttpPeer.connect(server, receive_buffer=4 * KIB) as mute:
        async with session.post(f"{server.http}/invocations", headers=named("i")) as answer:
            mute.request("GET /invocations/i", "Accept: text/event-stream")
            assert (await mute.head()).startswith(b"HTTP/1.1 200 ")
            mute.stop_reading()
            attached.set()
            for number in range(1, pieces + 1):
                assert await event(answer) == chunk(number, PIECE)
            answer.close()
        await soon(gate.cancelled)  # for the mute one is no listener any more
        await mute.dropped()


async def test_a_lone_client_that_does_not_read_is_dropped_and_lost_as_a_listener(
    serve: Serve, session: Session
) -> None:
    cancelled = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        try:
            while True:
                yield PIECE
        finally:
            cancelled.set()

    server = await serve(agent_of(invoke), websocket={"send_timeout": 0.3}, invocations=AT_ONCE)
    async with HttpPeer.connect(server, receive_buffer=4 * KIB) as mute:
        mute.request("POST /invocations", "x-agent-invocation-id: i")
        await mute.head()
        mute.stop_reading()
        await soon(cancelled)
        async with session.get(f"{server.http}/liveness") as answer:
            assert answer.status == 200
        await mute.dropped()
    assert (await record_of(server, session, "i"))["status"] == "cancelled"


async def test_a_client_that_reads_slowly_gets_it_all(serve: Serve, session: Session) -> None:
    """It takes longer for the whole than a send may take, but it takes something all the time."""
    pieces = 12

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        for _ in range(pieces):
            yield "x" * 256 * KIB

    server = await serve(
        agent_of(invoke),
        websocket={"send_timeout": 1.0},
        invocations={**AT_ONCE, "replay_bytes": 4 * KIB},
    )
    received = bytearray()
    async with HttpPeer.connect(server, receive_buffer=4 * KIB) as slow:
        slow.request("POST /invocations", "Connection: close")
        async with asyncio.timeout(3 * PATIENCE):
            while part := await slow.reader.read(32 * KIB):
                received += part
                await asyncio.sleep(0.01)
    assert received.count(b"event: stream_chunk\n") == pieces
    assert b"event: stream_end\n" in received
