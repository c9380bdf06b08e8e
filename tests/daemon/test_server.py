"""The agent's own handlers of the start and the end of a server (§8)."""

import asyncio
import logging
import socket

import pytest

from agentws import Agent
from agentws.config.settings import Settings
from agentws.daemon.server import Server, StartupError
from tests.conftest import LogLines, Serve
from tests.daemon.conftest import seconds
from tests.support.agents import Gate, soon
from tests.support.http_client import Session
from tests.support.redis_server import free_port


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
        await soon(gate.entered)
        async with server.draining():
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
        async with server.draining() as drain:
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

    address = {"host": "127.0.0.1", "port": free_port()}
    server = Server(Settings(server=address), agent)  # type: ignore[arg-type]
    with pytest.raises(StartupError) as failure:
        await server.start()
    assert isinstance(failure.value.__cause__, Refused)
    with socket.socket() as other:  # the address is given back
        other.bind(tuple(address.values()))


async def test_nobody_is_served_before_the_startup_handler_has_returned(
    serve: Serve, session: Session
) -> None:
    agent, begun, go_on = Agent(), asyncio.Event(), asyncio.Event()

    @agent.startup_handler
    async def start() -> None:
        begun.set()
        await go_on.wait()

    port = free_port()
    starting = asyncio.ensure_future(serve(agent, server={"port": port}))
    await soon(begun)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    go_on.set()
    server = await starting
    async with session.get(f"{server.http}/readiness") as answer:
        assert answer.status == 200
