"""What the agent's readiness handler says, as probes are told, and what it may do to them (§1)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from agentws import Agent, InvocationContext, InvocationWebSocketHandler
from agentws.agent.readiness import PATIENCE as HANDLER_PATIENCE
from agentws.agent.readiness import RAISED, READY, TOO_SLOW, Readiness
from tests.conftest import PATIENCE, LogLines, Running, Serve
from tests.support.replicas import probed

SOON = 0.05
"""Seconds that a handler has where a test waits for their end."""


class Handler:
    """A readiness handler that does what a test has set."""

    def __init__(self, act: Callable[[], Awaitable[Any]] | None = None) -> None:
        self.act = act
        self.calls = 0

    async def __call__(self) -> Any:
        self.calls += 1
        return await self.act() if self.act is not None else None


def returning(value: object) -> Callable[[], Awaitable[Any]]:
    async def act() -> object:
        return value

    return act


def raising(error: BaseException) -> Callable[[], Awaitable[Any]]:
    async def act() -> None:
        raise error

    return act


async def hang() -> None:
    await asyncio.Event().wait()


def agent_of(handler: Callable[[], Awaitable[Any]]) -> Agent:
    agent = Agent()
    agent.readiness_handler(handler)

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return payload

    return agent


def complaints(log_lines: LogLines) -> list[str]:
    """Return the lines about the handler, and of what they tell, the exception's class."""
    return [
        record.exc_info[0].__name__
        if record.exc_info and record.exc_info[0]
        else record.getMessage()
        for record in log_lines.records
        if record.name == "agentws.agent" and record.levelno == logging.ERROR
    ]


# --- over the wire ----------------------------------------------------------------------------


async def status_of(server: Running) -> int:
    url = f"{server.http}/readiness"
    async with aiohttp.ClientSession() as session, session.head(url) as answer:
        return answer.status


@pytest.mark.parametrize(
    ("said", "status", "check"),
    [
        (None, "healthy", "ok"),
        ("ok", "healthy", "ok"),
        ("the model is loading", "unavailable", "the model is loading"),
        ("", "unavailable", ""),
        ("x" * 300, "unavailable", "x" * 200),
        ("half an emoji \ud83d", "unavailable", "half an emoji ?"),
    ],
)
async def test_what_the_agent_says_is_told(
    serve: Serve, said: str | None, status: str, check: str
) -> None:
    server = await serve(agent_of(Handler(returning(said))))
    assert await probed(server) == {"status": status, "checks": {"store": "ok", "agent": check}}
    assert await status_of(server) == (200 if status == "healthy" else 503)


async def test_what_an_exception_says_is_told_in_the_log_only(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(Handler(raising(ValueError("a private text")))))
    body = {"status": "unavailable", "checks": {"store": "ok", "agent": RAISED}}
    assert await probed(server) == body
    assert complaints(log_lines) == ["ValueError"]


async def test_a_handler_that_hangs_is_not_ready_and_holds_up_nobody(
    serve: Serve, log_lines: LogLines
) -> None:
    entered = asyncio.Event()

    async def hang() -> None:
        entered.set()
        await asyncio.Event().wait()

    server = await serve(agent_of(hang))
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with server.connect() as client, aiohttp.ClientSession() as session:
        probe = asyncio.create_task(probed(server))
        await entered.wait()
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1
        async with session.get(f"{server.http}/liveness") as answer:
            assert answer.status == 200
        assert not probe.done()
        assert (await probe)["checks"]["agent"] == TOO_SLOW
    assert HANDLER_PATIENCE <= loop.time() - began < HANDLER_PATIENCE + 1
    assert complaints(log_lines) == ["The readiness handler did not return within 2 s"]


async def test_draining_wins(serve: Serve) -> None:
    released = asyncio.Event()
    agent = Agent()
    agent.readiness_handler(returning("busy"))

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        await released.wait()

    server = await serve(agent, server={"shutdown_grace": 60.0})
    async with server.connect() as client:
        await client.send(action="invoke")
        assert (await client.ask(action="ping"))["type"] == "pong"
        draining = asyncio.create_task(server.server.drain())
        await client.until(type="going_away")
        body = {"status": "draining", "checks": {"store": "ok", "agent": "busy"}}
        assert await probed(server) == body
        released.set()
        await asyncio.wait_for(draining, PATIENCE)


class Own(InvocationWebSocketHandler):
    async def handle_websocket(
        self, ws: web.WebSocketResponse, context: InvocationContext
    ) -> None: ...


async def test_an_agent_in_class_style_says_nothing_of_itself(serve: Serve) -> None:
    assert await probed(await serve(Own())) == {"status": "healthy", "checks": {"store": "ok"}}


# --- one call for all -------------------------------------------------------------------------


async def test_who_asks_at_the_same_time_shares_one_call() -> None:
    entered, opened = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        entered.set()
        await opened.wait()
        return "loading"

    handler = Handler(wait)
    readiness = Readiness(handler)
    asking = [asyncio.create_task(readiness.ask()) for _ in range(20)]
    await entered.wait()
    asking += [asyncio.create_task(readiness.ask()) for _ in range(20)]
    await asyncio.sleep(0)
    asking.pop().cancel()  # one leaves, and the others are told all the same
    opened.set()
    assert await asyncio.gather(*asking) == ["loading"] * 39
    assert handler.calls == 1
    assert await readiness.ask() == "loading"
    assert handler.calls == 2


# --- whatever it does -------------------------------------------------------------------------


async def test_trouble_is_logged_when_it_begins_or_changes(log_lines: LogLines) -> None:
    handler = Handler()
    readiness = Readiness(handler, SOON)
    for act in (
        *(raising(ValueError("one")), raising(ValueError("two"))),
        *(raising(KeyError("three")), hang, hang),
        *(returning("not yet"), raising(KeyError("four")), returning(None)),
    ):
        handler.act = act
        await readiness.ask()
    slow = f"The readiness handler did not return within {SOON:g} s"
    assert complaints(log_lines) == ["ValueError", "KeyError", slow, "KeyError"]


def own_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def cancel_itself() -> None:
    own_task().cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "act",
    [
        *(raising(SystemExit(3)), raising(KeyboardInterrupt()), raising(GeneratorExit())),
        *(raising(TimeoutError()), raising(asyncio.CancelledError()), cancel_itself),
        *(returning(True), returning({"ready": True}), returning(b"ok")),
    ],
)
async def test_whatever_else_it_does_it_is_not_ready(act: Callable[[], Awaitable[Any]]) -> None:
    readiness = Readiness(Handler(act))
    assert await readiness.ask() == RAISED


async def test_one_that_cancels_what_asks_it_is_asked_again() -> None:
    test = own_task()

    async def cancel_all() -> None:
        for task in asyncio.all_tasks() - {own_task(), test}:
            task.cancel()

    handler = Handler(cancel_all)
    readiness = Readiness(handler)
    assert await readiness.ask() == RAISED
    handler.act = returning(None)
    assert await readiness.ask() == READY


async def test_one_that_cannot_be_stopped_is_called_once(log_lines: LogLines) -> None:
    released = asyncio.Event()

    async def swallow() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    handler = Handler(swallow)
    readiness = Readiness(handler, SOON)
    for _ in range(3):
        assert await readiness.ask() == TOO_SLOW
    assert handler.calls == 1
    assert len(complaints(log_lines)) == 1
    released.set()
    async with asyncio.timeout(PATIENCE):
        while await readiness.ask() != READY:  # noqa: ASYNC110 - its end is told to nobody
            await asyncio.sleep(0)
    assert handler.calls == 2
