"""A raw socket that its handler ends: by returning, by an exception, by a close."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from agentws import Agent, InvocationContext, InvocationError
from tests.conftest import LogLines, Serve
from tests.transports.websocket.conftest import (
    FIELD,
    WebSocket,
    answer_json,
    closing,
    connected,
    ending_of,
    faults,
    only_ending,
    raw_agent_of,
    received,
)


async def test_a_handler_that_returns_closes_with_1000(serve: Serve, log_lines: LogLines) -> None:
    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await ws.send_str("bye")

    server = await serve(raw_agent_of(leave))
    async with connected(server) as client:
        assert await received(client) == "bye"
        assert await closing(client) == (1000, "")
    assert await only_ending(server, log_lines) == (1000, None)


@pytest.mark.parametrize(
    "fault",
    [
        lambda: RuntimeError("secret"),
        lambda: InvocationError("secret", "secret", status=404),
        lambda: SystemExit("secret"),
        lambda: KeyboardInterrupt("secret"),
        lambda: asyncio.CancelledError("secret"),
        lambda: TimeoutError("secret"),
        lambda: ConnectionRefusedError("secret"),
        lambda: web.HTTPNotFound(text="secret"),
        lambda: BaseExceptionGroup("secret", [KeyboardInterrupt("secret")]),
    ],
)
async def test_a_handler_that_raises_closes_with_1011_and_tells_nothing(
    serve: Serve, log_lines: LogLines, fault: Callable[[], BaseException]
) -> None:
    async def fail(ws: WebSocket, context: InvocationContext) -> None:
        if await ws.receive_str() == "fail":
            raise fault()

    server = await serve(raw_agent_of(fail))
    async with connected(server) as client:
        await client.send("fail")
        assert await closing(client) == (1011, "Internal server error")
    line = await log_lines.next("agentws.connection")
    assert vars(line)[FIELD + "close_code"] == 1011
    assert vars(line)[FIELD + "error.code"] == "internal_error"
    assert "secret" not in line.getMessage() + repr(vars(line))
    (fault_line,) = faults(log_lines)
    assert fault_line.levelno == logging.ERROR
    assert fault_line.exc_info is not None
    log_lines.records.remove(fault_line)
    async with connected(server) as client:  # the daemon lives
        await client.send("live")
        assert await closing(client) == (1000, "")
    assert await only_ending(server, log_lines) == (1000, None)


async def test_a_message_that_the_handler_cannot_use_is_its_own_affair(
    serve: Serve, log_lines: LogLines
) -> None:
    """The client is there: what the handler did not catch is an error, whatever its class."""
    server = await serve(raw_agent_of(answer_json))
    for message in (b"binary", "no json"):
        async with connected(server) as client:
            await client.send(message)
            assert await closing(client) == (1011, "Internal server error")
        assert await ending_of(log_lines) == (1011, "internal_error")


def closing_with(**options: Any) -> Agent:
    """Return an agent that closes every socket at once, with such a code and reason."""

    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await ws.close(**options)

    return raw_agent_of(leave)


@pytest.mark.parametrize("code", [1000, 1008, 1013, 3000, 4001])
async def test_the_handlers_own_close_is_left_as_it_is(
    serve: Serve, log_lines: LogLines, code: int
) -> None:
    server = await serve(closing_with(code=code, message=b"enough"))
    async with connected(server) as client:
        assert await closing(client) == (code, "enough")
    assert await only_ending(server, log_lines) == (code, None)


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70000])
async def test_a_close_of_the_handlers_that_may_not_be_sent_is_1011(
    serve: Serve, log_lines: LogLines, code: int
) -> None:
    server = await serve(closing_with(code=code, message=b"enough"))
    async with connected(server) as client:
        assert await closing(client) == (1011, "enough")
    assert await only_ending(server, log_lines) == (1011, "internal_error")
    (fault,) = faults(log_lines)
    assert str(code) in fault.getMessage()


@pytest.mark.parametrize("code", ["1000", 1000.0, None])
async def test_a_close_of_the_handlers_without_a_number_is_an_error(
    serve: Serve, log_lines: LogLines, code: Any
) -> None:
    server = await serve(closing_with(code=code))
    async with connected(server) as client:
        assert await closing(client) == (1011, "Internal server error")
    assert await only_ending(server, log_lines) == (1011, "internal_error")


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        (b"x" * 123, "x" * 123),
        (b"x" * 124, "x" * 123),
        ("x" + "é" * 200, "x" + "é" * 61),
        (b"\xff", "\ufffd"),
        ("\ud800", "?"),
    ],
)
async def test_the_reason_of_a_close_is_cut_to_what_fits(
    serve: Serve, reason: Any, sent: str
) -> None:
    server = await serve(closing_with(code=4001, message=reason))
    async with connected(server) as client:
        assert await closing(client) == (4001, sent)


async def test_a_handler_that_sends_after_its_own_close_has_ended(
    serve: Serve, log_lines: LogLines
) -> None:
    async def leave(ws: WebSocket, context: InvocationContext) -> None:
        await ws.close(code=4001)
        await ws.send_str("and another thing")

    server = await serve(raw_agent_of(leave))
    async with connected(server) as client:
        assert await closing(client) == (4001, "")
    assert await only_ending(server, log_lines) == (4001, None)


async def test_a_handler_that_raises_after_its_own_close_is_an_error(
    serve: Serve, log_lines: LogLines
) -> None:
    async def fail(ws: WebSocket, context: InvocationContext) -> None:
        await ws.close(code=4001)
        raise RuntimeError("secret")

    server = await serve(raw_agent_of(fail))
    async with connected(server) as client:
        assert await closing(client) == (4001, "")
    assert await only_ending(server, log_lines) == (4001, "internal_error")
