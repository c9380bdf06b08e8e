"""Which routes there are, with which methods, and the other protocol's."""

import pytest
from websockets.exceptions import InvalidStatus

from agentws import Agent
from tests.conftest import Serve
from tests.support.agents import agent_of, echo
from tests.support.http_client import ASYNCAPI, JSON, OPENAPI, SSE, Session, methods_of, refusal
from tests.support.peers import HANDSHAKE, HttpPeer


@pytest.mark.parametrize(
    ("path", "methods", "allowed"),
    [
        ("/invocations", "PUT DELETE PATCH OPTIONS", {"GET", "HEAD", "POST"}),
        ("/invocations/i", "POST PUT DELETE PATCH OPTIONS", {"GET", "HEAD"}),
        ("/invocations/i/cancel", "GET PUT DELETE PATCH HEAD OPTIONS", {"POST"}),
    ],
)
async def test_a_method_that_a_route_does_not_have_is_not_allowed(
    serve: Serve, session: Session, path: str, methods: str, allowed: set[str]
) -> None:
    server = await serve(agent_of(echo))
    for method in methods.split():
        async with session.request(method, server.http + path) as answer:
            assert (answer.status, methods_of(answer)) == (405, allowed)
            if method != "HEAD":
                error = await refusal(answer, 405, "method_not_allowed")
                assert error["source"] == "user"


@pytest.mark.parametrize("path", ["/invocations//", "/invocations/i//", "/invocations/i/cancel/x"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_route_that_is_not_there(
    serve: Serve, session: Session, path: str, method: str
) -> None:
    server = await serve(agent_of(echo))
    async with session.request(method, server.http + path) as answer:
        await refusal(answer, 404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/nowhere/",
        "/readiness//",
        "//readiness",
        "/invocations/a//",
        "/%ff%00",
        "//",
    ],
)
async def test_an_unknown_route_is_not_found(serve: Serve, session: Session, path: str) -> None:
    server = await serve(agent_of(echo))
    async with session.get(server.http + path) as answer:
        error = await refusal(answer, 404, "not_found")
    assert error["source"] == "user"
    assert isinstance(error["message"], str)


async def test_a_trailing_slash_makes_no_difference(serve: Serve, session: Session) -> None:
    agent = Agent(openapi={})
    agent.invoke_handler(echo)
    server = await serve(agent, auth={"api_keys": ("key",)})
    for path in ("/readiness/", "/liveness/"):
        async with session.get(server.http + path) as answer:
            assert answer.status == 200
    key = {"api-key": "key", "x-agent-invocation-id": "i"}
    for path in (f"{ASYNCAPI[0]}/", f"{OPENAPI[0]}/", f"{OPENAPI[1]}/"):
        async with session.get(server.http + path) as answer:
            assert answer.status == 401
        async with session.get(server.http + path, headers=key) as answer:
            assert answer.status == 200
    async with session.post(f"{server.http}/invocations/?a=b", json=[1], headers=key) as answer:
        assert (answer.status, await answer.json()) == (200, [1])
    async with session.get(f"{server.http}/invocations/i/", headers=key) as answer:
        assert (await answer.json())["invocation_id"] == "i"
    async with session.post(f"{server.http}/invocations/i/cancel/", headers=key) as answer:
        assert (await answer.json())["error"]["code"] == "already_finished"
    async with session.delete(f"{server.http}/invocations/i/") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


# --- the other protocol's ---------------------------------------------------------------------


async def test_an_upgrade_is_not_offered_on_the_routes_of_http(serve: Serve) -> None:
    upgrade = [": ".join(header) for header in HANDSHAKE.items()]
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        for line, headers, body, expected in (
            ("POST /invocations", ["Content-Length: 3"], b"[1]", 200),
            ("GET /invocations/none", [], b"", 404),
            ("POST /invocations/none/cancel", [], b"", 404),
            ("GET /liveness", [], b"", 200),
        ):
            peer.request(line, *upgrade, *headers, body=body)
            status, answered, content = await peer.answer()
            assert status == expected
            assert "upgrade" not in answered
            if line == "POST /invocations":
                assert content == b"[1]"


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
async def test_a_route_of_sockets_has_to_be_upgraded(
    serve: Serve, session: Session, path: str
) -> None:
    server = await serve(agent_of(echo))
    for headers in ({}, SSE, JSON):
        async with session.get(server.http + path, headers=headers) as answer:
            assert (await refusal(answer, 426, "upgrade_required"))["source"] == "user"
            assert answer.headers["Upgrade"] == "websocket"
    async with session.post(server.http + path, json={}) as answer:
        await refusal(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/invocations_ws/ws/", "/invocations_ws/"])
async def test_a_socket_opens_with_a_trailing_slash(
    serve: Serve, session: Session, path: str
) -> None:
    server = await serve(agent_of(echo), auth={"api_keys": ("key",), "query_parameter": "access"})
    async with session.get(server.http + path) as answer:
        assert answer.status == 426
    with pytest.raises(InvalidStatus, match="401"):
        async with server.connect(path):
            pass
    async with server.connect(f"{path}?access=key") as client:
        assert (await client.ask(action="ping"))["type"] == "pong"
