"""A raw socket that its client ends: by a close, by vanishing, by breaking the protocol."""

import asyncio
import struct
from typing import Any

import pytest

from agentws import InvocationContext
from agentws.agent.handlers import SocketHandler
from agentws.transports.websocket.raw_socket import RawWebSocket
from tests.conftest import LogLines, Serve
from tests.support.agents import soon
from tests.support.peers import BINARY, CLOSE, PING, TEXT, RawPeer, masked
from tests.transports.websocket.conftest import (
    MIB,
    WebSocket,
    answer_json,
    connected,
    converse,
    ending_of,
    only_ending,
    raw_agent_of,
    received,
    tick,
)


@pytest.mark.parametrize("handler", [converse, answer_json])
@pytest.mark.parametrize("code", [1000, 1001, 3999, 4002])
async def test_the_clients_close_is_logged_as_it_came(
    serve: Serve, log_lines: LogLines, handler: SocketHandler, code: int
) -> None:
    server = await serve(raw_agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(TEXT, b"1")
        assert await peer.receive() == (TEXT, b"1")
        peer.send(CLOSE, struct.pack("!H", code) + b"bye")
        assert await peer.close_code() == code
    assert await only_ending(server, log_lines) == (code, None)


@pytest.mark.parametrize("handler", [converse, answer_json])
async def test_a_close_without_a_code_is_logged_as_1005(
    serve: Serve, log_lines: LogLines, handler: SocketHandler
) -> None:
    server = await serve(raw_agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(CLOSE)
        opcode, _ = await peer.receive()
        assert opcode == CLOSE
    assert await only_ending(server, log_lines) == (1005, None)


@pytest.mark.parametrize("handler", [converse, answer_json])
@pytest.mark.parametrize("by_reset", [False, True])
async def test_a_client_that_vanishes_is_logged_as_1006(
    serve: Serve, log_lines: LogLines, handler: SocketHandler, by_reset: bool
) -> None:
    server = await serve(raw_agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(TEXT, b"1")
        await peer.receive()
        if by_reset:
            peer.vanish()
    assert await only_ending(server, log_lines) == (1006, None)


async def test_what_came_behind_a_ping_is_received_although_the_ping_cannot_be_answered_any_more(
    serve: Serve, log_lines: LogLines
) -> None:
    entered, let_go = asyncio.Event(), asyncio.Event()
    seen: list[Any] = []

    async def handler(ws: WebSocket, context: InvocationContext) -> None:
        assert isinstance(ws, RawWebSocket)
        seen.append((await ws.receive()).data)
        with ws.connection.reading_held():  # so that it is the answer that finds the socket ended
            entered.set()
            await let_go.wait()
            await ws.send_str("into the void")
            seen.extend([message.data async for message in ws])

    server = await serve(raw_agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.writer.write(masked(TEXT, b"first") + masked(PING) + masked(TEXT, b"last"))
        await entered.wait()
        peer.vanish()
        let_go.set()
    assert await only_ending(server, log_lines) == (1006, None)
    assert seen == ["first", "last"]


async def test_a_handler_that_only_sends_learns_that_the_client_has_closed(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(raw_agent_of(tick))
    async with connected(server, close_timeout=0.1) as client:
        assert await received(client) == "tick"
        await client.close(4002)
    assert await only_ending(server, log_lines) == (4002, None)


async def test_a_close_that_the_handler_never_read_is_logged_all_the_same(
    serve: Serve, log_lines: LogLines
) -> None:
    entered, let_go = asyncio.Event(), asyncio.Event()

    async def wait(ws: WebSocket, context: InvocationContext) -> None:
        entered.set()
        await let_go.wait()

    server = await serve(raw_agent_of(wait))
    async with RawPeer.connect(server) as peer:
        await soon(entered)
        for number in range(10):  # these the handler leaves unread, too
            peer.send(TEXT, str(number).encode())
        peer.send(CLOSE, struct.pack("!H", 4002))
        peer.send(PING)
        await asyncio.sleep(0.05)  # until it has arrived: there is nothing to see of that
        let_go.set()
        assert await peer.close_code() == 4002
    assert await only_ending(server, log_lines) == (4002, None)


@pytest.mark.parametrize(
    ("fault", "error_code"),
    [
        (RuntimeError("secret"), "internal_error"),
        (KeyError("secret"), "internal_error"),
        (ConnectionResetError("The client is gone"), None),
        (ExceptionGroup("tasks", [ConnectionResetError("The client is gone")]), None),
        (
            ExceptionGroup("tasks", [ConnectionResetError("gone"), KeyError("secret")]),
            "internal_error",
        ),
    ],
    ids=repr,
)
async def test_a_handler_that_raises_after_the_client_vanished(
    serve: Serve, log_lines: LogLines, fault: Exception, error_code: str | None
) -> None:
    let_go = asyncio.Event()

    async def fail(ws: WebSocket, context: InvocationContext) -> None:
        async for _ in ws:
            pass
        await let_go.wait()
        raise fault

    server = await serve(raw_agent_of(fail))
    async with RawPeer.connect(server):
        pass
    let_go.set()
    assert await only_ending(server, log_lines) == (1006, error_code)


async def test_a_handler_with_tasks_of_its_own_may_let_them_end_with_the_client(
    serve: Serve, log_lines: LogLines
) -> None:
    """As in a voice agent: one task hears, another speaks, neither looks at the close."""

    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        async def hear() -> None:
            while True:
                await ws.receive_bytes()

        async def speak() -> None:
            while True:
                await ws.send_bytes(b"sound")
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hear())
            tasks.create_task(speak())

    server = await serve(raw_agent_of(talk))
    async with connected(server) as client:
        await client.send(b"sound")
        assert await received(client) == b"sound"
        await client.close(4002)
    assert await only_ending(server, log_lines) == (4002, None)


# --- by breaking the protocol -----------------------------------------------------------------


async def test_a_message_past_the_limit_is_closed_with_1009(
    serve: Serve, log_lines: LogLines
) -> None:
    async def measure(ws: WebSocket, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_str(str(len(message.data)))

    server = await serve(raw_agent_of(measure), websocket={"max_message_size": 1000})
    for opcode in (TEXT, BINARY):
        async with RawPeer.connect(server) as peer:
            peer.send(opcode, b"x" * 1000)
            assert await peer.receive() == (TEXT, b"1000")
            peer.send(opcode, b"x" * 1001)
            assert await peer.close_code() == 1009
        assert await ending_of(log_lines) == (1009, "payload_too_large")
    async with RawPeer.connect(server) as peer:  # in two fragments
        peer.send(TEXT, b"x" * 600, first_bits=0)
        peer.send(0x0, b"x" * 600)
        assert await peer.close_code() == 1009
    assert await only_ending(server, log_lines) == (1009, "payload_too_large")


async def test_a_message_may_be_larger_than_what_aiohttp_takes_by_default(serve: Serve) -> None:
    server = await serve(raw_agent_of(converse), websocket={"max_message_size": 6 * MIB})
    async with connected(server, max_size=None) as client:
        text = "x" * (6 * MIB)
        await client.send(text)
        assert await received(client) == text


@pytest.mark.parametrize("handler", [converse, answer_json])
@pytest.mark.parametrize(
    ("opcode", "data", "first_bits", "code"),
    [
        (TEXT, b"\xff", 0x80, 1007),
        (TEXT, b"x", 0xC0, 1002),
        (0x3, b"x", 0x80, 1002),
        (0x0, b"x", 0x80, 1002),
        (PING, b"x" * 126, 0x80, 1002),
        (CLOSE, b"\x03", 0x80, 1002),
        (CLOSE, struct.pack("!H", 1005), 0x80, 1002),
        (CLOSE, struct.pack("!H", 1006), 0x80, 1002),
        (CLOSE, struct.pack("!H", 5000), 0x80, 1002),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_closed(
    serve: Serve,
    log_lines: LogLines,
    handler: SocketHandler,
    opcode: int,
    data: bytes,
    first_bits: int,
    code: int,
) -> None:
    server = await serve(raw_agent_of(handler))
    async with RawPeer.connect(server) as peer:
        peer.send(opcode, data, first_bits=first_bits)
        assert await peer.close_code() == code
    assert await only_ending(server, log_lines) == (code, "protocol_error")
