"""Long messages in fragments (RFC 6455 §5.4), seen by a client and by a reader of bytes (§8)."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from agentws import Agent, InvocationContext
from agentws.transports.websocket.data_frames import in_fragments
from tests.conftest import LogLines, Serve
from tests.support.peers import CLOSE, PING, PONG, TEXT, FramedPeer, RawPeer

CONTINUATION = 0x0
FIN, COMPRESSED = 0x80, 0x40
"""Bits of a frame's first byte (RFC 6455 §5.2, RFC 7692 §6)."""

KIB, MIB = 1024, 1024**2
USUAL = 512 * KIB
"""The bytes of the longest frame, where nothing else is set."""


def writing() -> Agent:
    """Return an agent that answers with a text of as many characters as it is asked for."""
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: int, context: InvocationContext) -> str:
        return "x" * payload

    return agent


class CompressingPeer(FramedPeer):
    """One that offers compression (RFC 7692)."""

    HEADERS = ("Sec-WebSocket-Extensions: permessage-deflate",)


async def message(peer: FramedPeer) -> list[tuple[int, bytes]]:
    """Return the frames of the next data message, control frames between them included."""
    frames = [await peer.receive_frame()]
    while not frames[-1][0] & FIN or is_control(frames[-1][0]):
        frames.append(await peer.receive_frame())
    return frames


def is_control(first: int) -> bool:
    return bool(first & 0x08)


def text_of(frames: list[tuple[int, bytes]]) -> Any:
    return json.loads(b"".join(data for first, data in frames if not is_control(first)))


# --- over the wire ----------------------------------------------------------------------------


async def test_a_long_message_comes_whole_between_small_ones_of_others(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: int, context: InvocationContext) -> AsyncGenerator[str, None]:
        for _ in range(3):
            yield "x" * payload
            await asyncio.sleep(0)

    server = await serve(agent)
    async with server.connect(max_size=None) as client:
        sizes = {"small": 10, "long": 3 * MIB, "other": 200}
        for invocation_id, size in sizes.items():
            await client.send(action="invoke", invocation_id=invocation_id, payload=size)
        answered = await client.connection.ping(b"amid")
        told: dict[str, list[int]] = {invocation_id: [] for invocation_id in sizes}
        ends = 0
        while ends < len(sizes):
            frame = await client.receive()
            if frame["type"] == "stream_chunk":
                told[frame["invocation_id"]].append(len(frame["payload"]))
            ends += frame["type"] == "stream_end"
        await answered
    assert told == {invocation_id: [size] * 3 for invocation_id, size in sizes.items()}


async def test_between_two_fragments_there_are_control_frames_only(serve: Serve) -> None:
    server = await serve(writing())
    async with FramedPeer.connect(server, receive_buffer=4096) as peer:
        peer.narrow_the_way_back()
        peer.act(action="invoke", invocation_id="long", payload=3 * MIB)
        fragments = [await peer.receive_frame()]
        # Amid the message, of which the network holds next to nothing.
        peer.act(action="invoke", invocation_id="small", payload=1)
        peer.send(PING, b"amid")
        fragments += await message(peer)
        small = await message(peer)

    firsts = [first for first, _ in fragments]
    assert FIN | PONG in firsts[1:-1]
    assert fragments[firsts.index(FIN | PONG)][1] == b"amid"
    data = [frame for frame in fragments if not is_control(frame[0])]
    assert [first for first, _ in data] == [TEXT, *[CONTINUATION] * 5, FIN | CONTINUATION]
    assert {len(data) for _, data in data[:-1]} == {USUAL}
    assert 0 < len(data[-1][1]) < USUAL
    answer = text_of(fragments)
    assert (answer["invocation_id"], len(answer["payload"])) == ("long", 3 * MIB)
    assert [first for first, _ in small] == [FIN | TEXT]
    assert text_of(small)["invocation_id"] == "small"


@pytest.mark.parametrize("longest", [1, 125, 126, 1000, 65536, 100_000])
async def test_a_message_is_as_long_as_may_be_or_parted(serve: Serve, longest: int) -> None:
    server = await serve(writing(), websocket={"max_frame_size": longest})
    async with FramedPeer.connect(server) as peer:
        peer.act(action="invoke", invocation_id="0", session_id="s", payload=0)
        empty = sum(len(data) for _, data in await message(peer))
        sizes = {empty, longest, longest + 1, 2 * longest, 2 * longest + 1}
        for number, size in enumerate(sorted(sizes), 1):
            if size < empty:
                continue
            invoke = {"action": "invoke", "invocation_id": str(number), "session_id": "s"}
            peer.act(**invoke, payload=size - empty)
            frames = await message(peer)
            whole, rest = divmod(size, longest)
            assert [len(data) for _, data in frames] == [longest] * whole + [rest] * bool(rest)
            firsts = [TEXT, *[CONTINUATION] * (len(frames) - 1)]
            firsts[-1] |= FIN
            assert [first for first, _ in frames] == firsts
            assert text_of(frames)["invocation_id"] == str(number)


async def test_nothing_is_parted_where_that_is_turned_off(serve: Serve) -> None:
    server = await serve(writing(), websocket={"max_frame_size": 0})
    async with FramedPeer.connect(server) as peer:
        peer.act(action="invoke", payload=3 * MIB)
        ((first, data),) = await message(peer)
    assert (first, len(json.loads(data)["payload"])) == (FIN | TEXT, 3 * MIB)


async def test_what_is_compressed_goes_whole(serve: Serve) -> None:
    server = await serve(writing(), websocket={"max_frame_size": 100, "compression": True})
    async with CompressingPeer.connect(server) as peer:
        peer.act(action="invoke", payload=3 * MIB)
        ((first, data),) = await message(peer)
    assert first == FIN | COMPRESSED | TEXT
    assert len(data) > 100


async def test_the_frames_of_a_raw_socket_are_its_agents(serve: Serve) -> None:
    agent = Agent()

    @agent.ws_handler
    async def serve_socket(ws: web.WebSocketResponse, context: InvocationContext) -> None:
        await ws.send_str("x" * MIB)

    server = await serve(agent, websocket={"max_frame_size": 100})
    async with RawPeer.connect(server) as peer:
        assert await peer.receive_frame() == (FIN | TEXT, b"x" * MIB)


async def test_a_close_amid_a_message_is_the_end_of_it(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(writing())
    async with FramedPeer.connect(server, receive_buffer=4096) as peer:
        peer.narrow_the_way_back()
        peer.act(action="invoke", payload=3 * MIB)
        assert await peer.receive_frame()
        draining = asyncio.create_task(server.server.drain())
        await asyncio.wait({draining})
        frames: list[tuple[int, bytes]] = []
        while not frames or frames[-1][0] != FIN | CLOSE:
            frames.append(await peer.receive_frame())
        assert await peer.reader.read() == b""
    assert {first for first, _ in frames[:-1]} == {CONTINUATION}
    assert frames[-1][1][:2] == (1001).to_bytes(2, "big")


# --- as a function ----------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 300))
def test_whatever_is_parted_can_be_put_together(messages: list[bytes], longest: int) -> None:
    stream = b"".join(in_fragments(messages, longest))
    told, parts = [], b""
    while stream:
        first, length, stream = stream[0], stream[1], stream[2:]
        if length == 126:
            length, stream = int.from_bytes(stream[:2], "big"), stream[2:]
        assert length <= longest
        assert first & 0x0F == (CONTINUATION if parts else TEXT)
        parts, stream = parts + stream[:length], stream[length:]
        if first & FIN:
            told.append(parts)
            parts = b""
    assert (told, parts) == (messages, b"")
