"""Handlers that fail, or take too long: what the client is told, and what it is not (§7)."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from agentws import InvocationContext, InvocationError
from agentws.agent.handlers import InvokeHandler
from tests.conftest import LogLines, Serve
from tests.support.agents import Gate, agent_of, soon
from tests.transports.websocket.conftest import assert_alive, forever, record_of, told

SECRET = "hunter2"

INTERNAL_ERROR = {
    "code": "internal_error",
    "message": "Internal server error",
    "retryable": False,
    "source": "upstream",
}


class Hopeless(Exception):
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


def raiser(error: Callable[[], BaseException]) -> InvokeHandler:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        raise error()

    return invoke


def giver(value: Callable[[], object]) -> InvokeHandler:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return value()

    return invoke


def endless_list() -> list[Any]:
    inner: list[Any] = [SECRET]
    inner.append(inner)
    return inner


def deep_list() -> list[Any]:
    inner: list[Any] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


async def cancels_itself(payload: Any, context: InvocationContext) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel(SECRET)
    await asyncio.sleep(0)


async def child_is_cancelled(payload: Any, context: InvocationContext) -> None:
    child = asyncio.create_task(asyncio.Event().wait())
    child.cancel(SECRET)
    await child


async def group_fails(payload: Any, context: InvocationContext) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        raise ValueError(SECRET)


async def own_timeout(payload: Any, context: InvocationContext) -> None:
    async with asyncio.timeout(0.001):
        await asyncio.Event().wait()


FAILURES: dict[str, InvokeHandler] = {
    "ValueError": raiser(lambda: ValueError(SECRET)),
    "an exception without text": raiser(Hopeless),
    "a lone surrogate in the text": raiser(lambda: ValueError(SECRET + "\ud800")),
    "SystemExit": raiser(lambda: SystemExit(SECRET)),
    "KeyboardInterrupt": raiser(lambda: KeyboardInterrupt(SECRET)),
    "CancelledError": raiser(lambda: asyncio.CancelledError(SECRET)),
    "GeneratorExit": raiser(lambda: GeneratorExit(SECRET)),
    "StopIteration": raiser(lambda: StopIteration(SECRET)),
    "StopAsyncIteration": raiser(lambda: StopAsyncIteration(SECRET)),
    "TimeoutError": raiser(lambda: TimeoutError(SECRET)),
    "RecursionError": raiser(lambda: RecursionError(SECRET)),
    "MemoryError": raiser(lambda: MemoryError(SECRET)),
    "BaseExceptionGroup": raiser(lambda: BaseExceptionGroup(SECRET, [SystemExit(SECRET)])),
    "InvocationError in a group": raiser(
        lambda: ExceptionGroup(SECRET, [InvocationError("x", SECRET)])
    ),
    "a timeout of its own": own_timeout,
    "cancels itself": cancels_itself,
    "awaits a cancelled child": child_is_cancelled,
    "a group that fails": group_fails,
    "returns an object": giver(object),
    "returns a socket": giver(lambda: socket_like()),
    "returns a function": giver(lambda: giver),
    "returns a lone surrogate": giver(lambda: SECRET + "\ud800"),
    "returns an endless list": giver(endless_list),
    "returns a list too deep": giver(deep_list),
    "returns a key that is none": giver(lambda: {(1, 2): SECRET}),
}


def socket_like() -> object:
    import socket

    with socket.socket() as made:
        return made


def yielding(invoke: InvokeHandler) -> InvokeHandler:
    """Yield once, then do what `invoke` does, and yield its value."""

    async def stream(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "first"
        answer = invoke(payload, context)
        assert not isinstance(answer, AsyncGenerator)
        yield await answer

    return stream


@pytest.mark.parametrize("invoke", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("streams", [False, True], ids=["coroutine", "generator"])
async def test_a_handler_that_fails_is_an_internal_error(
    serve: Serve, log_lines: LogLines, invoke: InvokeHandler, streams: bool
) -> None:
    gate = Gate()
    failing = yielding(invoke) if streams else invoke

    if streams:

        async def handler(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
            if payload == "gate":
                yield await gate(payload, context)
                return
            answer = failing(payload, context)
            assert isinstance(answer, AsyncGenerator)
            async for value in answer:
                yield value

        agent = agent_of(handler)
    else:

        async def coroutine(payload: Any, context: InvocationContext) -> Any:
            if payload == "gate":
                return await gate(payload, context)
            answer = failing(payload, context)
            assert not isinstance(answer, AsyncGenerator)
            return await answer

        agent = agent_of(coroutine)

    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="invoke", payload="gate", invocation_id="bystander")
        await soon(gate.entered)
        await client.send(action="invoke", invocation_id="i", session_id="s")
        if streams:
            assert (await client.receive())["payload"] == "first"
        assert await client.receive() == {
            "type": "error",
            "invocation_id": "i",
            "session_id": "s",
            "error": INTERNAL_ERROR,
        }
        record = await record_of(client, "i")
        assert record["status"] == "failed"
        assert record["error"] == {"code": "internal_error", "message": "Internal server error"}
        assert SECRET not in json.dumps(record)
        gate.opened.set()
        frame = await client.receive()
        assert (frame["invocation_id"], frame["payload"]) == ("bystander", "gate")
    logged = await log_lines.next("agentws.invocations")
    assert logged.levelname == "ERROR"
    assert logged.exc_info  # the details go to the log


@pytest.mark.parametrize("action", ["get_invocation", "cancel_invocation"])
@pytest.mark.parametrize(
    "error",
    [
        lambda: ValueError(SECRET),
        lambda: SystemExit(SECRET),
        lambda: KeyboardInterrupt(SECRET),
        lambda: asyncio.CancelledError(SECRET),
        lambda: TimeoutError(SECRET),
        None,
    ],
    ids=[
        "ValueError",
        "SystemExit",
        "KeyboardInterrupt",
        "CancelledError",
        "TimeoutError",
        "value",
    ],
)
async def test_a_get_or_cancel_handler_that_fails_is_an_internal_error(
    serve: Serve, action: str, error: Callable[[], BaseException] | None
) -> None:
    gate = Gate()
    agent = agent_of(gate)

    @agent.get_invocation_handler
    async def fail(context: InvocationContext) -> object:
        if error is not None:
            raise error()
        return object()

    agent.cancel_invocation_handler(fail)
    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="invoke", payload=1, invocation_id="i")
        await soon(gate.entered)
        assert await client.ask(action=action, invocation_id="i", session_id="s") == {
            "type": "error",
            "action": action,
            "invocation_id": "i",
            "session_id": "s",
            "error": INTERNAL_ERROR,
        }
        gate.opened.set()
        assert (await client.receive())["payload"] == 1


@pytest.mark.parametrize(
    ("code", "status", "retryable", "source"),
    [
        ("quota", None, False, "user"),
        ("quota", 429, True, "user"),
        ("teapot", 418, False, "user"),
        ("broken", 500, False, "upstream"),
        ("busy", 503, True, "upstream"),
        ("slow", 504, True, "upstream"),
        ("odd", 599, False, "upstream"),
        ("not_found", None, False, "user"),
        ("too_many_invocations", None, True, "user"),
        ("shutting_down", None, True, "upstream"),
        ("store_unavailable", None, True, "upstream"),
        ("store_unavailable", 409, False, "user"),
        ("lost", None, False, "upstream"),
        ("timeout", None, True, "upstream"),
        ("internal_error", None, False, "upstream"),
        ("", None, False, "user"),
    ],
)
async def test_an_invocation_error_reaches_the_client(
    serve: Serve, code: str, status: int | None, retryable: bool, source: str
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        yield 1
        raise InvocationError(code, "For your eyes", status=status)

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        assert (await client.receive())["sequence_number"] == 1
        error = {
            "code": code,
            "message": "For your eyes",
            "retryable": retryable,
            "source": source,
        }
        assert (await client.receive())["error"] == error
        record = await record_of(client, "i")
        assert record["error"] == {"code": code, "message": "For your eyes"}
        await client.send(action="attach_invocation", invocation_id="i", starting_after=1)
        assert (await client.receive())["error"] == error  # replayed from the record


async def test_an_invocation_error_with_half_an_emoji_is_still_told(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        raise InvocationError("cut\ud83d", "cut \ud83d")

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        error = (await client.ask(action="invoke"))["error"]
        assert error["code"].startswith("cut")
        assert error["message"].startswith("cut ")


# --- time limits ------------------------------------------------------------------------------


async def test_an_invocation_that_takes_too_long_fails_with_timeout(serve: Serve) -> None:
    async def stream(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.Event().wait()

    async def swallows(payload: Any, context: InvocationContext) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    for invoke in (forever, stream, swallows):
        server = await serve(agent_of(invoke), invocations={"timeout": 0.05})
        async with server.connect() as client:
            await client.send(action="invoke", invocation_id="i")
            error = (await client.until(type="error"))["error"]
            assert error["code"] == "timeout"
            assert (error["retryable"], error["source"]) == (True, "upstream")
            record = await record_of(client, "i")
            assert (record["status"], record["error"]["code"]) == ("failed", "timeout")
            assert "late" not in json.dumps(record)
            await assert_alive(client)


async def test_a_handler_that_ignores_its_cancellation_keeps_nothing_else_from_going_on(
    serve: Serve,
) -> None:
    end = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> Any:
        while payload == "stubborn" and not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return payload

    server = await serve(agent_of(invoke), invocations={"cancel_grace": 0.05})
    async with server.connect() as client:
        await client.send(action="invoke", payload="stubborn", invocation_id="i")
        for _ in range(2):
            frame = await client.ask(action="cancel_invocation", invocation_id="i")
            assert frame["payload"]["status"] == "cancelling"
        assert (await client.ask(action="invoke", payload="other"))["payload"] == "other"
        assert (await record_of(client, "i"))["status"] == "running"
        end.set()
        assert told(await client.receive())["error"] == "cancelled"
        assert (await record_of(client, "i"))["status"] == "cancelled"
