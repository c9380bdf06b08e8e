"""Handshakes of the raw socket, and which sockets there are for which agent (§1, §2)."""

import aiohttp
import pytest
from msgspec.structs import replace

from agentws import Agent, InvocationContext, __version__
from tests.conftest import LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.transports.websocket.conftest import (
    FIELD,
    RAW,
    UUID,
    WebSocket,
    closing,
    connected,
    converse,
    raw_agent_of,
    received,
    refusal,
)


async def test_the_handshake_is_answered_with_its_headers(serve: Serve) -> None:
    server = await serve(raw_agent_of(converse))
    async with connected(server, headers={"x-request-id": "mine"}) as client:
        assert client.response is not None
        headers = client.response.headers
        assert headers["x-request-id"] == "mine"
        assert headers["x-platform-server"].startswith(f"agentws/{__version__} (python/3.")
        assert UUID.fullmatch(headers["x-agent-session-id"])
        await client.send("hello")
        assert await received(client) == "hello"


@pytest.mark.parametrize(
    ("query", "configured", "expected"),
    [
        ("?agent_session_id=query", "configured", "configured"),
        ("?agent_session_id=query", "", "query"),
        ("", "configured", "configured"),
        ("?agent_session_id=", "", None),
        ("", "", None),
    ],
)
async def test_the_session_is_the_configured_else_the_querys_else_new(
    serve: Serve, log_lines: LogLines, query: str, configured: str, expected: str | None
) -> None:
    async def tell(ws: WebSocket, context: InvocationContext) -> None:
        await ws.send_str(context.session_id)

    server = await serve(raw_agent_of(tell), agent={"session_id": configured})
    told = set()
    for _ in range(2):
        async with connected(server, RAW + query) as client:
            session_id = await received(client)
            assert client.response is not None
            assert client.response.headers["x-agent-session-id"] == session_id
        line = vars(await log_lines.next("agentws.connection"))
        assert line[FIELD + "session_id"] == session_id
        assert isinstance(session_id, str)
        told.add(session_id)
    if expected is not None:
        assert told == {expected}
    else:
        assert len(told) == 2
        assert all(map(UUID.fullmatch, told))


async def test_what_the_handler_knows_of_the_handshake(serve: Serve) -> None:
    seen: list[InvocationContext] = []

    async def note(ws: WebSocket, context: InvocationContext) -> None:
        seen.append(context)

    server = await serve(raw_agent_of(note))
    headers = {
        "X-Client-Locale": "de",
        "x-agent-user-id": "ann",
        "x-agent-foundry-call-id": "call",
        "x-request-id": "req",
    }
    for _ in range(2):
        async with connected(server, f"{RAW}?agent_session_id=s&a=1", headers) as client:
            await closing(client)
    first, second = (context.invocation_id for context in seen)
    assert first != second
    for context in seen:
        assert UUID.fullmatch(context.invocation_id)
        assert replace(context, _draining=None) == InvocationContext(
            context.invocation_id,
            "s",
            "websocket",
            {"x-client-locale": "de"},
            {"agent_session_id": "s", "a": "1"},
            "ann",
            "call",
            "req",
        )


async def test_a_bad_session_is_refused_before_the_upgrade(serve: Serve) -> None:
    server = await serve(raw_agent_of(converse))
    status, error, _ = await refusal(server, f"{RAW}?agent_session_id=a/b")
    assert (status, error["code"]) == (400, "invalid_request")


async def test_a_plain_request_has_to_be_upgraded(serve: Serve) -> None:
    server = await serve(raw_agent_of(converse))
    async with aiohttp.ClientSession() as session, session.get(server.http + RAW) as answer:
        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
        assert (await answer.json())["error"]["code"] == "upgrade_required"


async def test_without_a_handler_of_its_own_the_route_is_the_framed_socket(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect(RAW) as client:
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1


async def test_with_no_handler_at_all_there_is_no_route(serve: Serve) -> None:
    server = await serve(Agent())
    status, error, _ = await refusal(server, RAW)
    assert (status, error["code"]) == (404, "not_found")
    async with aiohttp.ClientSession() as session:
        for method in ("GET", "POST"):
            async with session.request(method, server.http + RAW) as answer:
                assert answer.status == 404


async def test_beside_the_handler_the_framed_socket_has_its_route(serve: Serve) -> None:
    server = await serve(raw_agent_of(converse))
    async with server.connect() as client:
        assert await client.ask(action="ping") == {"type": "pong"}
        frame = await client.ask(action="invoke")
        assert frame["error"]["code"] == "not_implemented"
