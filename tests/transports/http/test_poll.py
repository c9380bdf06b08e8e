"""GET /invocations/{id}: the record of an invocation, or what the agent's own handler says (§5)."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentws import Agent, InvocationContext, InvocationError
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, each, echo
from tests.support.http_client import SSE, Session, begin, named, record_of, refusal, run


def is_recent(time: str) -> bool:
    """Whether a text is a time of RFC 3339 in UTC, within the last minute."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", time)
    age = datetime.now(UTC) - datetime.fromisoformat(time)
    return timedelta(seconds=-1) < age < timedelta(minutes=1)


async def test_the_record_of_a_coroutine(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    for payload in ({"a": [1]}, False, None):
        body = json.dumps(payload)
        async with session.post(f"{server.http}/invocations", data=body) as answer:
            invocation_id = answer.headers["x-agent-invocation-id"]
            session_id = answer.headers["x-agent-session-id"]
        record = await record_of(server, session, invocation_id)
        assert is_recent(record.pop("created_at"))
        assert is_recent(record.pop("finished_at"))
        result = {} if payload is None else {"result": payload}
        assert record == {
            "invocation_id": invocation_id,
            "session_id": session_id,
            "status": "completed",
            **result,
        }


async def test_the_record_of_a_failure(serve: Serve, session: Session) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        raise RuntimeError("secret")

    server = await serve(agent_of(invoke))
    await run(server, session, "i")
    record = await record_of(server, session, "i")
    assert record.keys() == {
        "invocation_id",
        "session_id",
        "status",
        "created_at",
        "finished_at",
        "error",
    }
    assert record["status"] == "failed"
    assert record["error"] == {"code": "internal_error", "message": "Internal server error"}


async def test_the_record_of_a_stream_tells_what_is_held(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each), invocations={"replay_bytes": 4})
    for values, first, last in (
        ([], 1, 0),
        ([1], 1, 1),
        ([1, 2, 3, 4, 5], 2, 5),
        ([1, 10_000], 3, 2),
    ):
        async with session.post(f"{server.http}/invocations", json=values) as answer:
            await answer.read()
            invocation_id = answer.headers["x-agent-invocation-id"]
        record = await record_of(server, session, invocation_id)
        assert record["status"] == "completed"
        assert record["stream"] == {"first_available": first, "last_sequence_number": last}
        assert "result" not in record


async def test_a_record_is_gone_when_its_time_is_over(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), invocations={"retention": 0.0})
    url = f"{server.http}/invocations"
    for _ in range(2):
        async with session.post(url, json=1, headers=named("i")) as answer:
            assert answer.status == 200
        for headers in ({}, SSE):
            async with session.get(f"{url}/i", headers=headers) as answer:
                await refusal(answer, 404, "not_found")


async def test_a_poll_by_head_tells_the_headers_alone(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    url = f"{server.http}/invocations"
    await begin(server, session, "i")
    for headers in ({}, SSE):
        async with session.head(f"{url}/i", headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.headers["x-agent-invocation-id"] == "i"
    async with session.head(f"{url}/other") as answer:
        assert answer.status == 404


async def test_a_poll_has_no_position(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    await run(server, session, "i")
    headers = {"Last-Event-ID": "x"}
    assert (await record_of(server, session, "i", headers))["status"] == "completed"


@pytest.mark.parametrize("headers", [{}, SSE], ids=str)
async def test_an_unknown_invocation_is_not_found(
    serve: Serve, session: Session, headers: dict[str, str]
) -> None:
    server = await serve(agent_of(echo))
    url = f"{server.http}/invocations/none"
    async with session.get(url, headers=headers) as answer:
        assert (await refusal(answer, 404, "not_found"))["source"] == "user"
        assert answer.headers["x-agent-invocation-id"] == "none"
    async with session.post(f"{url}/cancel", headers=headers) as answer:
        await refusal(answer, 404, "not_found")
        assert answer.headers["x-agent-invocation-id"] == "none"


async def test_the_agents_get_handler_answers_for_any_id(serve: Serve, session: Session) -> None:
    agent = Agent()
    agent.invoke_handler(echo)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> Any:
        if context.invocation_id == "gone":
            raise InvocationError("gone", "It is gone", status=410)
        if context.invocation_id == "broken":
            raise RuntimeError("secret")
        return {"id": context.invocation_id, "session": context.session_id}

    server = await serve(agent)
    url = f"{server.http}/invocations"
    await run(server, session, "known", 1)
    for name in ("known", "unknown"):
        async with session.get(f"{url}/{name}?agent_session_id=s") as answer:
            assert (answer.status, answer.headers["x-agent-invocation-id"]) == (200, name)
            assert await answer.json() == {"id": name, "session": "s"}
    async with session.get(f"{url}/gone") as answer:
        assert (await refusal(answer, 410, "gone"))["message"] == "It is gone"
    async with session.get(f"{url}/broken") as answer:
        assert (await refusal(answer, 500, "internal_error"))["source"] == "upstream"
    async with session.get(f"{url}/known", headers=SSE) as answer:  # this attaches
        assert await answer.read() == b"id: end\nevent: result\ndata: 1\n\n"
    async with session.get(f"{url}/unknown", headers=SSE) as answer:
        await refusal(answer, 404, "not_found")
