"""POST /invocations/{id}/cancel, and the agent's own cancel handler (§5)."""

import asyncio
import contextlib
from typing import Any

import pytest

from agentws import Agent, InvocationContext, InvocationError
from tests.conftest import Serve
from tests.support.agents import Gate, Raiser, agent_of, soon
from tests.support.http_client import (
    Session,
    begin,
    ended,
    failing_with,
    named,
    record_of,
    refusal,
    run,
)
from tests.support.peers import HttpPeer


@pytest.mark.parametrize("streams", [False, True])
async def test_a_cancel_is_told_to_who_asked_and_to_who_listens(
    serve: Serve, session: Session, streams: bool
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream_late if streams else gate))
    url = f"{server.http}/invocations"
    posting = asyncio.create_task(session.post(url, json=[], headers=named("i")))
    await soon(gate.entered)
    async with session.post(f"{url}/i/cancel") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == {"invocation_id": "i", "status": "cancelled"}
        assert gate.cancelled.is_set()
    async with await posting as answer:
        if streams:
            assert (await answer.read()).startswith(failing_with("cancelled"))
        else:
            assert (await refusal(answer, 409, "cancelled"))["source"] == "user"
    record = await record_of(server, session, "i")
    assert (record["status"], record["error"]["code"]) == ("cancelled", "cancelled")


async def stubborn_until(end: asyncio.Event) -> None:
    """Swallow every cancellation until `end`."""
    while not end.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await end.wait()


async def test_a_cancel_that_takes_its_time_is_under_way(serve: Serve, session: Session) -> None:
    entered, let_go = asyncio.Event(), asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> str:
        entered.set()
        await stubborn_until(let_go)
        return "dropped"

    server = await serve(agent_of(invoke), invocations={"cancel_grace": 0.1})
    url = f"{server.http}/invocations"
    await begin(server, session, "i")
    await soon(entered)
    async with session.post(f"{url}/i/cancel") as answer:
        assert answer.status == 200
        assert await answer.json() == {"invocation_id": "i", "status": "cancelling"}
    assert (await record_of(server, session, "i"))["status"] == "running"
    let_go.set()
    record = await ended(server, session, "i")
    assert record["status"] == "cancelled"
    assert "result" not in record


async def test_what_has_ended_cannot_be_cancelled(serve: Serve, session: Session) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        match payload:
            case "fail":
                raise InvocationError("no_luck", "Unlucky")
            case "wait":
                await asyncio.Event().wait()
        return payload

    server = await serve(agent)
    url = f"{server.http}/invocations"
    for payload in ("return", "fail"):
        await run(server, session, payload, payload)
    await begin(server, session, "wait", "wait")
    async with session.post(f"{url}/wait/cancel") as answer:
        assert answer.status == 200
    for name in ("return", "fail", "wait"):
        before = await record_of(server, session, name)
        async with session.post(f"{url}/{name}/cancel") as answer:
            assert (await refusal(answer, 409, "already_finished"))["source"] == "user"
        assert await record_of(server, session, name) == before


async def test_the_body_of_a_cancel_is_not_looked_at(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    url = f"{server.http}/invocations"
    for number, data in enumerate([b"nonsense", b"{}", b"x" * 100_000]):
        await begin(server, session, str(number))
        async with session.post(f"{url}/{number}/cancel", data=data) as answer:
            assert (await answer.json())["status"] == "cancelled"


async def test_a_cancel_whose_client_leaves_takes_effect(serve: Serve, session: Session) -> None:
    cleaning_up, let_go = asyncio.Event(), asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning_up.set()
            await let_go.wait()

    server = await serve(agent_of(invoke))
    await begin(server, session, "i")
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations/i/cancel")
        await soon(cleaning_up)
    assert (await record_of(server, session, "i"))["status"] == "running"
    let_go.set()
    assert (await ended(server, session, "i"))["status"] == "cancelled"


async def test_a_cancel_whose_client_leaves_at_once_takes_effect(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    await begin(server, session, "i")
    await soon(gate.entered)
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations/i/cancel")
        peer.writer.close()
    await soon(gate.cancelled)
    assert (await ended(server, session, "i"))["status"] == "cancelled"


# --- the agent's own handler ------------------------------------------------------------------


async def test_the_agents_cancel_handler_decides_for_any_id(serve: Serve, session: Session) -> None:
    gate = Gate()
    agent = Agent()
    agent.invoke_handler(gate)
    states: list[bool] = []

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> Any:
        states.append(gate.cancelled.is_set())
        return {"by": "agent", "id": context.invocation_id}

    server = await serve(agent)
    url = f"{server.http}/invocations"
    await begin(server, session, "i")
    await soon(gate.entered)
    for name in ("i", "i", "unknown"):
        async with session.post(f"{url}/{name}/cancel") as answer:
            assert answer.status == 200
            assert await answer.json() == {"by": "agent", "id": name}
        assert (await record_of(server, session, "i"))["status"] == "cancelled"
    assert states == [False, True, True]  # it runs before the task is cancelled


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (lambda: InvocationError("too_late", "Printed already", status=409), 409, "too_late"),
        (lambda: RuntimeError("secret"), 500, "internal_error"),
        (lambda: SystemExit("secret"), 500, "internal_error"),
    ],
)
async def test_a_cancel_handler_that_raises_leaves_the_task_alone(
    serve: Serve, session: Session, fault: Raiser, status: int, code: str
) -> None:
    gate = Gate()
    agent = Agent()
    agent.invoke_handler(gate)

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> None:
        raise fault()

    server = await serve(agent)
    url = f"{server.http}/invocations"
    await begin(server, session, "i", "done")
    await soon(gate.entered)
    async with session.post(f"{url}/i/cancel") as answer:
        await refusal(answer, status, code)
    assert not gate.cancelled.is_set()
    gate.opened.set()
    assert (await ended(server, session, "i"))["result"] == "done"


async def test_a_cancel_handler_whose_client_leaves_is_seen_through(
    serve: Serve, session: Session
) -> None:
    gate, entered, let_go = Gate(), asyncio.Event(), asyncio.Event()
    agent = Agent()
    agent.invoke_handler(gate)

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> None:
        entered.set()
        await let_go.wait()

    server = await serve(agent)
    await begin(server, session, "i")
    await soon(gate.entered)
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations/i/cancel")
        await soon(entered)
    assert (await record_of(server, session, "i"))["status"] == "running"
    let_go.set()
    await soon(gate.cancelled)
    assert (await ended(server, session, "i"))["status"] == "cancelled"
