"""What the page is told of this replica: numbers and states, and nobody's ids."""

import asyncio
import json
from typing import Any

from agentws import Agent, InvocationContext, InvocationError
from agentws.version import __version__
from tests.conftest import LogLines, Running, Serve
from tests.support.agents import agent_of, echo
from tests.support.http_client import Session

ON = {"enabled": True}


def busy() -> Agent:
    """Return an agent that streams, fails, asks or waits, as its payload says."""
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        for number in range(payload.get("chunks", 0)):
            yield number
        if "fail" in payload:
            raise InvocationError(payload["fail"], "As it was told to")
        if "ask" in payload:
            await context.ask(payload["ask"])
        if "wait" in payload:
            await asyncio.sleep(3600)

    return agent


async def state_of(server: Running, session: Session) -> Any:
    async with session.get(f"{server.http}/console/state") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        return await answer.json()


async def test_it_begins_with_nothing(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), console=ON)
    state = await state_of(server, session)
    assert 0 <= state.pop("uptime") < 5
    nothing = {"p50": None, "p99": None}
    assert state == {
        "version": __version__,
        "draining": False,
        "store": "ok",
        "sockets": 0,
        "invocations": {
            "running": 0,
            "input_required": 0,
            "completed": 0,
            "failed": 0,
            "cancelled": 0,
        },
        "rates": {"invocations_per_second": 0, "chunks_per_second": 0},
        "latencies": {"time_to_first_chunk": nothing, "duration": nothing},
        "errors": {},
    }


async def test_it_counts_what_has_come_and_gone(serve: Serve, session: Session) -> None:
    server = await serve(busy(), console=ON)
    async with server.connect() as client:
        for payload in ({"chunks": 3}, {"fail": "no_luck"}, {"fail": "no_luck"}):
            await client.send(action="invoke", payload=payload)
        for _ in range(2):
            await client.until(type="error")
        await client.send(action="invoke", invocation_id="w", payload={"chunks": 2, "wait": True})
        await client.until(sequence_number=2, invocation_id="w")
        await client.send(action="invoke", invocation_id="q", payload={"ask": "why?"})
        await client.until(type="input_required")
        await client.send(action="nonsense")
        await client.until(type="error")
        state = await state_of(server, session)
        assert state["sockets"] == 1
        assert state["invocations"] == {
            "running": 1,
            "input_required": 1,
            "completed": 1,
            "failed": 2,
            "cancelled": 0,
        }
        assert state["errors"] == {"no_luck": 2, "invalid_action": 1}
        assert state["rates"]["chunks_per_second"] > 0
        assert state["rates"]["invocations_per_second"] > 0
        for times in state["latencies"].values():
            assert 0 < times["p50"] <= times["p99"] < 5
        await client.ask(action="cancel_invocation", invocation_id="w")
    told = json.dumps(await state_of(server, session))
    assert json.loads(told)["invocations"]["cancelled"] == 1
    assert "payload" not in told


async def test_it_tells_of_the_drain(serve: Serve, session: Session) -> None:
    server = await serve(busy(), console=ON, server={"shutdown_grace": 30.0})
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="w", payload={"chunks": 1, "wait": True})
        await client.until(sequence_number=1)
        async with server.draining():
            assert (await state_of(server, session))["draining"] is True
            await client.send(action="cancel_invocation", invocation_id="w")
            await client.until(type="error")


async def test_asking_for_it_is_no_news_in_the_access_log(
    serve: Serve, session: Session, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo), console=ON)
    await state_of(server, session)
    async with session.get(f"{server.http}/console/") as answer:
        assert answer.status == 200
    assert (await log_lines.next("agentws.access")).getMessage() == "GET /console/ 200"
