"""Agents that own their socket and their HTTP answers."""

import asyncio
import gzip
import json
from typing import Any

import aiohttp
import pytest
import websockets
from aiohttp import web

from agentws import InvocationContext, InvocationError, InvocationWebSocketHandler
from tests.conftest import PATIENCE, Serve
from tests.support.peers import HttpPeer

Socket = web.WebSocketResponse


class SocketOnly(InvocationWebSocketHandler):
    async def handle_websocket(self, ws: Socket, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_str(message.data.upper())


class Everything(SocketOnly):
    async def handle(self, request: web.Request, context: InvocationContext) -> web.StreamResponse:
        match (await request.json())["do"]:
            case "answer":
                ids = [context.invocation_id, context.session_id, context.transport]
                return web.json_response(ids, status=201)
            case "refuse":
                raise web.HTTPConflict(text="as it is", headers={"x-mine": "yes"})
            case "fail":
                raise RuntimeError("secret")
            case "err":
                raise InvocationError("mine", "told", status=422)
            case _:
                return "no response"  # type: ignore[return-value]

    async def get(
        self, invocation_id: str, request: web.Request, context: InvocationContext
    ) -> web.StreamResponse:
        return web.Response(text=f"get {invocation_id} {context.invocation_id}")

    async def cancel(
        self, invocation_id: str, request: web.Request, context: InvocationContext
    ) -> web.StreamResponse:
        return web.Response(text=f"cancel {invocation_id}")

    async def get_openapi(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"openapi": "3.1.0"})

    async def get_asyncapi(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"asyncapi": "3.0.0"})


async def test_the_socket_is_the_handlers(serve: Serve) -> None:
    server = await serve(SocketOnly())
    async with websockets.connect(f"{server.ws}/invocations_ws") as socket:
        await socket.send("hello")
        assert await socket.recv() == "HELLO"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invocations"),
        ("GET", "/invocations/x"),
        ("POST", "/invocations/x/cancel"),
        ("GET", "/invocations/docs/openapi.json"),
        ("GET", "/invocations_ws/docs/openapi.json"),
        ("GET", "/invocations/docs/asyncapi.json"),
        ("GET", "/invocations_ws/docs/asyncapi.json"),
    ],
)
async def test_what_is_not_overridden_is_not_found(serve: Serve, method: str, path: str) -> None:
    server = await serve(SocketOnly())
    async with (
        aiohttp.ClientSession(server.http) as session,
        session.request(method, path) as answer,
    ):
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "ids"),
    [
        ("GET", "/invocations", {}),
        ("GET", "/invocations/?status=running", {}),
        ("POST", "/invocations/x/inputs", {"x-agent-invocation-id": "x"}),
    ],
)
async def test_what_only_the_daemon_could_know_is_not_implemented(
    serve: Serve, method: str, path: str, ids: dict[str, str]
) -> None:
    server = await serve(Everything())
    async with (
        aiohttp.ClientSession(server.http) as session,
        session.request(method, path, headers={"x-request-id": "r"}) as answer,
    ):
        assert answer.status == 501
        told = {"x-platform-error-source": "upstream", "x-request-id": "r", **ids}
        assert {name: answer.headers[name] for name in told} == told
        error = (await answer.json())["error"]
        assert (error["code"], error["source"]) == ("not_implemented", "upstream")


async def test_inputs_want_an_id_that_is_one(serve: Serve) -> None:
    server = await serve(SocketOnly())
    async with (
        aiohttp.ClientSession(server.http) as session,
        session.post("/invocations/..%20/inputs") as answer,
    ):
        assert answer.status == 400


async def test_the_framed_socket_runs_nothing(serve: Serve) -> None:
    server = await serve(SocketOnly())
    async with server.connect() as client:
        frame = await client.ask(action="invoke")
    assert frame["error"]["code"] == "not_implemented"


async def test_the_methods_answer(serve: Serve) -> None:
    server = await serve(Everything())
    async with aiohttp.ClientSession(server.http) as session:
        headers = {"x-agent-invocation-id": "i"}
        url = "/invocations?agent_session_id=s"
        async with session.post(url, json={"do": "answer"}, headers=headers) as answer:
            assert answer.status == 201
            assert await answer.json() == ["i", "s", "http"]
            assert answer.headers["x-agent-invocation-id"] == "i"
            assert answer.headers["x-agent-session-id"] == "s"
        async with session.get("/invocations/i") as answer:
            assert await answer.text() == "get i i"
        async with session.post("/invocations/i/cancel") as answer:
            assert await answer.text() == "cancel i"
        async with session.get("/invocations/docs/openapi.json") as answer:
            assert await answer.json() == {"openapi": "3.1.0"}
        for place in ("invocations", "invocations_ws"):
            async with session.get(f"/{place}/docs/asyncapi.json") as answer:
                assert await answer.json() == {"asyncapi": "3.0.0"}
        async with session.post("/invocations/", json={"do": "answer"}) as answer:
            assert answer.status == 201
        async with session.get("/invocations/i/") as answer:
            assert await answer.text() == "get i i"
        async with session.get("/invocations/..%20") as answer:
            assert answer.status == 400


async def test_a_client_that_waits_is_asked_before_the_agent_reads(serve: Serve) -> None:
    server = await serve(Everything(), auth={"api_keys": ("key",)})
    body = b'{"do": "answer"}'
    expecting = ("Expect: 100-continue", f"Content-Length: {len(body)}")
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "api-key: key", *expecting)
        assert (await peer.answer())[0] == 100
        peer.writer.write(body)
        assert (await peer.answer())[0] == 201
        peer.request("POST /invocations", *expecting)
        assert (await peer.answer())[0] == 401


async def test_a_body_reaches_the_agent_inflated(serve: Serve) -> None:
    server = await serve(Everything())
    async with (
        aiohttp.ClientSession(server.http) as session,
        session.post(
            "/invocations",
            data=gzip.compress(b'{"do": "answer"}'),
            headers={"Content-Encoding": "gzip"},
        ) as answer,
    ):
        assert answer.status == 201


async def test_what_the_agent_says_of_origins_stands(serve: Serve) -> None:
    class Public(SocketOnly):
        async def get(
            self, invocation_id: str, request: web.Request, context: InvocationContext
        ) -> web.StreamResponse:
            return web.Response(headers={"Access-Control-Allow-Origin": "*"})

    server = await serve(Public(), auth={"allowed_origins": ("https://a.example",)})
    page = {"Origin": "https://a.example"}
    async with aiohttp.ClientSession(server.http, headers=page) as session:
        for path, told in (("/invocations/i", "*"), ("/nowhere", "https://a.example")):
            async with session.get(path) as answer:
                assert answer.headers.getall("Access-Control-Allow-Origin") == [told]


async def test_what_a_method_raises_is_never_the_platforms(serve: Serve) -> None:
    class Refusing(SocketOnly):
        async def handle(
            self, request: web.Request, context: InvocationContext
        ) -> web.StreamResponse:
            raise InvocationError("shutting_down", "The model")

    server = await serve(Refusing())
    async with (
        aiohttp.ClientSession(server.http) as session,
        session.post("/invocations") as answer,
    ):
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.headers["x-platform-error-source"] == "upstream"
        assert (await answer.json())["error"]["source"] == "upstream"


async def test_an_http_exception_passes_through(serve: Serve) -> None:
    server = await serve(Everything())
    async with (
        aiohttp.ClientSession(server.http) as session,
        session.post("/invocations", json={"do": "refuse"}) as answer,
    ):
        assert (answer.status, await answer.text()) == (409, "as it is")
        assert answer.headers["x-mine"] == "yes"
        assert "x-request-id" in answer.headers


@pytest.mark.parametrize(
    ("do", "status", "code"),
    [
        ("fail", 500, "internal_error"),
        ("nonsense", 500, "internal_error"),
        ("err", 422, "mine"),
    ],
)
async def test_errors_are_answered_in_the_envelope(
    serve: Serve, do: str, status: int, code: str
) -> None:
    server = await serve(Everything())
    async with (
        aiohttp.ClientSession(server.http) as session,
        session.post("/invocations", json={"do": do}) as answer,
    ):
        assert answer.status == status
        text = await answer.text()
    assert json.loads(text)["error"]["code"] == code
    assert "secret" not in text


def test_a_method_that_is_not_async_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="handle_websocket method must be an async function"):

        class NotAsync(InvocationWebSocketHandler):
            def handle_websocket(self, ws: Socket, context: Any) -> None:  # type: ignore[override]
                pass


def test_a_method_with_other_arguments_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="get method"):

        class Short(SocketOnly):
            async def get(self, request: web.Request) -> web.Response:  # type: ignore[override]
                return web.Response()


async def test_a_drain_waits_for_an_answer_and_refuses_the_next(serve: Serve) -> None:
    entered, finish = asyncio.Event(), asyncio.Event()

    class Slow(SocketOnly):
        async def handle(
            self, request: web.Request, context: InvocationContext
        ) -> web.StreamResponse:
            entered.set()
            await finish.wait()
            return web.Response(text="done")

    server = await serve(Slow(), server={"shutdown_grace": PATIENCE})
    async with aiohttp.ClientSession(server.http) as session:
        first = asyncio.create_task(session.post("/invocations"))
        await entered.wait()
        drain = asyncio.create_task(server.server.drain())
        await asyncio.sleep(0)
        async with session.post("/invocations") as refused:
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "shutting_down"
        finish.set()
        assert await (await first).text() == "done"
        await drain
