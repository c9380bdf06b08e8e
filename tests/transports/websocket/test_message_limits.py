"""What closes the framed socket: text that is no UTF-8, and messages that are too large."""

import asyncio
import contextlib
import json
import tracemalloc

import pytest
from aiohttp import ClientError, ClientSession, WSMsgType

from tests.conftest import Serve
from tests.support.agents import agent_of, echo
from tests.transports.websocket.conftest import MIB, assert_alive


async def test_a_text_message_that_is_not_utf8_is_closed_with_1007(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        await client.connection.send(b'{"action":"ping","x":"\xff"}', text=True)
        assert await client.closed() == 1007


async def test_a_message_of_5_mib_is_closed_with_1009(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client, server.connect() as other:
        sending = asyncio.create_task(client.send(action="invoke", payload="x" * 5 * MIB))
        assert await client.closed() == 1009
        await asyncio.wait({sending})
        sending.exception()
        await assert_alive(other)


async def test_a_client_that_sends_much_more_hears_of_1009_too(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with (
        ClientSession() as session,
        session.ws_connect(f"{server.ws}/invocations_ws") as socket,
    ):
        with contextlib.suppress(ClientError):  # it may be told of the end before it is through
            await socket.send_str(json.dumps({"action": "invoke", "payload": "x" * 40 * MIB}))
        assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == 1009


async def test_a_message_of_4_mib_is_answered(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect(max_size=None) as client:
        message = '{"action":"invoke","payload":"%s"}'
        padding = "x" * (4 * MIB - len(message % ""))
        await client.connection.send(message % padding)
        assert (await client.receive())["payload"] == padding


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("as_text", [True, False])
async def test_the_limit_of_a_message_is_exact(serve: Serve, parts: int, as_text: bool) -> None:
    server = await serve(agent_of(echo), websocket={"max_message_size": 1000})

    def message(size: int) -> list[bytes]:
        whole = b'{"action":"invoke","payload":"%b"}'
        whole %= b"x" * (size - len(whole) + 2)
        assert len(whole) == size
        step = size // parts
        return [whole[index * step : (index + 1) * step] for index in range(parts - 1)] + [
            whole[(parts - 1) * step :]
        ]

    async with server.connect() as client:
        for size in (999, 1000):
            await client.connection.send(message(size), text=as_text)
            assert (await client.receive())["type"] == "result"
        await client.connection.send(message(1001), text=as_text)
        assert await client.closed() == 1009


async def test_the_limit_counts_bytes_not_characters(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_message_size": 1000})
    async with server.connect() as client:
        message = json.dumps({"action": "invoke", "payload": "é" * 600}, ensure_ascii=False)
        assert len(message) < 1000 < len(message.encode())
        await client.connection.send(message)
        assert await client.closed() == 1009


async def test_a_socket_that_waits_has_let_go_of_its_last_message(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        await client.ask(action="ping")
        tracemalloc.start()
        await client.ask(action="ping", unknown="x" * 3 * MIB)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < MIB < peak
