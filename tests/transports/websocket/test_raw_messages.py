"""What goes over a raw socket, and what is current while it does (§9)."""

import asyncio
import json
import logging

import pytest
from aiohttp import WSMsgType
from opentelemetry import baggage, trace

from agentws import InvocationContext
from agentws.telemetry.logs import InvocationFilter
from tests.conftest import PATIENCE, LogLines, Serve
from tests.support.peers import PING, PONG, RawPeer
from tests.transports.websocket.conftest import (
    KIB,
    WebSocket,
    closing,
    connected,
    converse,
    line_of,
    raw_agent_of,
    received,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


async def test_binary_goes_both_ways_at_once(serve: Serve) -> None:
    """Each side sends more than all buffers hold, and only then has read it all."""
    count, size = 300, 64 * KIB

    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        async def hear() -> None:
            for number in range(count):
                assert await ws.receive_bytes() == number.to_bytes(4, "big") * (size // 4)

        async def speak() -> None:
            for number in range(count):
                await ws.send_bytes((~number % 2**32).to_bytes(4, "big") * (size // 4))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hear())
            tasks.create_task(speak())

    server = await serve(raw_agent_of(talk))
    async with connected(server) as client:

        async def speak() -> None:
            for number in range(count):
                await client.send(number.to_bytes(4, "big") * (size // 4))

        async with asyncio.timeout(3 * PATIENCE), asyncio.TaskGroup() as tasks:
            tasks.create_task(speak())
            for number in range(count):
                assert await client.recv() == (~number % 2**32).to_bytes(4, "big") * (size // 4)
        assert await closing(client) == (1000, "")


async def test_text_and_binary_keep_their_kind(serve: Serve) -> None:
    async def tell(ws: WebSocket, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_json([message.type.name, str(message.data)])
            if message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)

    server = await serve(raw_agent_of(tell))
    async with connected(server) as client:
        await client.send("é")
        assert json.loads(await received(client)) == ["TEXT", "é"]
        await client.send(b"\xff\x00")
        assert json.loads(await received(client)) == ["BINARY", "b'\\xff\\x00'"]
        assert await received(client) == b"\xff\x00"


@pytest.mark.parametrize("listened", [False, True])
async def test_the_line_tells_how_much_went_over_it(
    serve: Serve, log_lines: LogLines, listened: bool
) -> None:
    async def talk(ws: WebSocket, context: InvocationContext) -> None:
        if listened:
            await ws.pong()  # which is no message
            await let_go.wait()
        for _ in range(2):
            await ws.receive()
        await ws.send_str("é")
        await ws.send_bytes(b"12345")
        await ws.send_json({})
        await ws.send_frame(b"1", WSMsgType.TEXT)

    let_go = asyncio.Event()
    server = await serve(raw_agent_of(talk))
    async with connected(server) as client:
        if listened:
            await (await client.ping())
        await client.send("éé")
        await client.send(b"123")
        let_go.set()
        await closing(client)
    fields = await line_of(log_lines)
    assert (fields["bytes_received"], fields["bytes_sent"]) == (4 + 3, 2 + 5 + 2 + 1)
    assert fields["invocations"] == 0


async def test_a_ping_is_answered_while_the_handler_receives(serve: Serve) -> None:
    server = await serve(raw_agent_of(converse))
    async with RawPeer.connect(server) as peer:
        peer.send(PING, b"data")
        assert await peer.receive() == (PONG, b"data")


# --- trace and log context --------------------------------------------------------------------


async def test_the_callers_trace_and_the_baggage_are_current(serve: Serve) -> None:
    async def tell(ws: WebSocket, context: InvocationContext) -> None:
        span = trace.get_current_span().get_span_context()
        await asyncio.sleep(0)  # for it stays current
        assert trace.get_current_span().get_span_context() == span
        mine = {
            "azure.ai.agentserver.invocation_id": context.invocation_id,
            "azure.ai.agentserver.session_id": context.session_id,
            "x-request-id": context.request_id,
        }
        others = {key: value for key, value in baggage.get_all().items() if key not in mine}
        await ws.send_json(
            {
                "trace": f"{span.trace_id:032x}",
                "parent": f"{span.span_id:016x}",
                "remote": span.is_remote,
                "state": span.trace_state.to_header(),
                "mine": {key: baggage.get_baggage(key) for key in mine} == mine,
                "others": others,
                "request": context.request_id,
            }
        )

    server = await serve(raw_agent_of(tell))
    headers = {
        "traceparent": f"00-{TRACE}-{PARENT}-01",
        "tracestate": "vendor=1",
        "baggage": "tenant=t%201,x-request-id=forged",
    }
    async with connected(server, headers=headers) as client:
        assert json.loads(await received(client)) == {
            "trace": TRACE,
            "parent": PARENT,
            "remote": True,
            "state": "vendor=1",
            "mine": True,
            "others": {"tenant": "t 1"},
            "request": TRACE,
        }
    async with connected(server) as client:  # another's is not this one's
        told = json.loads(await received(client))
        assert (told["trace"], told["parent"]) == ("0" * 32, "0" * 16)
        assert (told["mine"], told["others"]) == (True, {})


async def test_log_lines_of_the_handlers_name_its_invocation(
    serve: Serve, log_lines: LogLines
) -> None:
    log_lines.addFilter(InvocationFilter())
    seen: list[InvocationContext] = []

    async def log(ws: WebSocket, context: InvocationContext) -> None:
        seen.append(context)
        logging.getLogger("agent").info("one")
        await asyncio.create_task(later())

    async def later() -> None:
        logging.getLogger("agent").info("two")

    server = await serve(raw_agent_of(log))
    for _ in range(2):
        async with connected(server) as client:
            await closing(client)
    for context in seen:
        for text in ("one", "two"):
            line = await log_lines.next("agent")
            assert line.getMessage() == text
            assert vars(line)["invocation_id"] == context.invocation_id
            assert vars(line)["session_id"] == context.session_id
    logging.getLogger("agent").info("outside")
    assert "invocation_id" not in vars(await log_lines.next("agent"))
