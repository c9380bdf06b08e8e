"""Who gets in, over every transport: keys, tokens, origins (§1, §5)."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.hdrs import METH_HEAD, METH_OPTIONS

from agentws import Agent, InvocationContext, InvocationWebSocketHandler
from agentws.transports.http.probes import PROBES
from tests.conftest import LogLines, Running, Serve
from tests.support.issuer import Issuer, new_rsa, signed
from tests.support.peers import HttpPeer

RSA = new_rsa()
KEYS = ("one-key", "clé-two")
FRAMED, RAW = "/invocations_ws/ws", "/invocations_ws"
FOREIGN = {"Origin": "https://elsewhere.example"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def knowing() -> Agent:
    """An agent that tells what it knows of its caller, on every transport."""
    agent = Agent(openapi={"openapi": "3.1.0"})

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return {"user": context.user_id, "query": dict(context.query)}

    @agent.ws_handler
    async def raw(ws: aiohttp.web.WebSocketResponse, context: InvocationContext) -> None:
        await ws.send_json({"user": context.user_id, "query": dict(context.query)})

    return agent


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    server = await Issuer.start({"first": RSA})
    yield server
    await server.stop()


async def post(
    session: aiohttp.ClientSession, server: Running, headers: dict[str, str], query: str = ""
) -> tuple[int, Any]:
    url = f"{server.http}/invocations{query}"
    async with session.post(url, json={}, headers=headers) as answer:
        return answer.status, await answer.json()


async def shake_hands(
    session: aiohttp.ClientSession,
    server: Running,
    headers: dict[str, str] | None = None,
    path: str = FRAMED,
) -> int:
    """Ask for an upgrade and return the status of the answer."""
    async with session.get(server.http + path, headers={**UPGRADE, **(headers or {})}) as answer:
        if answer.status == 101:
            answer.close()
        return answer.status


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


# --- keys -------------------------------------------------------------------------------------

GOOD = [
    {"api-key": "one-key"},
    {"API-Key": "clé-two"},
    bearer("one-key"),
    {"authorization": "bearer clé-two"},
    {"Authorization": "Basic b25lLWtleQ==", "api-key": "one-key"},
    {"Authorization": "Bearer wrong", "api-key": "one-key"},
]
BAD: list[dict[str, str]] = [
    {},
    {"api-key": ""},
    {"api-key": "one-ke"},
    {"api-key": "one-keyy"},
    {"api-key": "one-key,clé-two"},
    {"api-key": "ONE-KEY"},
    {"api-key": "é" * 2000},
    {"Authorization": "one-key"},
    {"Authorization": "Basic one-key"},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer  "},
    {"Authorization": "Bearer one-key two"},
    {"x-api-key": "one-key"},
]


@pytest.mark.parametrize("headers", GOOD)
async def test_a_key_opens_every_transport(
    serve: Serve, session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    assert (await post(session, server, headers))[0] == 200
    for path in (FRAMED, RAW):
        assert await shake_hands(session, server, headers, path) == 101


@pytest.mark.parametrize("headers", BAD)
async def test_without_a_key_nothing_opens(
    serve: Serve, session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    status, body = await post(session, server, headers)
    assert status == 401
    assert body["error"]["code"] == "unauthorized"
    assert (body["error"]["source"], body["error"]["retryable"]) == ("user", False)
    for path in (FRAMED, RAW):
        assert await shake_hands(session, server, headers, path) == 401


async def test_bytes_that_are_no_text_open_nothing(serve: Serve) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    async with HttpPeer.connect(server) as peer:
        peer.writer.write(b"GET /invocations/i HTTP/1.1\r\nHost: a\r\napi-key: \xff\xfe\r\n\r\n")
        assert (await peer.answer())[0] == 401


async def test_a_refusal_tells_how_to_come_in(serve: Serve, session: aiohttp.ClientSession) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    async with session.get(f"{server.http}/invocations/i") as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="agentws"'
        assert answer.headers["x-platform-error-source"] == "user"
        assert answer.headers["x-request-id"]
        assert "api-key" in (await answer.json())["error"]["message"]


async def test_without_keys_the_door_is_open(serve: Serve, session: aiohttp.ClientSession) -> None:
    server = await serve(knowing())
    assert (await post(session, server, {"api-key": "any"}))[0] == 200


async def test_a_key_names_a_service_that_acts_for_users(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    for headers, user in (({"x-agent-user-id": "alice"}, "alice"), (dict[str, str](), None)):
        _, body = await post(session, server, {**headers, "api-key": "one-key"})
        assert body["user"] == user


class OwnHttp(InvocationWebSocketHandler):
    async def handle_websocket(
        self, ws: aiohttp.web.WebSocketResponse, context: InvocationContext
    ) -> None:
        pass

    async def handle(
        self, request: aiohttp.web.Request, context: InvocationContext
    ) -> aiohttp.web.StreamResponse:
        return aiohttp.web.json_response(context.user_id)


@pytest.mark.parametrize("agent", [knowing(), OwnHttp()], ids=["Agent", "class"])
async def test_every_route_but_the_probes_is_closed(
    serve: Serve, session: aiohttp.ClientSession, agent: Agent | OwnHttp
) -> None:
    server = await serve(
        agent, auth={"api_keys": KEYS}, http={"cors_origins": ("https://app.example",)}
    )
    closed = set()
    for route in server.server.routes:
        assert route.resource is not None
        path = route.resource.canonical.replace("{id}", "i")
        if route.method in (METH_HEAD, METH_OPTIONS):
            continue
        async with session.request(route.method, server.http + path, headers=UPGRADE) as answer:
            assert answer.status == (200 if path in PROBES else 401), path
        if path not in PROBES:
            closed.add(path)
    assert {FRAMED, RAW, "/invocations", "/invocations/i/cancel"} < closed
    assert "/invocations_ws/docs/asyncapi.json" in closed


async def test_refusals_come_in_their_order(serve: Serve, session: aiohttp.ClientSession) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS}, websocket={"max_connections": 1})
    key = {"api-key": "one-key"}
    bad = "?agent_session_id=.."
    async with server.connect(headers=key):
        async with session.get(f"{server.http}/elsewhere") as answer:
            assert answer.status == 404
        async with session.post(f"{server.http}{FRAMED}") as answer:
            assert answer.status == 405
        async with session.get(f"{server.http}{FRAMED}{bad}", headers=FOREIGN) as answer:
            assert answer.status == 426
        assert await shake_hands(session, server, FOREIGN, FRAMED + bad) == 403
        assert await shake_hands(session, server, {}, FRAMED + bad) == 401
        assert await shake_hands(session, server, key, FRAMED + bad) == 400
        assert await shake_hands(session, server, key) == 503
    async with session.post(f"{server.http}/invocations{bad}", data=b"no JSON") as answer:
        assert answer.status == 401


async def test_who_is_refused_takes_no_place(serve: Serve, session: aiohttp.ClientSession) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS}, websocket={"max_connections": 1})
    for _ in range(3):
        assert await shake_hands(session, server) == 401
    async with server.connect(headers={"api-key": "one-key"}) as client:
        assert (await client.ask(action="ping"))["type"] == "pong"


# --- the query --------------------------------------------------------------------------------

QUERY = {"api_keys": KEYS, "query_parameter": "access"}


@pytest.mark.parametrize("path", [FRAMED, RAW])
async def test_a_browser_may_send_its_key_in_the_query_of_a_handshake(
    serve: Serve, session: aiohttp.ClientSession, path: str
) -> None:
    server = await serve(knowing(), auth=QUERY)
    assert await shake_hands(session, server, path=f"{path}?access=one-key") == 101
    assert await shake_hands(session, server, path=f"{path}?a=b&access=cl%C3%A9-two") == 101
    for query in ("?access=wrong", "?access=", "?Access=one-key", "?token=one-key", ""):
        assert await shake_hands(session, server, path=path + query) == 401


async def test_over_http_the_query_opens_nothing(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(knowing(), auth=QUERY)
    assert (await post(session, server, {}, "?access=one-key"))[0] == 401


async def test_without_a_name_no_parameter_opens_anything(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    for query in ("?=one-key", "?token=one-key", "?api-key=one-key"):
        assert await shake_hands(session, server, path=FRAMED + query) == 401


async def test_what_is_in_the_query_is_kept_from_handlers(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(knowing(), auth=QUERY)
    async with server.connect(f"{FRAMED}?a=b&access=one-key") as client:
        result = await client.ask(action="invoke")
        assert result["payload"]["query"] == {"a": "b"}
    async with session.ws_connect(f"{server.http}{RAW}?a=b&access=one-key") as ws:
        assert (await ws.receive_json())["query"] == {"a": "b"}
    _, body = await post(session, server, {"api-key": "one-key"}, "?a=b&access=secret")
    assert body["query"] == {"a": "b"}


async def test_what_is_in_the_query_is_in_no_log(
    serve: Serve,
    session: aiohttp.ClientSession,
    log_lines: LogLines,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = await serve(knowing(), auth=QUERY)
    logging.getLogger().setLevel(logging.DEBUG)  # which log_lines undoes, unlike caplog after it
    for path in (FRAMED, RAW):
        for secret in ("one-key", "s3cret"):
            await shake_hands(session, server, path=f"{path}?access={secret}")
            async with session.get(f"{server.http}{path}?access={secret}") as answer:
                assert answer.status == 426
            async with session.get(f"{server.http}/elsewhere?access={secret}") as answer:
                assert answer.status == 404
    async with HttpPeer.connect(server) as peer:
        peer.writer.write(f"GET {FRAMED}?access=s3cret HTTP/1.1\r\nbad header\r\n\r\n".encode())
        await peer.dropped()
    lines = [record for record in caplog.records if record.name.startswith(("agentws", "aiohttp"))]
    assert len(lines) >= 14
    for record in lines:
        told = " ".join(map(str, record.__dict__.values()))
        assert "s3cret" not in told
        assert "one-key" not in told


# --- tokens -----------------------------------------------------------------------------------


async def test_a_token_opens_every_transport(
    serve: Serve, session: aiohttp.ClientSession, issuer: Issuer
) -> None:
    server = await serve(knowing(), auth={**issuer.settings, "query_parameter": "access"})
    token = issuer.token()
    assert await post(session, server, bearer(token)) == (200, {"user": "alice", "query": {}})
    for path in (FRAMED, RAW):
        assert await shake_hands(session, server, bearer(token), path) == 101
        assert await shake_hands(session, server, path=f"{path}?access={token}") == 101


@pytest.mark.parametrize("groups", [150, 250])
async def test_a_token_may_name_many_groups(
    serve: Serve, session: aiohttp.ClientSession, issuer: Issuer, groups: int
) -> None:
    server = await serve(knowing(), auth={**issuer.settings, "query_parameter": "access"})
    token = issuer.token(groups=[str(uuid.uuid4()) for _ in range(groups)])
    assert len(token) > groups * 50
    assert (await post(session, server, bearer(token)))[0] == 200
    assert await shake_hands(session, server, bearer(token)) == 101
    assert await shake_hands(session, server, path=f"{FRAMED}?access={token}") == 101


async def test_a_bad_token_is_told_why(
    serve: Serve, session: aiohttp.ClientSession, issuer: Issuer
) -> None:
    server = await serve(knowing(), auth=issuer.settings)
    for token, reason in (
        (issuer.token(exp=time.time() - 120), "expired"),
        (issuer.token(aud="others"), "udience"),
        (signed(new_rsa()), "Signature"),
        (signed(RSA, "made-up"), "kid"),
        ("a.b.c", "not valid"),
        ("nonsense", "open nothing"),
    ):
        status, body = await post(session, server, bearer(token))
        assert (status, body["error"]["code"]) == (401, "unauthorized")
        assert reason in body["error"]["message"]


async def test_either_key_or_token_opens(
    serve: Serve, session: aiohttp.ClientSession, issuer: Issuer
) -> None:
    server = await serve(knowing(), auth={**issuer.settings, "api_keys": KEYS})
    for headers, user in (
        (bearer(issuer.token()), "alice"),
        (bearer("one-key"), None),
        ({"api-key": "one-key"}, None),
        ({"api-key": "one-key", **bearer(issuer.token())}, "alice"),
        ({"api-key": "wrong", **bearer(issuer.token())}, "alice"),
    ):
        status, body = await post(session, server, headers)
        assert (status, body["user"]) == (200, user)


async def test_the_token_says_who_the_user_is_whatever_the_header_says(
    serve: Serve, session: aiohttp.ClientSession, issuer: Issuer
) -> None:
    server = await serve(knowing(), auth=issuer.settings)
    pretender = {**bearer(issuer.token(sub="mallory")), "x-agent-user-id": "alice"}
    _, body = await post(session, server, pretender)
    assert body["user"] == "mallory"


async def test_an_invocation_belongs_to_the_subject_of_the_token(
    serve: Serve, session: aiohttp.ClientSession, issuer: Issuer
) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        await asyncio.Event().wait()

    server = await serve(agent, auth={**issuer.settings, "api_keys": KEYS})
    alice = bearer(issuer.token())
    others = [
        bearer(issuer.token(sub="bob")),
        {**bearer(issuer.token(sub="bob")), "x-agent-user-id": "alice"},
        {"api-key": "one-key"},
    ]
    url = f"{server.http}/invocations"
    start = {**alice, "x-agent-invocation-id": "i", "Prefer": "respond-async"}
    async with session.post(url, headers=start) as answer:
        assert answer.status == 202
    for other in others:
        async with session.get(f"{url}/i", headers=other) as answer:
            assert answer.status == 404
        async with session.post(f"{url}/i/cancel", headers=other) as answer:
            assert answer.status == 404
        async with server.connect(headers=other) as client:
            for action in ("get_invocation", "cancel_invocation", "attach_invocation"):
                frame = await client.ask(action=action, invocation_id="i")
                assert frame["error"]["code"] == "not_found"
    async with server.connect(headers=bearer(issuer.token())) as client:
        frame = await client.ask(action="cancel_invocation", invocation_id="i")
        assert frame["payload"]["status"] == "cancelled"


async def test_a_socket_outlives_its_token(
    serve: Serve, issuer: Issuer, session: aiohttp.ClientSession
) -> None:
    server = await serve(knowing(), auth=issuer.settings)
    async with server.connect(headers=bearer(issuer.token(exp=time.time() - 59))) as client:
        assert (await client.ask(action="invoke"))["payload"]["user"] == "alice"


# --- origins ----------------------------------------------------------------------------------


async def test_pages_of_the_server_itself_may_call(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(knowing())
    own = {"Origin": server.http}
    assert (await post(session, server, own))[0] == 200
    assert await shake_hands(session, server, own) == 101
    # A gateway in front ends TLS, and hands on the name that it was called by.
    behind = {"Origin": "https://agents.example", "Host": "agents.example"}
    assert await shake_hands(session, server, behind, RAW) == 101


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1:1", ""])
async def test_pages_of_other_origins_may_not(
    serve: Serve, session: aiohttp.ClientSession, origin: str
) -> None:
    server = await serve(knowing())
    status, body = await post(session, server, {"Origin": origin})
    assert (status, body["error"]["code"]) == (403, "forbidden")
    assert "auth.allowed_origins" in body["error"]["message"]
    for path in (FRAMED, RAW):
        assert await shake_hands(session, server, {"Origin": origin}, path) == 403


async def test_pages_of_an_allowed_origin_may(serve: Serve, session: aiohttp.ClientSession) -> None:
    server = await serve(
        knowing(),
        auth={"allowed_origins": ("https://app.example", "https://*.wide.example")},
        http={"cors_origins": ("https://cors.example",)},
    )
    for origin in ("https://app.example", "https://a.wide.example", "https://cors.example"):
        assert await shake_hands(session, server, {"Origin": origin}) == 101
        assert (await post(session, server, {"Origin": origin}))[0] == 200
    assert await shake_hands(session, server, FOREIGN) == 403


async def test_one_foreign_origin_among_several_is_enough(serve: Serve) -> None:
    server = await serve(knowing())
    async with HttpPeer.connect(server) as peer:
        own, foreign = "Origin: http://test", "Origin: https://elsewhere.example"
        peer.request("GET /invocations/i", own, foreign)
        assert (await peer.answer())[0] == 403


async def test_a_preflight_needs_no_credentials_but_an_origin(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    ours = "https://app.example"
    server = await serve(knowing(), auth={"api_keys": KEYS}, http={"cors_origins": (ours,)})
    wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "api-key"}
    url = f"{server.http}/invocations"
    async with session.options(url, headers={"Origin": ours, **wish}) as answer:
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == ours
    async with session.options(url, headers={**FOREIGN, **wish}) as answer:
        assert answer.status == 403
        assert "auth.allowed_origins" in (await answer.json())["error"]["message"]
    async with session.post(url, json={}, headers={"Origin": ours}) as answer:
        assert answer.status == 401
        assert answer.headers["Access-Control-Allow-Origin"] == ours  # the page may read why


async def test_probes_are_answered_to_pages_of_any_origin(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    for path in PROBES:
        async with session.get(server.http + path, headers=FOREIGN) as answer:
            assert answer.status == 200
