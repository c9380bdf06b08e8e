"""Identifiers of invocations and sessions, in headers, paths and queries (§2)."""

import json
from typing import Any

import pytest
from yarl import URL

from agentws import Agent, InvocationContext
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, echo
from tests.support.http_client import UUID, Session, begin, named, record_of, run
from tests.support.peers import HttpPeer, exchange


@pytest.mark.parametrize("invocation_id", ["A-Za.z_0:9", "a" * 256, ".a", "..."[:2] + "-"])
async def test_the_id_of_the_header_names_the_invocation(
    serve: Serve, session: Session, invocation_id: str
) -> None:
    server = await serve(agent_of(echo))
    url = f"{server.http}/invocations"
    async with session.post(url, json=1, headers=named(invocation_id)) as answer:
        assert (answer.status, await answer.json()) == (200, 1)
        assert answer.headers["x-agent-invocation-id"] == invocation_id
    async with session.get(URL(f"{url}/{invocation_id}", encoded=True)) as answer:
        assert answer.headers["x-agent-invocation-id"] == invocation_id
        assert (await answer.json())["invocation_id"] == invocation_id


async def test_without_an_id_a_new_one_is_made(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    ids = set()
    for headers in ({}, named("")):
        async with session.post(f"{server.http}/invocations", headers=headers) as answer:
            ids.add(answer.headers["x-agent-invocation-id"])
    assert len(ids) == 2
    assert all(map(UUID.fullmatch, ids))


NO_IDS = [".", "..", "a" * 257, "a b", "a/b", "é", "a%20b", "a,b"]


@pytest.mark.parametrize("invocation_id", NO_IDS)
async def test_a_malformed_id_in_the_header_is_refused_and_named(
    serve: Serve, session: Session, invocation_id: str
) -> None:
    server = await serve(agent_of(echo))
    status, headers, body = await exchange(
        server, "POST /invocations", f"x-agent-invocation-id: {invocation_id}"
    )
    assert (status, headers["x-platform-error-source"]) == (400, "user")
    error = json.loads(body)["error"]
    assert error["code"] == "invalid_request"
    assert "x-agent-invocation-id" in error["message"]


@pytest.mark.parametrize("template", ["GET {}", "POST {}/cancel"])
@pytest.mark.parametrize(
    "path", ["..", ".", "%2e%2E", "a%2Fb", "a%20b", "a%0A", "%ff", "%", "%C3%A9", "a;b", "a" * 257]
)
async def test_a_malformed_id_in_the_path_is_refused(
    serve: Serve, template: str, path: str
) -> None:
    server = await serve(agent_of(echo))
    status, headers, body = await exchange(server, template.format(f"/invocations/{path}"))
    assert (status, headers["x-platform-error-source"]) == (400, "user")
    assert json.loads(body)["error"]["code"] == "invalid_request"
    assert UUID.fullmatch(headers["x-request-id"])


async def test_an_escaped_id_in_the_path_is_the_id(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    await begin(server, session, "a:b")
    async with HttpPeer.connect(server) as peer:
        peer.request("GET /invocations/%61%3Ab")
        status, headers, body = await peer.answer()
        assert (status, headers["x-agent-invocation-id"]) == (200, "a:b")
        assert json.loads(body)["invocation_id"] == "a:b"
        peer.request("POST /invocations/a%3ab/cancel")
        status, _, body = await peer.answer()
        assert (status, json.loads(body)["status"]) == (200, "cancelled")


async def test_a_document_of_the_daemon_hides_no_invocation(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    for name in ("docs", "cancel", "invocations_ws"):
        await run(server, session, name, 1)
        assert (await record_of(server, session, name))["result"] == 1


# --- sessions ---------------------------------------------------------------------------------

SESSIONS = [
    ("?agent_session_id=query", "configured", "query"),
    ("?agent_session_id=query", "", "query"),
    ("?agent_session_id=", "configured", "configured"),
    ("", "configured", "configured"),
    ("?agent_session_id=first&agent_session_id=second", "", "first"),
    ("?agent_session_id=", "", None),
    ("", "", None),
]


@pytest.mark.parametrize(("query", "configured", "expected"), SESSIONS)
async def test_the_session_is_the_querys_else_the_configured_else_new(
    serve: Serve,
    session: Session,
    query: str,
    configured: str,
    expected: str | None,
) -> None:
    sessions: list[str] = []
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        sessions.append(context.session_id)

    server = await serve(agent, agent={"session_id": configured})
    for _ in range(2):
        async with session.post(f"{server.http}/invocations{query}") as answer:
            assert answer.headers["x-agent-session-id"] == sessions[-1]
            invocation_id = answer.headers["x-agent-invocation-id"]
        record = await record_of(server, session, invocation_id)
        assert record["session_id"] == sessions[-1]
    if expected is not None:
        assert set(sessions) == {expected}
    else:
        assert len(set(sessions)) == 2
        assert all(map(UUID.fullmatch, sessions))


@pytest.mark.parametrize("asked", ["a/b", "..", "a" * 257, "%C3%A9", "%ff", "a+b"])
@pytest.mark.parametrize(
    "line", ["POST /invocations", "GET /invocations/i", "POST /invocations/i/cancel"]
)
async def test_a_malformed_session_is_refused_and_named(
    serve: Serve, asked: str, line: str
) -> None:
    server = await serve(agent_of(echo))
    status, _, body = await exchange(server, f"{line}?agent_session_id={asked}")
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "invalid_request")
    assert "agent_session_id" in error["message"]
