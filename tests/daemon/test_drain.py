"""How a server drains: what is refused, what may end, and what is given up (§8)."""

import asyncio
import contextlib
import json
import logging
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import websockets
from websockets.exceptions import InvalidStatus

from agentws import Agent, InvocationContext
from tests.conftest import Client, Frame, LogLines, Serve
from tests.daemon.conftest import seconds
from tests.support.agents import Gate, agent_of, soon
from tests.support.http_client import Session
from tests.support.peers import FramedPeer, HttpPeer


async def test_while_it_drains_it_takes_nothing_new_and_sees_to_the_old(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), server={"shutdown_grace": 60.0})
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", payload="finished", invocation_id="i")
        await client.send(action="invoke", invocation_id="unwanted")
        await soon(gate.entered)
        async with server.draining():
            for told in (client, other):
                assert await told.receive() == {
                    "type": "going_away",
                    "reason": "shutdown",
                    "grace_seconds": 60.0,
                }
            async with session.get(f"{server.http}/readiness") as answer:
                body = {"status": "draining", "checks": {"store": "ok"}}
                assert (answer.status, await answer.json()) == (503, body)
            async with session.get(f"{server.http}/liveness") as answer:
                assert (answer.status, await answer.json()) == (200, {"status": "alive"})

            for background in (False, True):
                frame = await client.ask(
                    action="invoke", invocation_id="late", background=background
                )
                assert (frame["action"], frame["invocation_id"]) == ("invoke", "late")
                assert frame["error"]["code"] == "shutting_down"
                assert (frame["error"]["retryable"], frame["error"]["source"]) == (
                    True,
                    "platform",
                )
            with pytest.raises(InvalidStatus) as refusal:
                await websockets.connect(f"{server.ws}/invocations_ws/ws")
            assert refusal.value.response.status_code == 503
            assert int(refusal.value.response.headers["Retry-After"]) >= 1
            body = json.loads(refusal.value.response.body or b"")
            assert body["error"]["code"] == "shutting_down"

            frame = await other.ask(action="get_invocation", invocation_id="i")
            assert frame["payload"]["status"] == "running"
            assert await other.ask(action="ping") == {"type": "pong"}
            await other.send(action="attach_invocation", invocation_id="i")
            frame = await other.ask(action="cancel_invocation", invocation_id="unwanted")
            assert frame["payload"]["status"] == "cancelled"
            assert (await client.receive())["error"]["code"] == "cancelled"

            gate.opened.set()
            for told in (client, other):
                frame = await told.receive()
                assert (frame["type"], frame["payload"]) == ("result", "finished")
                assert await told.closed() == 1001


async def test_it_ends_as_soon_as_the_last_invocation_has_ended(serve: Serve) -> None:
    server = await serve(agent_of(Gate()), server={"shutdown_grace": 60.0})
    async with server.connect() as client:
        assert await client.ask(action="ping") == {"type": "pong"}
        started = seconds()
        assert await server.server.drain() is True
        assert seconds() - started < 3.0
        assert (await client.receive())["type"] == "going_away"
        assert await client.closed() == 1001


async def test_after_the_drain_nobody_listens(serve: Serve) -> None:
    server = await serve(agent_of(Gate()))
    port = server.server.port
    await server.server.drain()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_while_it_ends_it_accepts_no_connection_and_answers_on_those_there_are(
    serve: Serve,
) -> None:
    agent, ending, go_on = Agent(), asyncio.Event(), asyncio.Event()

    @agent.shutdown_handler
    async def stop() -> None:
        ending.set()
        await go_on.wait()

    server = await serve(agent)
    async with HttpPeer.connect(server) as peer, server.draining():
        await soon(ending)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(2):
            peer.request("GET /readiness")
        answers = await peer.rest()
        assert answers.startswith(b"HTTP/1.1 503 ")
        assert answers.count(b"HTTP/1.1") == answers.count(b"Connection: close\r\n") == 1
        go_on.set()


# --- what outlasts the grace ------------------------------------------------------------------


async def record_while_open(client: Client, invocation_id: str) -> Frame | None:
    """The record of an invocation, None if the socket is closed before it is told."""
    try:
        await client.send(action="get_invocation", invocation_id=invocation_id)
        frame = await client.until(type="result")
    except websockets.ConnectionClosed:
        return None
    record = frame["payload"]
    assert isinstance(record, dict)
    return record


@pytest.mark.parametrize("streams", [False, True])
async def test_what_outlasts_the_grace_is_cancelled_and_recorded_as_failed(
    serve: Serve, streams: bool
) -> None:
    agent, cleaned_up = Agent(), asyncio.Event()

    async def once(payload: Any, context: InvocationContext) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.set()

    async def stream(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            cleaned_up.set()

    agent.invoke_handler(stream if streams else once)
    server = await serve(agent, server={"shutdown_grace": 0.2})
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i")
        if streams:
            await client.until(type="stream_chunk")
        await client.send(action="ping")
        await client.until(type="pong")
        async with server.draining():
            frame = await client.until(type="error")
            assert (frame["invocation_id"], frame["error"]["code"]) == ("i", "shutting_down")
            assert frame["error"]["source"] == "platform"
            assert "action" not in frame
            assert cleaned_up.is_set()
            record = await record_while_open(other, "i")
            if record is not None:
                assert (record["status"], record["error"]["code"]) == ("failed", "shutting_down")
            assert await client.closed() == 1001


class Stubborn:
    """A handler that swallows every cancellation until it is released."""

    def __init__(self) -> None:
        self._released = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def until_left(cls) -> AsyncIterator["Stubborn"]:
        """Make one that is released at the end of the body."""
        made = cls()
        try:
            yield made
        finally:
            made._released.set()

    async def __call__(self, _payload: Any, _context: InvocationContext) -> Any:
        while not self._released.is_set():
            try:
                await self._released.wait()
            except asyncio.CancelledError:
                continue


async def test_the_record_of_what_was_cancelled_can_be_read_while_another_cleans_up(
    serve: Serve,
) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        if payload == "stubborn":
            return await stubborn(payload, context)
        return await asyncio.Event().wait()

    server = await serve(agent, invocations={"cancel_grace": 60.0})
    async with Stubborn.until_left() as stubborn, server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        await client.send(action="invoke", payload="stubborn", invocation_id="stubborn")
        assert await client.ask(action="ping") == {"type": "pong"}
        async with server.draining() as drain:
            await client.until(invocation_id="i", type="error")
            frame = await client.ask(action="get_invocation", invocation_id="i")
            record = frame["payload"]
            assert (record["status"], record["error"]["code"]) == ("failed", "shutting_down")
            frame = await client.receive()
            assert (frame["invocation_id"], frame["error"]["code"]) == (
                "stubborn",
                "shutting_down",
            )
            assert await client.closed() == 1001
        assert drain.result() is False


@pytest.mark.parametrize("cancel_grace", [0.1, 60.0])
async def test_a_handler_that_swallows_its_cancellation_is_given_up_in_a_second_at_most(
    serve: Serve, log_lines: LogLines, cancel_grace: float
) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        await stubborn(payload, context)

    server = await serve(agent, invocations={"cancel_grace": cancel_grace})
    async with Stubborn.until_left() as stubborn, server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        assert await client.ask(action="ping") == {"type": "pong"}
        started = seconds()
        async with server.draining() as drain:
            frame = await client.until(type="error")
            assert frame["error"]["code"] == "shutting_down"
            assert await client.closed() == 1001
        took = seconds() - started
        assert min(cancel_grace, 1.0) * 0.9 < took < min(cancel_grace, 1.0) + 3.0
        assert drain.result() is False
    line = await log_lines.next("agentws.invocations")
    assert line.levelno == logging.WARNING
    assert vars(line)["invocation_id"] == "i"


async def test_a_handler_that_swallows_its_cancellation_and_returns_is_recorded_as_failed(
    serve: Serve,
) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return payload

    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="invoke", payload="dropped", invocation_id="i")
        assert await client.ask(action="ping") == {"type": "pong"}
        async with server.draining() as drain:
            frame = await client.until(type="error")
            assert frame["error"]["code"] == "shutting_down"
        assert drain.result() is True


async def test_a_get_handler_that_hangs_does_not_hold_the_drain(serve: Serve) -> None:
    agent = Agent()

    @agent.get_invocation_handler
    async def hang(context: InvocationContext) -> None:
        await asyncio.Event().wait()

    agent.cancel_invocation_handler(hang)
    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="get_invocation", invocation_id="i")
        await client.send(action="cancel_invocation", invocation_id="i")
        assert await client.ask(action="ping") == {"type": "pong"}
        started = seconds()
        async with server.draining():
            assert await client.closed() == 1001
        assert seconds() - started < 5.0


# --- peers that do not take part --------------------------------------------------------------

CLOSE_1001 = b"\x88\x02" + struct.pack("!H", 1001)


async def test_200_sockets_that_do_not_answer_the_close_are_closed_together(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(Gate()))
    async with AsyncExitStack() as open_peers:
        peers = [
            await open_peers.enter_async_context(FramedPeer.connect(server)) for _ in range(200)
        ]
        client = await open_peers.enter_async_context(server.connect())
        started = seconds()
        async with server.draining() as drain:
            assert await client.closed() == 1001
            for peer in peers:
                said = await peer.rest()
                assert b'"going_away"' in said
                assert said.endswith(CLOSE_1001)
        assert seconds() - started < 4.0
        assert drain.result() is True
    endings = [record for record in log_lines.records if record.name == "agentws.connection"]
    assert len(endings) == 201
    field = "azure.ai.agentserver.invocations_ws.close_code"
    assert {vars(record)[field] for record in endings} == {1001}


async def test_sockets_that_read_nothing_do_not_hold_the_drain(serve: Serve) -> None:
    agent, yielded = Agent(), 0

    @agent.invoke_handler
    async def flood(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        nonlocal yielded
        while True:
            yielded += 1
            yield "x" * 64 * 1024

    server = await serve(agent, websocket={"send_timeout": 60.0})
    async with FramedPeer.connect(server, receive_buffer=4096) as slow, server.connect() as client:
        slow.stop_reading()
        slow.act(action="invoke")
        before = -1
        while yielded != before or yielded == 0:
            before = yielded
            for _ in range(50):
                assert await client.ask(action="ping") == {"type": "pong"}
        started = seconds()
        async with server.draining():
            assert await client.closed() == 1001
        assert seconds() - started < 5.0
