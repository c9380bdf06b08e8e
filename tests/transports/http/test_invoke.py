"""POST /invocations: what a handler is told, and when it is not called (§5)."""

import json
from typing import Any

import msgspec
import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, echo
from tests.support.http_client import ASYNC, JSON, SSE, UUID, Session, begin, ended, named, refusal
from tests.support.peers import HttpPeer


@pytest.mark.parametrize("body", [b"null", b'"\\u00e9"', b'{"a":[1,2.5,true]}', b"[]", b"0"])
@pytest.mark.parametrize("headers", [{}, JSON, {"Accept": "text/html"}], ids=str)
async def test_a_coroutine_answers_with_its_value(
    serve: Serve, session: Session, body: bytes, headers: dict[str, str]
) -> None:
    server = await serve(agent_of(echo))
    async with session.post(f"{server.http}/invocations", data=body, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert json.loads(await answer.read()) == json.loads(body)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, */*", "text/event-stream"),
        ("text/event-stream, application/json", "application/json"),
        ("text/event-stream;q=0", "application/json"),
    ],
)
async def test_a_coroutine_answers_by_an_event_where_only_these_are_named(
    serve: Serve, session: Session, accept: str, kind: str
) -> None:
    server = await serve(agent_of(echo))
    headers = {"Accept": accept}
    async with session.post(f"{server.http}/invocations", json=7, headers=headers) as answer:
        assert answer.content_type == kind
        end = b"id: end\nevent: result\ndata: 7\n\n" if kind == "text/event-stream" else b"7"
        assert await answer.read() == end


async def test_an_empty_body_is_an_empty_object(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    async with session.post(f"{server.http}/invocations") as answer:
        assert await answer.read() == b"{}"
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations")
        assert (await peer.answer())[2] == b"{}"
        peer.request("POST /invocations", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")
        assert (await peer.answer())[2] == b"{}"


@pytest.mark.parametrize(
    "content_type", ["text/plain; charset=utf-16", "application/x-www-form-urlencoded", "nonsense"]
)
async def test_the_content_type_of_the_body_is_not_looked_at(
    serve: Serve, session: Session, content_type: str
) -> None:
    server = await serve(agent_of(echo))
    headers = {"Content-Type": content_type}
    url = f"{server.http}/invocations"
    async with session.post(url, data=b'{"a": "\xc3\xa9"}', headers=headers) as answer:
        assert await answer.json() == {"a": "é"}


async def test_what_the_handler_knows_of_the_request(serve: Serve, session: Session) -> None:
    seen: list[InvocationContext] = []
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        seen.append(context)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> None:
        seen.append(context)

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> None:
        seen.append(context)

    server = await serve(agent)
    headers = {
        "X-Client-Locale": "de",
        "x-client-": "bare",
        "x-agent-user-id": "ann",
        "x-agent-foundry-call-id": "call",
        "x-request-id": "req",
    }
    query = "?agent_session_id=s&a=1"
    url = f"{server.http}/invocations"
    async with session.post(url + query, headers=named("i", **headers)):
        pass
    async with session.get(f"{url}/i{query}", headers=headers):
        pass
    async with session.post(f"{url}/i/cancel{query}", headers=headers):
        pass
    assert len(seen) == 3
    for context in seen:
        assert msgspec.structs.astuple(context)[:8] == (
            "i",
            "s",
            "http",
            {"x-client-locale": "de", "x-client-": "bare"},
            {"agent_session_id": "s", "a": "1"},
            "ann",
            "call",
            "req",
        )


async def test_a_request_that_says_nothing_of_its_sender(serve: Serve, session: Session) -> None:
    seen: list[InvocationContext] = []

    async def invoke(payload: Any, context: InvocationContext) -> None:
        seen.append(context)

    server = await serve(agent_of(invoke))
    empty = {"x-agent-user-id": "", "x-agent-foundry-call-id": ""}
    async with session.post(f"{server.http}/invocations", headers=empty) as answer:
        (context,) = seen
        assert context.request_id == answer.headers["x-request-id"]
    assert (context.user_id, context.call_id) == (None, None)
    assert (context.client_headers, context.query) == ({}, {})


async def test_without_an_invoke_handler_nothing_can_be_invoked(
    serve: Serve, session: Session
) -> None:
    agent = Agent()

    @agent.ws_handler
    async def talk(ws: Any, context: InvocationContext) -> None:
        pass

    server = await serve(agent)
    async with session.post(f"{server.http}/invocations", json=1) as answer:
        assert (await refusal(answer, 501, "not_implemented"))["source"] == "upstream"
        assert UUID.fullmatch(answer.headers["x-agent-invocation-id"])
        assert UUID.fullmatch(answer.headers["x-agent-session-id"])


async def test_an_id_that_is_held_is_refused_and_nothing_is_run(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    calls: list[Any] = []

    async def invoke(payload: Any, context: InvocationContext) -> None:
        calls.append(payload)
        await gate.passed()

    server = await serve(agent_of(invoke))
    url = f"{server.http}/invocations"
    await begin(server, session, "i", "first")
    for headers in (named("i"), named("i", **SSE), named("i", **{"x-agent-user-id": "ann"})):
        async with session.post(url, json="running", headers=headers) as answer:
            assert (await refusal(answer, 409, "already_exists"))["source"] == "user"
    gate.opened.set()
    await ended(server, session, "i")
    async with session.post(url, json="ended", headers=named("i")) as answer:
        await refusal(answer, 409, "already_exists")
    assert calls == ["first"]


async def test_too_many_invocations_are_refused_until_one_has_ended(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations={"max_running": 1})
    url = f"{server.http}/invocations"
    await begin(server, session, "i")
    for headers in ({}, ASYNC):
        async with session.post(url, headers=headers) as answer:
            error = await refusal(answer, 429, "too_many_invocations")
            assert error["source"] == "platform"
            assert int(answer.headers["Retry-After"]) >= 0
            assert UUID.fullmatch(answer.headers["x-agent-session-id"])
    async with session.post(f"{url}/i/cancel"):
        pass
    async with session.post(url, headers=ASYNC) as answer:
        assert answer.status == 202
