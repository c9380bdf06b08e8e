"""Agents that own their socket and their HTTP answers."""

import asyncio
import gzip
from typing import Any

import pytest
import websockets
from aiohttp import web

from agentws import InvocationContext, InvocationError, InvocationWebSocketHandler
from tests.conftest import PATIENCE, Serve
from tests.support.agents import soon
from tests.support.http_client import Session, named, refusal
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
async def test_what_is_not_overridden_is_not_found(
    serve: Serve, session: Session, method: str, path: str
) -> None:
    server = await serve(SocketOnly())
    async with session.request(method, server.http + path) as answer:
        await refusal(answer, 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "ids"),
    [
        ("GET", "/invocations", {}),
        ("GET", "/invocations/?status=running", {}),
        ("POST", "/invocations/x/inputs", {"x-agent-invocation-id": "x"}),
    ],
)
async def test_what_only_the_daemon_could_know_is_not_implemented(
    serve: Serve, session: Session, method: str, path: str, ids: dict[str, str]
) -> None:
    server = await serve(Everything())
    async with session.request(method, server.http + path, headers={"x-request-id": "r"}) as answer:
        assert (await refusal(answer, 501, "not_implemented"))["source"] == "upstream"
        told = {"x-request-id": "r", **ids}
        assert {name: answer.headers[name] for name in told} == told


async def test_inputs_want_an_id_that_is_one(serve: Serve, session: Session) -> None:
    server = await serve(SocketOnly())
    async with session.post(f"{server.http}/invocations/..%20/inputs") as answer:
        assert answer.status == 400


async def test_the_framed_socket_runs_nothing(serve: Serve) -> None:
    server = await serve(SocketOnly())
    async with server.connect() as client:
        frame = await client.ask(action="invoke")
    assert frame["error"]["code"] == "not_implemented"


async def test_the_methods_answer(serve: Serve, session: Session) -> None:
    server = await serve(Everything())
    url = f"{server.http}/invocations?agent_session_id=s"
    async with session.post(url, json={"do": "answer"}, headers=named("i")) as answer:
        assert answer.status == 201
        assert await answer.json() == ["i", "s", "http"]
        assert answer.headers["x-agent-invocation-id"] == "i"
        assert answer.headers["x-agent-session-id"] == "s"
    async with session.get(f"{server.http}/invocations/i") as answer:
        assert await answer.text() == "get i i"
    async with session.post(f"{server.http}/invocations/i/cancel") as answer:
        assert await answer.text() == "cancel i"
    async with session.get(f"{server.http}/invocations/docs/openapi.json") as answer:
        assert await answer.json() == {"openapi": "3.1.0"}
    for place in ("invocations", "invocations_ws"):
        async with session.get(f"{server.http}/{place}/docs/asyncapi.json") as answer:
            assert await answer.json() == {"asyncapi": "3.0.0"}
    async with session.post(f"{server.http}/invocations/", json={"do": "answer"}) as answer:
        assert answer.status == 201
    async with session.get(f"{server.http}/invocations/i/") as answer:
        assert await answer.text() == "get i i"
    async with session.get(f"{server.http}/invocations/..%20") as answer:
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


async def test_a_body_reaches_the_agent_inflated(serve: Serve, session: Session) -> None:
    server = await serve(Everything())
    url, headers = f"{server.http}/invocations", {"Content-Encoding": "gzip"}
    body = gzip.compress(b'{"do": "answer"}')
    async with session.post(url, data=body, headers=headers) as answer:
        assert answer.status == 201


async def test_what_the_agent_says_of_origins_stands(serve: Serve, session: Session) -> None:
    class Public(SocketOnly):
        async def get(
            self, invocation_id: str, request: web.Request, context: InvocationContext
        ) -> web.StreamResponse:
            return web.Response(headers={"Access-Control-Allow-Origin": "*"})

    server = await serve(Public(), auth={"allowed_origins": ("https://a.example",)})
    page = {"Origin": "https://a.example"}
    for path, told in (("/invocations/i", "*"), ("/nowhere", "https://a.example")):
        async with session.get(server.http + path, headers=page) as answer:
            assert answer.headers.getall("Access-Control-Allow-Origin") == [told]


async def test_what_a_method_raises_is_never_the_platforms(serve: Serve, session: Session) -> None:
    class Refusing(SocketOnly):
        async def handle(
            self, request: web.Request, context: InvocationContext
        ) -> web.StreamResponse:
            raise InvocationError("shutting_down", "The model")

    server = await serve(Refusing())
    async with session.post(f"{server.http}/invocations") as answer:
        assert (await refusal(answer, 503, "shutting_down"))["source"] == "upstream"
        assert answer.headers["Retry-After"] == "1"


async def test_an_http_exception_passes_through(serve: Serve, session: Session) -> None:
    server = await serve(Everything())
    async with session.post(f"{server.http}/invocations", json={"do": "refuse"}) as answer:
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
    serve: Serve, session: Session, do: str, status: int, code: str
) -> None:
    server = await serve(Everything())
    async with session.post(f"{server.http}/invocations", json={"do": do}) as answer:
        await refusal(answer, status, code)
        assert "secret" not in await answer.text()


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


async def test_a_drain_waits_for_an_answer_and_refuses_the_next(
    serve: Serve, session: Session
) -> None:
    entered, finish = asyncio.Event(), asyncio.Event()

    class Slow(SocketOnly):
        async def handle(
            self, request: web.Request, context: InvocationContext
        ) -> web.StreamResponse:
            entered.set()
            await finish.wait()
            return web.Response(text="done")

    server = await serve(Slow(), server={"shutdown_grace": PATIENCE})
    url = f"{server.http}/invocations"
    first = asyncio.create_task(session.post(url))
    await soon(entered)
    async with server.draining():
        async with session.post(url) as refused:
            await refusal(refused, 503, "shutting_down")
        finish.set()
        assert await (await first).text() == "done"
