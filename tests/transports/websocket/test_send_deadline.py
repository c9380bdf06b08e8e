"""Clients that read slowly, or not at all: they are bounded, and then aborted (§8)."""

import asyncio
import contextlib
import json
import struct
import tracemalloc
from typing import Any

import pytest

from agentws import InvocationContext
from tests.conftest import LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.support.peers import CLOSE, PING, PONG, TEXT, FramedPeer, masked
from tests.transports.websocket.conftest import (
    MIB,
    assert_alive,
    ending_of,
    flood,
    noise_of,
    seconds,
)


async def test_a_client_that_stops_reading_is_aborted_and_the_others_go_on(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(flood), websocket={"send_timeout": 0.3, "heartbeat": 0})
    async with FramedPeer.connect(server, receive_buffer=4096) as slow, server.connect() as client:
        slow.stop_reading()
        slow.act(action="invoke", payload=1000, invocation_id="i")
        ending = asyncio.create_task(ending_of(log_lines))
        while not ending.done():
            await assert_alive(client)
        assert await ending == (1006, "slow_client")
        # It lost its listener, which is a disconnect: it goes on until the grace is over.
        await client.send(action="attach_invocation", invocation_id="i", starting_after=999)
        assert (await client.receive())["sequence_number"] == 1000
        assert (await client.receive())["type"] == "stream_end"


async def test_a_client_that_stops_reading_loses_only_its_own_stream(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(flood), websocket={"send_timeout": 0.3})
    async with (
        FramedPeer.connect(server, receive_buffer=4096) as slow,
        server.connect() as fast,
    ):
        slow.stop_reading()
        await fast.send(action="invoke", payload=300, invocation_id="i")
        slow.act(action="attach_invocation", invocation_id="i")
        for number in range(1, 301):
            assert (await fast.receive())["sequence_number"] == number
        assert (await fast.receive())["type"] == "stream_end"


async def test_a_slow_reader_that_keeps_reading_is_not_aborted(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(flood), websocket={"send_timeout": 0.3})
    async with FramedPeer.connect(server, receive_buffer=16 * 1024) as slow:
        started = seconds()
        slow.act(action="invoke", payload=150, invocation_id="i")
        for number in range(1, 151):
            _, data = await slow.receive()
            assert json.loads(data)["sequence_number"] == number
            await asyncio.sleep(0.01)
        assert json.loads((await slow.receive())[1])["type"] == "stream_end"
        assert seconds() - started > 3 * 0.3
    assert await ending_of(log_lines) == (1006, None)


@pytest.mark.parametrize("compression", [False, True])
async def test_a_send_that_a_slow_client_blocks_is_given_up(
    serve: Serve, log_lines: LogLines, compression: bool
) -> None:
    noise = noise_of(8 * MIB)

    async def invoke(payload: Any, context: InvocationContext) -> str:
        return noise

    server = await serve(
        agent_of(invoke),
        websocket={"send_timeout": 0.3, "heartbeat": 0, "compression": compression},
    )
    async with server.connect(compression="deflate" if compression else None) as slow:
        slow.connection.transport.pause_reading()
        await slow.send(action="invoke")
        ending = await ending_of(log_lines)
        slow.connection.transport.abort()
        assert ending == (1006, "slow_client")


@pytest.mark.parametrize("reads_again", [True, False])
async def test_a_client_that_closes_without_having_read_is_let_go(
    serve: Serve, log_lines: LogLines, reads_again: bool
) -> None:
    patience = 0.3
    server = await serve(agent_of(flood), websocket={"send_timeout": patience})
    async with FramedPeer.connect(server, receive_buffer=4096) as slow, server.connect() as client:
        slow.stop_reading()
        slow.narrow_the_way_back()
        slow.act(action="invoke", payload=1000, invocation_id="i")
        for _ in range(20):
            await assert_alive(client)
        slow.send(CLOSE, struct.pack("!H", 4000))
        closed_at = seconds()
        assert await ending_of(log_lines) == (4000, None)
        if reads_again:
            slow.read_again()
            await slow.dropped()
        while seconds() < closed_at + 2 * patience:  # by then the server has given it up
            await assert_alive(client)
        slow.read_again()
        await slow.dropped()


async def test_a_client_that_answers_pings_stays_while_it_reads_much_slowly(
    serve: Serve, log_lines: LogLines
) -> None:
    polls = 1500
    server = await serve(agent_of(echo), websocket={"heartbeat": 0.4})
    async with FramedPeer.connect(server, receive_buffer=4096) as peer:
        peer.narrow_the_way_back()
        peer.act(action="invoke", payload="x" * 16 * 1024, invocation_id="big")
        for _ in range(polls):
            peer.act(action="get_invocation", invocation_id="big")
        answers = 0
        while answers < 1 + polls:
            opcode, data = await peer.receive()
            if opcode == PING:
                peer.send(PONG, data)
                continue
            answers += 1
            await asyncio.sleep(0.001)
    assert await ending_of(log_lines) == (1006, None)


FLOODS = {
    "ping messages": masked(TEXT, b'{"action":"ping"}'),
    "bad messages": masked(TEXT, b"{"),
    "polls": masked(TEXT, b'{"action":"get_invocation","invocation_id":"big"}'),
    "attaches": masked(TEXT, b'{"action":"attach_invocation","invocation_id":"big"}'),
    "refused invokes": masked(TEXT, b'{"action":"invoke","invocation_id":"big"}'),
    "WebSocket pings": masked(PING, b"x" * 125),
}


@pytest.mark.parametrize("flooding", FLOODS)
async def test_a_client_that_floods_and_never_reads_is_bounded_and_aborted(
    serve: Serve, log_lines: LogLines, flooding: str
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> str:
        return "x" * MIB

    server = await serve(agent_of(invoke), websocket={"send_timeout": 0.5, "heartbeat": 0})
    async with (
        server.connect(max_size=None) as client,
        FramedPeer.connect(server, receive_buffer=4096) as greedy,
    ):
        await client.ask(action="invoke", invocation_id="big")
        greedy.stop_reading()
        greedy.narrow_the_way_back()
        ending = asyncio.create_task(ending_of(log_lines))
        answers_are_large = flooding in ("polls", "attaches")
        if answers_are_large:
            tracemalloc.start()
        while not ending.done():
            # A few at a time, so that the server meets them in many turns of its loop.
            for _ in range(5):
                greedy.writer.write(FLOODS[flooding])
            draining = asyncio.create_task(drain_or_fail(greedy.writer))
            await asyncio.wait({ending, draining}, return_when=asyncio.FIRST_COMPLETED)
        if answers_are_large:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 96 * MIB
        assert await ending == (1006, "slow_client")
        await assert_alive(client)


async def drain_or_fail(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await writer.drain()
