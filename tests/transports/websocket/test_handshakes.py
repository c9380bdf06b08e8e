"""Handshakes of the framed socket: what they are answered, refused, and agreed on (§1)."""

import json
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from agentws import Agent, InvocationContext, InvocationWebSocketHandler
from agentws.agent.loading import Served
from tests.conftest import Serve
from tests.support.agents import agent_of, echo
from tests.support.peers import HttpPeer
from tests.transports.websocket.conftest import FRAMED, UUID, assert_alive, handshake_of, refusal

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
async def test_a_handshake_is_answered_with_its_headers(serve: Serve, path: str) -> None:
    server = await serve(agent_of(echo))
    async with server.connect(path) as client:
        headers = handshake_of(client.connection)
        assert UUID.fullmatch(headers["x-agent-session-id"])
        assert UUID.fullmatch(headers["x-request-id"])
        assert re.fullmatch(r"agentws/\S+ \(python/3\.\d+\)", headers["x-platform-server"])
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1


async def test_the_session_of_the_query_is_told_in_the_handshake(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect("/invocations_ws/ws?agent_session_id=mine") as client:
        assert handshake_of(client.connection)["x-agent-session-id"] == "mine"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "own"}, TRACE),
        ({"traceparent": "00-not-one", "x-request-id": "own"}, "own"),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01", "x-request-id": "own"}, "own"),
        ({"traceparent": f"00-{TRACE.upper()}-00f067aa0ba902b7-01"}, None),
        ({"x-request-id": "own"}, "own"),
        ({"x-request-id": "a b"}, None),
        ({"x-request-id": ".."}, None),
        ({"x-request-id": "a" * 257}, None),
        ({"x-request-id": ""}, None),
        ({}, None),
    ],
)
async def test_the_request_id_is_the_traces_else_the_callers_else_new(
    serve: Serve, sent: dict[str, str], expected: str | None
) -> None:
    server = await serve(agent_of(echo))
    async with server.connect(headers=sent) as client:
        told = handshake_of(client.connection)["x-request-id"]
        assert told == expected if expected else UUID.fullmatch(told)


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upgrade": "websocket"},
        {"Connection": "Upgrade"},
        {"Connection": "Upgrade", "Upgrade": "h2c"},
        {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "8"},
    ],
)
async def test_a_get_that_opens_no_websocket_must_upgrade(
    serve: Serve, path: str, headers: dict[str, str]
) -> None:
    server = await serve(agent_of(echo))
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.http + path, headers=headers) as answer,
    ):
        assert answer.status == 426
        assert answer.headers["Upgrade"] == "websocket"
        error = (await answer.json())["error"]
    assert error["code"] == "upgrade_required"
    assert (error["source"], error["retryable"]) == ("user", False)


@pytest.mark.parametrize("asked", ["a%20b", "..", "a" * 257, "%C3%A9", "a%00", "a/b"])
async def test_a_bad_session_id_is_refused_before_the_upgrade(serve: Serve, asked: str) -> None:
    server = await serve(agent_of(echo))
    status, error, headers = await refusal(server, f"{FRAMED}?agent_session_id={asked}")
    assert (status, error["code"]) == (400, "invalid_request")
    assert "agent_session_id" in error["message"]
    assert UUID.fullmatch(headers["x-request-id"])


async def test_an_empty_session_id_is_as_not_given(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect("/invocations_ws/ws?agent_session_id=") as client:
        assert UUID.fullmatch(handshake_of(client.connection)["x-agent-session-id"])


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
@pytest.mark.parametrize(
    ("line", "headers", "status", "named"),
    [
        ("HTTP/1.1", {"Sec-WebSocket-Key": "short"}, 400, "Sec-WebSocket-Key"),
        ("HTTP/1.1", {"Sec-WebSocket-Key": None}, 400, "Sec-WebSocket-Key"),
        ("HTTP/1.1", {"Sec-WebSocket-Version": None}, 426, "Sec-WebSocket-Version"),
        ("HTTP/1.0", {}, 426, "HTTP/1.1"),
    ],
)
async def test_what_a_handshake_lacks_is_named(
    serve: Serve, path: str, line: str, headers: Mapping[str, str | None], status: int, named: str
) -> None:
    server = await serve(agent_of(echo))
    complete = {
        "Host": "test",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    fields = [f"{name}: {value}" for name, value in {**complete, **headers}.items() if value]
    async with HttpPeer.connect(server) as peer:
        peer.writer.write("\r\n".join([f"GET {path} {line}", *fields, "", ""]).encode())
        answered, told, body = await peer.answer()
    assert answered == status
    assert UUID.fullmatch(told["x-request-id"])
    error = json.loads(body)["error"]
    assert error["code"] == ("upgrade_required" if status == 426 else "invalid_request")
    assert named in error["message"]
    async with server.connect(path) as client:
        await assert_alive(client)


async def test_refusals_come_in_their_order(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_connections": 1})
    bad_session = "?agent_session_id=.."
    async with server.connect() as client, aiohttp.ClientSession() as session:
        url = f"{server.http}/invocations_ws/ws{bad_session}"
        async with session.post(f"{server.http}/elsewhere{bad_session}") as answer:
            assert answer.status == 404
        async with session.post(url) as answer:
            assert answer.status == 405
            assert "GET" in answer.headers["Allow"]
            assert (await answer.json())["error"]["code"] == "method_not_allowed"
        async with session.get(url) as answer:
            assert answer.status == 426
        status, error, _ = await refusal(server, FRAMED + bad_session)
        assert (status, error["code"]) == (400, "invalid_request")
        status, error, _ = await refusal(server)
        assert (status, error["code"]) == (503, "too_many_connections")
        await assert_alive(client)


# --- subprotocols -----------------------------------------------------------------------------


class Own(InvocationWebSocketHandler):
    """An agent in class style that names subprotocols."""

    subprotocols = ("chat.v2", "chat.v1")

    async def handle_websocket(self, ws: web.WebSocketResponse, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_str(message.data)


def raw(*subprotocols: str) -> Agent:
    agent = Agent(subprotocols=subprotocols)

    @agent.ws_handler
    async def talk(ws: web.WebSocketResponse, context: InvocationContext) -> None:
        await ws.send_str(str(ws.ws_protocol))

    return agent


@pytest.mark.parametrize(
    ("agent", "path", "offered", "spoken"),
    [
        (Agent(subprotocols=["b", "a"]), "/invocations_ws/ws", ["x", "a", "b"], "b"),
        (Agent(subprotocols=["b", "a"]), "/invocations_ws/ws", ["a", "x"], "a"),
        (Agent(subprotocols=["b", "a"]), "/invocations_ws/ws", ["agentws.v1"], None),
        (Agent(subprotocols=["b", "a"]), "/invocations_ws/ws", None, None),
        (Agent(), "/invocations_ws/ws", ["x", "agentws.v1"], "agentws.v1"),
        (Agent(), "/invocations_ws/ws", ["x"], None),
        (agent_of(echo), "/invocations_ws", ["x", "agentws.v1"], "agentws.v1"),
        (raw("b", "a"), "/invocations_ws", ["a", "b"], "b"),
        (raw(), "/invocations_ws", ["agentws.v1"], None),
        (raw("b", "a"), "/invocations_ws/ws", ["a", "b"], "b"),
        (Own(), "/invocations_ws", ["chat.v1", "chat.v2"], "chat.v2"),
        (Own(), "/invocations_ws/ws", ["chat.v1"], "chat.v1"),
    ],
)
async def test_a_client_gets_the_first_subprotocol_of_the_agents_that_it_offers(
    serve: Serve, agent: Served, path: str, offered: list[Any] | None, spoken: str | None
) -> None:
    server = await serve(agent)
    async with server.connect(path, subprotocols=offered) as client:
        assert client.connection.subprotocol == spoken
        if isinstance(agent, Agent) and agent.serve_socket and path == "/invocations_ws":
            assert await client.connection.recv() == str(spoken)
