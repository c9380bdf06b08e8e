"""Ping messages: they come after silence of the server's (§8)."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from agentws import InvocationContext
from tests.conftest import PATIENCE, Serve
from tests.support.agents import agent_of, echo
from tests.support.peers import TEXT, FramedPeer
from tests.transports.websocket.conftest import seconds


async def test_without_a_heartbeat_nobody_is_pinged(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"heartbeat": 0, "app_ping_interval": 0.1})
    async with FramedPeer.connect(server) as peer:
        for _ in range(3):
            opcode, data = await peer.receive()
            assert (opcode, json.loads(data)) == (TEXT, {"type": "ping"})


async def test_a_ping_message_comes_after_silence_and_only_then(serve: Serve) -> None:
    tick = 0.02

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        for number in range(30):  # twice as long as the interval
            await asyncio.sleep(tick)
            yield number

    server = await serve(agent_of(invoke), websocket={"app_ping_interval": 0.3})
    async with server.connect() as client:
        await client.connection.send('{"action":"invoke"}')
        types: list[str] = []
        while not types or types[-1] != "stream_end":
            types.append(json.loads(await client.connection.recv())["type"])
            said_at = seconds()
        assert "ping" not in types
        for _ in range(2):
            assert json.loads(await client.connection.recv()) == {"type": "ping"}
            silence, said_at = seconds() - said_at, seconds()
            assert 0.2 < silence < 2.0


async def test_what_the_client_says_does_not_put_off_the_ping_message(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"app_ping_interval": 0.1})

    async with server.connect() as client:

        async def chatter() -> None:
            while True:
                await client.send(action="pong")
                await asyncio.sleep(0.01)

        chattering = asyncio.create_task(chatter())
        async with asyncio.timeout(PATIENCE):
            assert json.loads(await client.connection.recv()) == {"type": "ping"}
        chattering.cancel()
        await asyncio.wait({chattering})
