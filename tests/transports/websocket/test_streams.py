"""Streams: what they leave to others, and for whom they wait (§5)."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentws import InvocationContext
from tests.conftest import Client, Serve
from tests.support.agents import agent_of
from tests.transports.websocket.conftest import MIB, assert_alive, record_of, told, vanish


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


async def test_a_hundred_streams_that_await_nothing_keep_no_get_waiting(serve: Serve) -> None:
    made = 0

    async def invoke(_payload: Any, _context: InvocationContext) -> AsyncGenerator[int, None]:
        nonlocal made
        while True:
            made += 1
            yield made

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        for index in range(100):
            await client.send(action="invoke", invocation_id=f"i{index}", background=True)
            await client.receive()
        for _ in range(5):  # in which each finds its pace
            await record_of(client, "i0")
        before = made
        await record_of(client, "i0")
        assert made - before < 30_000  # of which each makes thousands that has all it can get
