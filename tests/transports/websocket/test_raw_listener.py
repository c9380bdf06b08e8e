"""Handlers of raw sockets that do not read: pings and closes are answered for them (§8)."""

import asyncio
import struct
from typing import Any

import pytest
from aiohttp import WSMsgType

from agentws import InvocationContext
from agentws.transports.websocket.raw_listener import MOST_UNREAD
from tests.conftest import LogLines, Serve
from tests.support.agents import soon
from tests.support.peers import BINARY, CLOSE, PING, PONG, TEXT, RawPeer, masked
from tests.transports.websocket.conftest import WebSocket, only_ending, raw_agent_of, tick


class Reluctant:
    """A handler that reads nothing before it is let go, and then everything, to the last."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.left = asyncio.Event()
        self.read: list[Any] = []

    async def __call__(self, ws: WebSocket, _: InvocationContext) -> None:
        await self.let_go.wait()
        while (message := await ws.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            self.read.append(message.data)
        self.read.append(message.type)
        self.left.set()


async def silent(peer: RawPeer) -> None:
    """See that nothing comes for a while."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await peer.reader.read(1)


async def test_pings_and_close_are_answered_although_the_handler_does_not_read(
    serve: Serve, log_lines: LogLines
) -> None:
    handler = Reluctant()
    server = await serve(raw_agent_of(handler))
    async with RawPeer.connect(server) as peer:
        for data in (b"one", b"two"):
            peer.send(PING, data)
            assert await peer.receive() == (PONG, data)
            peer.send(TEXT, data)
        peer.send(CLOSE, struct.pack("!H", 4002))
        assert await peer.receive() == (CLOSE, struct.pack("!H", 4002))
        assert await peer.reader.read() == b""
    handler.let_go.set()
    await soon(handler.left)
    assert handler.read == ["one", "two", WSMsgType.CLOSE]
    assert await only_ending(server, log_lines) == (4002, None)


async def test_a_handler_that_only_sends_has_its_clients_pings_and_close_answered(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(raw_agent_of(tick))
    async with RawPeer.connect(server) as peer:
        peer.send(PING, b"data")
        while (frame := await peer.receive()) == (TEXT, b"tick"):
            pass
        assert frame == (PONG, b"data")
        peer.send(CLOSE, struct.pack("!H", 4002))
        assert await peer.close_code() == 4002
    assert await only_ending(server, log_lines) == (4002, None)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_when_as_much_as_a_message_waits_unread_control_frames_wait_with_it(
    serve: Serve, opcode: int
) -> None:
    handler = Reluctant()
    server = await serve(raw_agent_of(handler), websocket={"max_message_size": 1000})
    async with RawPeer.connect(server) as peer:
        peer.send(opcode, "é".encode() * 499 + b"x")
        peer.send(PING, b"one")
        assert await peer.receive() == (PONG, b"one")
        peer.send(opcode, b"y")
        peer.send(PING, b"two")
        peer.send(CLOSE, struct.pack("!H", 4002))
        await silent(peer)
        handler.let_go.set()
        assert await peer.receive() == (PONG, b"two")
        assert await peer.close_code() == 4002
    await soon(handler.left)
    assert len(handler.read) == 3


async def test_empty_messages_that_nobody_reads_are_bounded_too(serve: Serve) -> None:
    handler = Reluctant()
    server = await serve(raw_agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.writer.write(masked(TEXT) * (MOST_UNREAD - 1))
        peer.send(PING, b"one")
        assert await peer.receive() == (PONG, b"one")
        peer.send(TEXT)
        peer.send(PING, b"two")
        await silent(peer)
        handler.let_go.set()
        assert await peer.receive() == (PONG, b"two")


async def test_a_handler_that_reads_again_misses_nothing(serve: Serve) -> None:
    pause = asyncio.Event()

    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_str(message.data)
            if message.data == "wait":
                await pause.wait()

    server = await serve(raw_agent_of(talk))
    async with RawPeer.connect(server) as peer:
        for _ in range(2):
            pause.clear()
            peer.send(TEXT, b"wait")
            assert await peer.receive() == (TEXT, b"wait")
            peer.send(PING)  # which is answered only by the listener
            assert await peer.receive() == (PONG, b"")
            for number in range(100):
                peer.send(TEXT, str(number).encode())
            pause.set()
            for number in range(100):
                assert await peer.receive() == (TEXT, str(number).encode())


@pytest.mark.parametrize("code", [1000, 4001])
async def test_a_handler_that_never_read_closes_in_its_turn(
    serve: Serve, log_lines: LogLines, code: int
) -> None:
    let_go = asyncio.Event()

    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await let_go.wait()
        await ws.close(code=code)
        assert (await ws.receive()).type is WSMsgType.CLOSED

    server = await serve(raw_agent_of(leave))
    async with RawPeer.connect(server) as peer:
        peer.send(PING)
        assert await peer.receive() == (PONG, b"")
        peer.send(TEXT, b"in vain")
        let_go.set()
        assert await peer.close_code() == code
        peer.send(CLOSE, struct.pack("!H", code))
        assert await peer.reader.read() == b""
    assert await only_ending(server, log_lines) == (code, None)


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (masked(TEXT, b"\xff"), (1007, "protocol_error")),
        (masked(CLOSE, struct.pack("!H", 1006)), (1002, "protocol_error")),
        (b"", (1006, None)),
    ],
)
async def test_the_line_tells_how_a_socket_ended_that_the_handler_does_not_read(
    serve: Serve, log_lines: LogLines, sent: bytes, logged: tuple[int, str | None]
) -> None:
    handler = Reluctant()
    server = await serve(raw_agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(PING)
        assert await peer.receive() == (PONG, b"")
        if sent:
            peer.writer.write(sent)
            assert await peer.close_code() == logged[0]
        else:
            peer.vanish()
    handler.let_go.set()
    assert await only_ending(server, log_lines) == logged
