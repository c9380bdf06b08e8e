"""Clients of both kinds of socket, handlers that a test leads, and the line of a socket's end."""

import asyncio
import contextlib
import json
import logging
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agentws import Agent, InvocationContext
from agentws.agent.handlers import SocketHandler
from tests.conftest import PATIENCE, Client, Frame, LogLines, Running
from tests.support.agents import Gate

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
WebSocket = web.WebSocketResponse

KIB = 1024
MIB = 1024**2

FRAMED = "/invocations_ws/ws"
RAW = "/invocations_ws"
"""The route of the raw socket, which is a framed one where the agent has no handler for it."""


def noise_of(size: int) -> str:
    """Return a text that cannot be compressed, the same each time."""
    return random.Random(size).randbytes(size).hex()


def seconds() -> float:
    """Return the time on the clock of the event loop."""
    return asyncio.get_running_loop().time()


# --- handlers of invocations ------------------------------------------------------------------


async def count(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
    """A handler that streams as many numbers as it is told to."""
    for number in range(payload):
        yield number


async def forever(payload: Any, context: InvocationContext) -> Any:
    """A handler that never answers."""
    await asyncio.Event().wait()


async def flood(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
    """A handler that streams as many times 64 KiB as it is told to."""
    for _ in range(payload):
        yield "x" * 64 * KIB


class Gates:
    """A handler with one gate for each invocation, by its id."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def __getitem__(self, invocation_id: str) -> Gate:
        return self._gates.setdefault(invocation_id, Gate())

    async def __call__(self, payload: Any, context: InvocationContext) -> Any:
        return await self[context.invocation_id](payload, context)


class Tap:
    """A generator handler: yields numbers from 1 on as they are let out, ends when it is closed."""

    def __init__(self) -> None:
        self._let_out = 0
        self._closed = False
        self._news = asyncio.Condition()

    async def let_out(self, number: int) -> None:
        """Have it yield up to this number."""
        async with self._news:
            self._let_out = number
            self._news.notify_all()

    async def close(self) -> None:
        """Have it end."""
        async with self._news:
            self._closed = True
            self._news.notify_all()

    async def __call__(
        self, _payload: Any, _context: InvocationContext
    ) -> AsyncGenerator[int, None]:
        number = 0
        while not (self._closed and number == self._let_out):
            async with self._news:
                while not self._closed and number == self._let_out:
                    await self._news.wait()
            while number < self._let_out:
                number += 1
                yield number


# --- the framed socket ------------------------------------------------------------------------


def told(frame: Frame) -> Frame:
    """Return an error frame with the code in place of the error object."""
    assert frame["type"] == "error", frame
    return {**frame, "error": frame["error"]["code"]}


async def assert_alive(client: Client) -> None:
    """See that the socket answers, and that nothing else was on its way."""
    assert await client.ask(action="ping") == {"type": "pong"}


async def end_of(client: Client, invocation_id: str) -> Frame:
    """Follow an invocation on this socket, and return the frame that ends it."""
    await client.send(action="attach_invocation", invocation_id=invocation_id)
    while (frame := await client.receive())["type"] == "stream_chunk":
        pass
    return frame


def answer_to(action: str, invocation_id: str, payload: Any) -> Frame:
    """Return the frame that answers an action, which has no session (§4)."""
    ids = {"action": action, "invocation_id": invocation_id}
    return {"type": "result", **ids, "payload": payload}


async def record_of(client: Client, invocation_id: str) -> Frame:
    """Poll, and return the record."""
    frame = await client.ask(action="get_invocation", invocation_id=invocation_id)
    record = frame.get("payload")
    assert frame == answer_to("get_invocation", invocation_id, record)
    assert isinstance(record, dict)
    return record


def vanish(client: Client) -> None:
    """Drop the connection without a close frame."""
    client.connection.transport.abort()


# --- the handshake ----------------------------------------------------------------------------


def handshake_of(connection: ClientConnection) -> Mapping[str, str]:
    """Return the headers with which the server answered a handshake."""
    assert connection.response is not None
    return connection.response.headers


async def refusal(
    server: Running, path: str = FRAMED, headers: Mapping[str, str] = {}
) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Be refused an upgrade; return status, error and headers."""
    with pytest.raises(InvalidStatus) as refused:
        async with server.connect(path, headers):
            pass
    response = refused.value.response
    error = json.loads(response.body or b"")["error"]
    assert response.headers["x-platform-error-source"] == error["source"]
    assert isinstance(error, dict)
    return response.status_code, error, response.headers


# --- the raw socket ---------------------------------------------------------------------------


def raw_agent_of(function: SocketHandler) -> Agent:
    """Return an agent that has this handler of raw sockets alone."""
    agent = Agent()
    agent.ws_handler(function)
    return agent


async def converse(ws: WebSocket, context: InvocationContext) -> None:
    """Send back what comes, until the client closes."""
    async for message in ws:
        await ws.send_str(message.data)


async def answer_json(ws: WebSocket, context: InvocationContext) -> None:
    """What most people write."""
    while True:
        await ws.send_json(await ws.receive_json())


async def tick(ws: WebSocket, context: InvocationContext) -> None:
    """Send, and never read."""
    while True:
        await ws.send_str("tick")
        await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(
    server: Running, path: str = RAW, headers: Mapping[str, str] = {}, **options: Any
) -> AsyncIterator[ClientConnection]:
    """Open a raw socket."""
    async with server.connect(path, headers, **options) as client:
        yield client.connection


async def received(client: ClientConnection) -> str | bytes:
    """Return the next message."""
    async with asyncio.timeout(PATIENCE):
        return await client.recv()


async def closing(client: ClientConnection) -> tuple[int | None, str | None]:
    """Wait for the server's close, passing over messages; return code and reason as sent."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.recv()
        await client.wait_closed()
    return client.close_code, client.close_reason


def faults(log_lines: LogLines) -> list[logging.LogRecord]:
    """Return what was logged of exceptions of the handler's."""
    return [record for record in log_lines.records if record.name == "agentws.raw"]


# --- the line that every socket leaves --------------------------------------------------------

FIELD = "azure.ai.agentserver.invocations_ws."

GAVE_UP = {"internal_error", "slow_client", "heartbeat_timeout"}
"""The errors of which the line warns."""

_PLAIN = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}


async def line_of(log_lines: LogLines) -> dict[str, Any]:
    """Return the fields of the next line about a socket, those of every log record left out."""
    record = await log_lines.next("agentws.connection")
    fields = {name: value for name, value in vars(record).items() if name not in _PLAIN}
    gave_up = fields.get(FIELD + "error.code") in GAVE_UP
    assert record.levelno == (logging.WARNING if gave_up else logging.INFO)
    assert record.exc_info is None
    return fields


async def ending_of(log_lines: LogLines) -> tuple[int, str | None]:
    """Return close code and error code of the next line, and check its other fields."""
    fields = await line_of(log_lines)
    close_code = fields.pop(FIELD + "close_code")
    error_code = fields.pop(FIELD + "error.code", None)
    assert type(close_code) is int
    assert re.fullmatch(".+", fields.pop(FIELD + "session_id"))
    assert fields.pop("peer") == "127.0.0.1"
    assert fields.keys() == {FIELD + "duration_ms", "invocations", "bytes_received", "bytes_sent"}
    assert all(type(value) is int and value >= 0 for value in fields.values())
    return close_code, error_code


async def only_ending(server: Running, log_lines: LogLines) -> tuple[int, str | None]:
    """Return close code and error code of the line, and check that there is no other.

    Nor is a fault of the handler's logged, but where it is the error.
    """
    close_code, error_code = await ending_of(log_lines)
    await server.server.drain()
    assert_no_more_lines(log_lines)
    assert len(faults(log_lines)) == (error_code == "internal_error")
    return close_code, error_code


def assert_no_more_lines(log_lines: LogLines) -> None:
    """See that no line about a socket is left."""
    assert not [record for record in log_lines.records if record.name == "agentws.connection"]
