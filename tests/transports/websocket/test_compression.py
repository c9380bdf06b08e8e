"""Messages that are compressed."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentws import InvocationContext
from tests.conftest import LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.support.peers import TEXT, masked
from tests.transports.websocket.conftest import MIB, converse, ending_of, handshake_of, noise_of


async def test_compression_is_offered_only_where_it_is_set(serve: Serve) -> None:
    for offered in (False, True):
        server = await serve(agent_of(echo), websocket={"compression": offered})
        async with server.connect(compression="deflate") as client:
            negotiated = "Sec-WebSocket-Extensions" in handshake_of(client.connection)
            assert negotiated == offered
            for payload in (
                "short",
                "long" * 100_000,
                noise_of(50_000),
                "",
            ):
                assert (await client.ask(action="invoke", payload=payload))["payload"] == payload


async def test_a_compressed_stream_arrives_whole_and_in_order(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        for number in range(300):
            yield f"{number}" * (number * 20)

    server = await serve(agent_of(invoke), websocket={"compression": True})
    async with server.connect(compression="deflate") as client:
        await client.send(action="invoke")
        await client.send(action="ping")
        numbers = []
        while (message := await client.receive())["type"] != "stream_end":
            if message["type"] == "stream_chunk":
                number = message["sequence_number"] - 1
                assert message["payload"] == f"{number}" * (number * 20)
                numbers.append(number)
        assert numbers == list(range(300))


async def test_a_message_that_is_too_large_once_decompressed_is_closed_with_1009(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo), websocket={"compression": True})
    async with server.connect(compression="deflate") as client:
        await client.send(action="invoke", payload="x" * 5 * MIB)
        assert await client.closed() == 1009
    assert await ending_of(log_lines) == (1009, "payload_too_large")


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
async def test_compressed_data_that_is_corrupt_is_closed_with_1007(
    serve: Serve, log_lines: LogLines, path: str
) -> None:
    agent = agent_of(echo)
    agent.ws_handler(converse)
    server = await serve(agent, websocket={"compression": True})
    async with server.connect(path, compression="deflate") as client:
        client.connection.transport.write(masked(TEXT, b"\xff\xff\xff", first_bits=0xC0))
        assert await client.closed() == 1007
    assert await ending_of(log_lines) == (1007, "protocol_error")
