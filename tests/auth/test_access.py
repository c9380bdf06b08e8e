"""Who gets in, over every transport: keys in headers, or in a query (§1, §5)."""

import logging

import aiohttp
import pytest
from aiohttp.hdrs import METH_HEAD, METH_OPTIONS

from agentws import Agent, InvocationContext, InvocationWebSocketHandler
from agentws.transports.http.probes import PROBES
from tests.auth.conftest import FOREIGN, FRAMED, KEYS, RAW, bearer, knowing, post, shake_hands
from tests.conftest import LogLines, Serve
from tests.support.http_client import Session
from tests.support.peers import HANDSHAKE, HttpPeer

GOOD = [
    {"api-key": "one-key"},
    {"API-Key": "clé-two"},
    bearer("one-key"),
    {"authorization": "bearer clé-two"},
    {"Authorization": "Basic b25lLWtleQ==", "api-key": "one-key"},
    {"Authorization": "Bearer wrong", "api-key": "one-key"},
]


@pytest.mark.parametrize("headers", GOOD)
async def test_a_key_opens_every_transport(
    serve: Serve, session: Session, headers: dict[str, str]
) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    assert (await post(session, server, headers))[0] == 200
    for path in (FRAMED, RAW):
        assert await shake_hands(session, server, headers, path) == 101


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


@pytest.mark.parametrize("headers", BAD)
async def test_without_a_key_nothing_opens(
    serve: Serve, session: Session, headers: dict[str, str]
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


async def test_a_refusal_tells_how_to_come_in(serve: Serve, session: Session) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    async with session.get(f"{server.http}/invocations/i") as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="agentws"'
        assert answer.headers["x-platform-error-source"] == "user"
        assert answer.headers["x-request-id"]
        assert "api-key" in (await answer.json())["error"]["message"]


async def test_without_keys_the_door_is_open(serve: Serve, session: Session) -> None:
    server = await serve(knowing())
    assert (await post(session, server, {"api-key": "any"}))[0] == 200


async def test_a_key_names_a_service_that_acts_for_users(serve: Serve, session: Session) -> None:
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
    serve: Serve, session: Session, agent: Agent | OwnHttp
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
        async with session.request(route.method, server.http + path, headers=HANDSHAKE) as answer:
            assert answer.status == (200 if path in PROBES else 401), path
        if path not in PROBES:
            closed.add(path)
    assert {FRAMED, RAW, "/invocations", "/invocations/i/cancel"} < closed
    assert "/invocations_ws/docs/asyncapi.json" in closed


async def test_refusals_come_in_their_order(serve: Serve, session: Session) -> None:
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


async def test_who_is_refused_takes_no_place(serve: Serve, session: Session) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS}, websocket={"max_connections": 1})
    for _ in range(3):
        assert await shake_hands(session, server) == 401
    async with server.connect(headers={"api-key": "one-key"}) as client:
        assert (await client.ask(action="ping"))["type"] == "pong"


# --- the query --------------------------------------------------------------------------------


QUERY = {"api_keys": KEYS, "query_parameter": "access"}


@pytest.mark.parametrize("path", [FRAMED, RAW])
async def test_a_browser_may_send_its_key_in_the_query_of_a_handshake(
    serve: Serve, session: Session, path: str
) -> None:
    server = await serve(knowing(), auth=QUERY)
    assert await shake_hands(session, server, path=f"{path}?access=one-key") == 101
    assert await shake_hands(session, server, path=f"{path}?a=b&access=cl%C3%A9-two") == 101
    for query in ("?access=wrong", "?access=", "?Access=one-key", "?token=one-key", ""):
        assert await shake_hands(session, server, path=path + query) == 401


async def test_over_http_the_query_opens_nothing(serve: Serve, session: Session) -> None:
    server = await serve(knowing(), auth=QUERY)
    assert (await post(session, server, {}, "?access=one-key"))[0] == 401


async def test_without_a_name_no_parameter_opens_anything(serve: Serve, session: Session) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    for query in ("?=one-key", "?token=one-key", "?api-key=one-key"):
        assert await shake_hands(session, server, path=FRAMED + query) == 401


async def test_what_is_in_the_query_is_kept_from_handlers(serve: Serve, session: Session) -> None:
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
    session: Session,
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
