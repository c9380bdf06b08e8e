"""The life of a server: its start, and how it drains (§8)."""

import asyncio
import contextlib
import json
import logging
import re
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import websockets
from websockets.exceptions import InvalidStatus

from agentws import Agent, InvocationContext
from agentws.config.settings import Settings
from agentws.daemon.listening import BindError
from agentws.daemon.server import Server, StartupError
from tests.conftest import PATIENCE, Client, Frame, LogLines, Running, Serve
from tests.support.peers import HttpPeer

CLOSE_1001 = b"\x88\x02" + struct.pack("!H", 1001)


class MutePeer:
    """A raw TCP client that completes the handshake and never says another word."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Running) -> AsyncIterator["MutePeer"]:
        """Open a framed socket."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.server.port)
        writer.write(
            b"GET /invocations_ws/ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        try:
            yield cls(reader)
        finally:
            writer.transport.abort()

    async def all_it_was_told(self) -> bytes:
        """Return all that the server sends until it ends the connection."""
        async with asyncio.timeout(2 * PATIENCE):
            return await self._reader.read()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Gate:
    """A handler that returns its payload when it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, payload: Any, _context: InvocationContext) -> Any:
        self.entered.set()
        await self.opened.wait()
        return payload


def agent_of(gate: Gate) -> Agent:
    agent = Agent()
    agent.invoke_handler(gate)
    return agent


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


def seconds() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def draining(server: Running) -> AsyncIterator["asyncio.Task[bool]"]:
    """Drain the server during the body, and wait for the end."""
    task = asyncio.create_task(server.server.drain())
    yield task
    async with asyncio.timeout(2 * PATIENCE):
        await task


# --- the drain --------------------------------------------------------------------------------


async def test_while_it_drains_it_takes_nothing_new_and_sees_to_the_old(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), server={"shutdown_grace": 60.0})
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", payload="finished", invocation_id="i")
        await client.send(action="invoke", invocation_id="unwanted")
        await asyncio.wait_for(gate.entered.wait(), PATIENCE)
        async with draining(server):
            for told in (client, other):
                assert await told.receive() == {
                    "type": "going_away",
                    "reason": "shutdown",
                    "grace_seconds": 60.0,
                }
            async with session.get(f"{server.http}/readiness") as answer:
                assert (answer.status, await answer.json()) == (503, {"status": "draining"})
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
        async with draining(server):
            frame = await client.until(type="error")
            assert (frame["invocation_id"], frame["error"]["code"]) == ("i", "shutting_down")
            assert frame["error"]["source"] == "platform"
            assert "action" not in frame
            assert cleaned_up.is_set()
            record = await record_while_open(other, "i")
            if record is not None:
                assert (record["status"], record["error"]["code"]) == ("failed", "shutting_down")
            assert await client.closed() == 1001


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
        async with draining(server) as drain:
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
        async with draining(server) as drain:
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
        async with draining(server) as drain:
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
        async with draining(server):
            assert await client.closed() == 1001
        assert seconds() - started < 5.0


async def test_200_sockets_that_do_not_answer_the_close_are_closed_together(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(Gate()))
    async with AsyncExitStack() as open_peers:
        peers = [await open_peers.enter_async_context(MutePeer.connect(server)) for _ in range(200)]
        client = await open_peers.enter_async_context(server.connect())
        started = seconds()
        async with draining(server) as drain:
            assert await client.closed() == 1001
            for peer in peers:
                said = await peer.all_it_was_told()
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
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.setblocking(False)
        address = ("127.0.0.1", server.server.port)
        await asyncio.get_running_loop().sock_connect(narrow, address)
        async with server.connect(sock=narrow) as slow, server.connect() as client:
            slow.connection.transport.pause_reading()
            await slow.send(action="invoke")
            before = -1
            while yielded != before or yielded == 0:
                before = yielded
                for _ in range(50):
                    assert await client.ask(action="ping") == {"type": "pong"}
            started = seconds()
            async with draining(server):
                assert await client.closed() == 1001
            assert seconds() - started < 5.0
            slow.connection.transport.abort()


# --- the agent's own start and end ------------------------------------------------------------


async def test_the_agents_handlers_run_at_the_start_and_at_the_end(serve: Serve) -> None:
    agent, gate, events = Agent(), Gate(), list[str]()
    agent.invoke_handler(gate)

    @agent.startup_handler
    async def start() -> None:
        events.append("startup")

    @agent.shutdown_handler
    async def stop() -> None:
        events.append("shutdown")

    server = await serve(agent, server={"shutdown_grace": 60.0})
    assert events == ["startup"]
    async with server.connect() as client:
        await client.send(action="invoke")
        await asyncio.wait_for(gate.entered.wait(), PATIENCE)
        async with draining(server):
            await client.until(type="going_away")
            assert events == ["startup"]  # not before the last invocation has ended
            gate.opened.set()
    assert events == ["startup", "shutdown"]


@pytest.mark.parametrize(
    "error", [ValueError("hunter2"), SystemExit(3), KeyboardInterrupt()], ids=repr
)
async def test_a_shutdown_handler_that_raises_is_logged_and_the_drain_goes_on(
    serve: Serve, log_lines: LogLines, error: BaseException
) -> None:
    agent = Agent()

    @agent.shutdown_handler
    async def stop() -> None:
        raise error

    server = await serve(agent)
    async with server.connect() as client:
        await server.server.drain()
        assert await client.closed() == 1001
    while (line := await log_lines.next("agentws.server")).levelno < logging.ERROR:
        pass
    assert line.exc_info


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_shutdown_handler_that_hangs_is_given_up(
    serve: Serve, log_lines: LogLines, swallows: bool
) -> None:
    agent, released = Agent(), asyncio.Event()

    @agent.shutdown_handler
    async def stop() -> None:
        while True:
            try:
                await released.wait()
            except asyncio.CancelledError:
                if not swallows:
                    raise
            else:
                return

    server = await serve(agent)
    async with server.connect() as client:
        started = seconds()
        async with draining(server) as drain:
            assert await client.closed() == 1001
            assert seconds() - started < 2.0  # the sockets do not wait for it
        assert 1.0 < seconds() - started < 4.5
    assert drain.result() is False
    released.set()


class Refused(Exception):
    pass


async def test_a_startup_handler_that_raises_ends_the_start() -> None:
    agent = Agent()

    @agent.startup_handler
    async def start() -> None:
        raise Refused

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    section = {"host": address[0], "port": address[1]}
    server = Server(Settings(server=section), agent)  # type: ignore[arg-type]
    with pytest.raises(StartupError) as failure:
        await server.start()
    assert isinstance(failure.value.__cause__, Refused)
    with socket.socket() as other:  # the address is given back
        other.bind(address)


async def test_nobody_is_served_before_the_startup_handler_has_returned(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    agent, begun, go_on = Agent(), asyncio.Event(), asyncio.Event()

    @agent.startup_handler
    async def start() -> None:
        begun.set()
        await go_on.wait()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    starting = asyncio.ensure_future(serve(agent, server={"port": port}))
    await asyncio.wait_for(begun.wait(), PATIENCE)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    go_on.set()
    server = await starting
    async with session.get(f"{server.http}/readiness") as answer:
        assert answer.status == 200


async def test_an_address_that_is_taken_is_told_before_the_startup_handler_runs(
    serve: Serve,
) -> None:
    agent, begun = Agent(), asyncio.Event()

    @agent.startup_handler
    async def start() -> None:
        begun.set()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"127.0.0.1 port {port}"):
            await serve(agent, server={"port": port})
    assert not begun.is_set()


async def answering(session: aiohttp.ClientSession, port: int) -> set[str]:
    """Return the addresses that answer."""
    found = set()
    for address in ("127.0.0.1", "[::1]"):
        try:
            async with session.get(f"http://{address}:{port}/liveness") as answer:
                found.add(address if answer.status == 200 else "")
        except aiohttp.ClientConnectionError:
            pass
    return found


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("", {"127.0.0.1", "[::1]"}),
        ("*", {"127.0.0.1", "[::1]"}),
        ("::", {"127.0.0.1", "[::1]"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("::1", {"[::1]"}),
        ("127.0.0.1", {"127.0.0.1"}),
    ],
)
async def test_a_server_answers_on_every_address_of_its_host(
    serve: Serve, session: aiohttp.ClientSession, host: str, addresses: set[str]
) -> None:
    server = await serve(Agent(), server={"host": host})
    assert await answering(session, server.port) == addresses


@pytest.mark.parametrize("host", ["", "*"])
async def test_without_ipv6_every_address_is_one_of_ipv4(
    serve: Serve, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    server = await serve(Agent(), server={"host": host})
    assert await answering(session, server.port) == {"127.0.0.1"}


@pytest.mark.parametrize("host", ["127.0..1", "a..b", "x" * 64])
async def test_what_is_no_name_of_a_host_is_refused(serve: Serve, host: str) -> None:
    with pytest.raises(BindError, match=rf"^cannot listen on {re.escape(host)} "):
        await serve(Agent(), server={"host": host})


async def test_an_address_that_is_taken_is_told_as_it_was_meant(serve: Serve) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=rf"^cannot listen on \* port {port}: "):
            await serve(Agent(), server={"host": "", "port": port})


# --- the size of what comes before a body -----------------------------------------------------

FIELD = 16 * 1024
MOST_FIELDS = 128


def field(number: int, size: int = FIELD) -> str:
    """A header field whose name and value have so many bytes together."""
    name = f"x-field-{number:03}"
    return f"{name}: {'v' * (size - len(name))}"


@pytest.mark.parametrize(
    ("line", "fields", "status"),
    [
        ("GET /liveness", [field(1)], 200),
        ("GET /liveness", [field(1), field(2), field(3)], 200),
        ("GET /liveness", [field(number, 64) for number in range(MOST_FIELDS - 1)], 200),
        (f"GET /liveness?{'q' * (FIELD - len('/liveness?'))}", [], 200),
        ("GET /liveness", [field(1, FIELD + 64)], 400),
        ("GET /liveness", [field(number, 64) for number in range(MOST_FIELDS)], 400),
        (f"GET /liveness?{'q' * FIELD}", [], 400),
    ],
    ids=["a field", "three", "many", "a line", "too long", "too many", "too long a line"],
)
async def test_header_fields_have_room_for_16_kib_each(
    serve: Serve, line: str, fields: list[str], status: int
) -> None:
    server = await serve(Agent())
    async with HttpPeer.connect(server) as peer:
        peer.request(line, *fields)
        async with asyncio.timeout(PATIENCE):
            assert int((await peer.reader.readline()).split()[1]) == status


# --- the end, as gateways see it --------------------------------------------------------------


async def ask_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send two requests, one after the other, and return all that comes."""
    writer.write(b"GET /readiness HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    async with asyncio.timeout(PATIENCE):
        answers = await reader.read()
    writer.close()
    return answers


async def test_while_it_ends_it_accepts_no_connection_and_answers_on_those_there_are(
    serve: Serve,
) -> None:
    agent, ending, go_on = Agent(), asyncio.Event(), asyncio.Event()

    @agent.shutdown_handler
    async def stop() -> None:
        ending.set()
        await go_on.wait()

    server = await serve(agent)
    streams = await asyncio.open_connection("127.0.0.1", server.port)
    draining = asyncio.create_task(server.server.drain())
    await ending.wait()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
    answers = await ask_twice(*streams)
    assert answers.startswith(b"HTTP/1.1 503 ")
    assert answers.count(b"HTTP/1.1") == answers.count(b"Connection: close\r\n") == 1
    go_on.set()
    await draining
