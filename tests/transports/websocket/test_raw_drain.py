"""Raw sockets while the server is drained, and handlers that hold up nobody (§8)."""

import asyncio
import contextlib

import pytest

from agentws import Agent, InvocationContext
from agentws.agent.handlers import SocketHandler
from tests.conftest import PATIENCE, LogLines, Serve
from tests.support.agents import soon
from tests.support.peers import TEXT, RawPeer
from tests.transports.websocket.conftest import (
    RAW,
    WebSocket,
    answer_json,
    closing,
    connected,
    converse,
    ending_of,
    only_ending,
    raw_agent_of,
    received,
    refusal,
    seconds,
)


class Stubborn:
    """A handler that swallows every cancellation until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, ws: WebSocket, _: InvocationContext) -> None:
        self.entered.set()
        while not self.let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.let_go.wait()
        self.left.set()


@pytest.mark.parametrize("handler", [converse, answer_json])
async def test_a_handler_that_waits_is_closed_with_1001_after_the_grace(
    serve: Serve, log_lines: LogLines, handler: SocketHandler
) -> None:
    server = await serve(raw_agent_of(handler), server={"shutdown_grace": 0.3})
    async with connected(server) as client:
        await client.send("1")
        assert await received(client) == "1"
        started = seconds()
        async with server.draining() as drain:
            await client.send("2")  # it is served until the grace is over
            assert await received(client) == "2"
            assert await closing(client) == (1001, "")
            assert seconds() - started >= 0.3
            assert await drain is True
    assert await only_ending(server, log_lines) == (1001, None)


async def test_a_handler_that_is_cancelled_has_time_for_a_last_word(
    serve: Serve, log_lines: LogLines
) -> None:
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        try:
            await converse(ws, context)
        finally:
            await ws.send_str("farewell")

    server = await serve(raw_agent_of(talk))
    async with connected(server) as client:
        await client.send("1")
        assert await received(client) == "1"
        async with server.draining():
            assert await received(client) == "farewell"
            assert await closing(client) == (1001, "")
    assert await only_ending(server, log_lines) == (1001, None)


@pytest.mark.parametrize("cancel_grace", [0.1, 60.0])
async def test_a_handler_that_swallows_its_cancellation_does_not_hold_the_drain(
    serve: Serve, log_lines: LogLines, cancel_grace: float
) -> None:
    stubborn = Stubborn()
    server = await serve(raw_agent_of(stubborn), invocations={"cancel_grace": cancel_grace})
    async with connected(server) as client:
        await soon(stubborn.entered)
        started = seconds()
        async with server.draining() as drain:
            assert await closing(client) == (1001, "")
            assert await ending_of(log_lines) == (1001, None)
            assert await drain is False
            assert seconds() - started < 4.0  # a second for it, three for the rest
        assert not stubborn.left.is_set()
        stubborn.let_go.set()
        await soon(stubborn.left)
    await asyncio.sleep(0)
    assert not [record for record in log_lines.records if record.name == "agentws.connection"]


async def test_a_handler_that_ends_in_time_closes_with_1000(
    serve: Serve, log_lines: LogLines
) -> None:
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        await ws.send_str(await ws.receive_str())

    server = await serve(raw_agent_of(talk), server={"shutdown_grace": 2 * PATIENCE})
    async with connected(server) as client:
        started = seconds()
        async with server.draining() as drain:
            status, error, headers = await refusal(server, RAW)
            assert (status, error["code"]) == (503, "shutting_down")
            assert int(headers["Retry-After"]) >= 0
            await client.send("last")
            assert await received(client) == "last"
            assert await closing(client) == (1000, "")
            assert await drain is True
        assert seconds() - started < PATIENCE  # the drain ends with the last handler
    assert await only_ending(server, log_lines) == (1000, None)


async def test_many_sockets_are_closed_together(serve: Serve, log_lines: LogLines) -> None:
    """Not one by one: none of these answers the close, for which each would be waited."""
    server = await serve(raw_agent_of(converse))
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(RawPeer.connect(server)) for _ in range(30)]
        for peer in peers:
            peer.send(TEXT, b"1")
            await peer.receive()
        started = seconds()
        async with server.draining():
            for peer in peers:
                assert await peer.close_code() == 1001
        assert seconds() - started < PATIENCE
        for _ in peers:
            assert await ending_of(log_lines) == (1001, None)


async def test_a_slow_socket_holds_up_no_other(serve: Serve) -> None:
    stubborn = Stubborn()
    agent = Agent()

    @agent.ws_handler
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        handler = stubborn if "wait" in context.query else converse
        await handler(ws, context)

    server = await serve(agent)
    async with connected(server, f"{RAW}?wait=1"), connected(server) as client:
        await soon(stubborn.entered)
        await client.send("hello")
        assert await received(client) == "hello"
        stubborn.let_go.set()
