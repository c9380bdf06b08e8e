"""Limits of raw sockets: slow clients, silent ones, old ones, and one too many (§8)."""

import asyncio

import pytest
from websockets.exceptions import ConnectionClosed

from agentws import InvocationContext
from tests.conftest import PATIENCE, LogLines, Serve
from tests.support.peers import PING, RawPeer
from tests.transports.websocket.conftest import (
    KIB,
    MIB,
    RAW,
    WebSocket,
    closing,
    connected,
    converse,
    ending_of,
    faults,
    only_ending,
    raw_agent_of,
    received,
    refusal,
    seconds,
)


async def flood(ws: WebSocket, context: InvocationContext) -> None:
    """Send and never look back."""
    while True:
        await ws.send_bytes(bytes(64 * KIB))


async def test_a_client_that_does_not_read_is_aborted(serve: Serve, log_lines: LogLines) -> None:
    fault: list[BaseException] = []

    async def watched(ws: WebSocket, context: InvocationContext) -> None:
        try:
            await flood(ws, context)
        except BaseException as error:
            fault.append(error)
            raise

    server = await serve(raw_agent_of(watched), websocket={"send_timeout": 0.3})
    async with RawPeer.connect(server, receive_buffer=4 * KIB) as peer:
        peer.stop_reading()
        started = seconds()
        assert await ending_of(log_lines) == (1006, "slow_client")
        assert seconds() - started >= 0.29  # clocks differ in their last digits
    assert isinstance(fault[0], ConnectionError)
    assert not faults(log_lines)


async def test_a_client_that_does_not_read_is_aborted_although_small_messages_still_fit(
    serve: Serve, log_lines: LogLines
) -> None:
    """What is put into the buffer is no progress: only what leaves it is."""

    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        async def tick() -> None:
            while True:
                await ws.send_str("tick")
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flood(ws, context))
            tasks.create_task(tick())

    server = await serve(raw_agent_of(talk), websocket={"send_timeout": 0.5})
    async with RawPeer.connect(server, receive_buffer=4 * KIB) as peer:
        peer.stop_reading()
        assert await ending_of(log_lines) == (1006, "slow_client")


async def test_a_client_that_reads_slowly_is_not_aborted(serve: Serve) -> None:
    """It takes longer for the whole than a send may take, but it takes something all the time."""
    size = 3 * MIB

    async def send(ws: WebSocket, context: InvocationContext) -> None:
        await ws.send_bytes(bytes(size))

    server = await serve(raw_agent_of(send), websocket={"send_timeout": 1.0})
    received = 0
    async with RawPeer.connect(server, receive_buffer=4 * KIB) as peer:
        async with asyncio.timeout(3 * PATIENCE):
            while received < size and (data := await peer.reader.read(32 * KIB)):
                received += len(data)
                await asyncio.sleep(0.01)
    assert received >= size


@pytest.mark.parametrize("receives", [False, True])
async def test_a_socket_is_closed_at_its_maximal_age_without_a_word(
    serve: Serve, log_lines: LogLines, receives: bool
) -> None:
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        if receives:
            await converse(ws, context)
        while True:
            await ws.ping()
            await asyncio.sleep(0.01)

    server = await serve(raw_agent_of(talk), websocket={"max_connection_age": 0.2})
    async with connected(server) as client:
        started = seconds()
        with pytest.raises(ConnectionClosed):
            await received(client)
        assert seconds() - started >= 0.15
        assert await closing(client) == (1001, "")
    assert await only_ending(server, log_lines) == (1001, None)


async def test_a_socket_past_the_limit_is_refused_before_the_upgrade(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(raw_agent_of(converse), websocket={"max_connections": 1})
    async with connected(server) as client:
        for path in (RAW, "/invocations_ws/ws"):  # all kinds are counted together
            status, error, headers = await refusal(server, path)
            assert (status, error["code"]) == (503, "too_many_connections")
            assert int(headers["Retry-After"]) >= 0
        await client.send("still there")
        assert await received(client) == "still there"
    assert await ending_of(log_lines) == (1000, None)
    async with connected(server) as client:
        await client.send("in its place")
        assert await received(client) == "in its place"


async def test_a_client_that_answers_no_ping_is_dropped(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(raw_agent_of(converse), websocket={"heartbeat": 0.2})
    async with RawPeer.connect(server) as peer:
        assert await peer.receive() == (PING, b"")
        assert await only_ending(server, log_lines) == (1006, "heartbeat_timeout")
