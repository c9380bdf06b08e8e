"""What handlers raise, how long they may take, and what JSON cannot hold (§7)."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from agentws import Agent, InvocationContext, InvocationError
from tests.conftest import LogLines, Serve
from tests.support.agents import Gate, Raiser, agent_of, echo
from tests.support.http_client import (
    JSON,
    SSE,
    Session,
    chunk,
    event,
    failing_with,
    failure,
    named,
    record_of,
    refusal,
)


@pytest.mark.parametrize(
    ("error", "status", "source"),
    [
        (InvocationError("no_luck", "Ünlucky"), 400, "user"),
        (InvocationError("no_luck", "", status=499), 499, "user"),
        (InvocationError("no_luck", "Unlucky", status=500), 500, "upstream"),
        (InvocationError("no_luck", "Unlucky", status=429), 429, "user"),
        (InvocationError("no_luck", "Unlucky", status=503), 503, "upstream"),
        (InvocationError("no_luck", "Unlucky", status=599), 599, "upstream"),
        (InvocationError("not_found", "No such order"), 404, "user"),
        (InvocationError("timeout", "The model took too long"), 504, "upstream"),
        (InvocationError("not_found", "No such order", status=422), 422, "user"),
        (InvocationError("cancelled", "By the model"), 409, "user"),
        (InvocationError("too_many_invocations", "Of the model"), 429, "user"),
        (InvocationError("shutting_down", "The model"), 503, "upstream"),
        (InvocationError("store_unavailable", "The model's"), 503, "upstream"),
        (InvocationError("lost", "The model"), 502, "upstream"),
    ],
    ids=repr,
)
async def test_an_error_of_the_handlers_own_is_told_with_its_status(
    serve: Serve,
    session: Session,
    error: InvocationError,
    status: int,
    source: str,
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        raise error

    server = await serve(agent_of(invoke))
    async with session.post(f"{server.http}/invocations", headers=named("i")) as answer:
        told = await refusal(answer, status, error.code)
    assert (told["message"], told["source"]) == (error.message, source)
    record = await record_of(server, session, "i")
    assert (record["status"], record["error"]["code"]) == ("failed", error.code)
    async with session.get(f"{server.http}/invocations/i", headers=SSE) as answer:
        retryable = status in (429, 503, 504)
        event = failure(error.code, error.message, source, retryable=retryable)
        assert await answer.read() == event


@pytest.mark.parametrize("path", ["GET /invocations/i", "POST /invocations/i/cancel"])
async def test_a_handler_that_says_shutting_down_does_not_speak_for_the_daemon(
    serve: Serve, session: Session, path: str
) -> None:
    async def refuse(context: InvocationContext) -> None:
        raise InvocationError("shutting_down", "The model")

    agent = agent_of(echo)
    agent.get_invocation_handler(refuse)
    agent.cancel_invocation_handler(refuse)
    server = await serve(agent)
    method, route = path.split()
    async with session.request(method, server.http + route) as answer:
        assert (await refusal(answer, 503, "shutting_down"))["source"] == "upstream"


@pytest.mark.parametrize(
    "fault",
    [
        lambda: RuntimeError("secret"),
        lambda: TimeoutError("secret"),
        lambda: KeyboardInterrupt("secret"),
        lambda: SystemExit("secret"),
        lambda: ConnectionResetError("secret"),
        lambda: web.HTTPConflict(text="secret"),
        lambda: asyncio.CancelledError("secret"),
        lambda: ExceptionGroup("secret", [ValueError("secret")]),
    ],
)
async def test_an_internal_error_tells_nothing_but_to_the_log(
    serve: Serve, session: Session, log_lines: LogLines, fault: Raiser
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        if payload == "raise":
            raise fault()

    server = await serve(agent_of(invoke))
    url = f"{server.http}/invocations"
    async with session.post(url, json="raise") as answer:
        error = await refusal(answer, 500, "internal_error")
        assert (error["message"], error["source"]) == ("Internal server error", "upstream")
        assert "secret" not in str(answer.headers) + (await answer.text())
    line = await log_lines.next("agentws.invocations")
    assert line.exc_info is not None
    assert "secret" in repr(line.exc_info[1]) or "Conflict" in repr(line.exc_info[1])
    async with session.post(url) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "value", [object(), {"a": {1j}}, "\ud800", {(): 1}], ids=["object", "set", "surrogate", "key"]
)
@pytest.mark.parametrize("role", ["invoke", "get", "cancel"])
async def test_a_value_that_json_cannot_hold_is_an_internal_error(
    serve: Serve, session: Session, value: object, role: str
) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> object:
        return value

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> object:
        return value

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> object:
        return value

    server = await serve(agent)
    url = f"{server.http}/invocations"
    answering = {
        "invoke": session.post(url),
        "get": session.get(f"{url}/i"),
        "cancel": session.post(f"{url}/i/cancel"),
    }
    async with answering[role] as answer:
        await refusal(answer, 500, "internal_error")
    for name in answering.keys() - {role}:
        answering[name].close()


async def test_a_timeout_is_told_to_all(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations={"timeout": 0.1})
    async with session.post(f"{server.http}/invocations", headers=named("i")) as answer:
        error = await refusal(answer, 504, "timeout")
        assert (error["source"], error["retryable"]) == ("upstream", True)
    record = await record_of(server, session, "i")
    assert (record["status"], record["error"]["code"]) == ("failed", "timeout")
    assert gate.cancelled.is_set()


async def test_a_timeout_of_a_stream_is_an_event(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), invocations={"timeout": 0.1})
    async with session.post(f"{server.http}/invocations", json=["a"]) as answer:
        assert await event(answer) == chunk(1, "a")
        assert (await answer.read()).startswith(failing_with("timeout"))
    async with session.post(f"{server.http}/invocations", json=["a"], headers=JSON) as answer:
        await refusal(answer, 504, "timeout")
