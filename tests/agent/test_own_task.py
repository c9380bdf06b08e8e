"""Whatever a handler does to its task, before, while or after it returns, the end is told (§5)."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from agentws import Agent, InvocationContext, InvocationWebSocketHandler
from agentws.agent.own_task import SelfCancelled, run_apart
from agentws.stores.redis.upkeep import Upkeep
from tests.conftest import Frame, Running, Serve
from tests.support.peers import TEXT, FramedPeer, masked
from tests.support.processes import PATIENCE, Start
from tests.support.redis_server import RedisServer


def own_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def answer(payload: str, context: InvocationContext) -> str:
    """Answer, and cancel the task at some moment."""
    match payload:
        case "before an await":
            own_task().cancel()
            await asyncio.sleep(0)
        case "while it awaits":
            asyncio.get_running_loop().call_soon(own_task().cancel)
            await asyncio.Event().wait()
        case "in its last step":
            own_task().cancel()
        case "after it returned":
            asyncio.get_running_loop().call_soon(own_task().cancel)
        case "for good":
            task = own_task()
            task.add_done_callback(lambda _: task.cancel())
            while task.cancelling() < 3:
                task.cancel()
    return "the answer"


async def stream(payload: str, context: InvocationContext) -> AsyncGenerator[str, None]:
    """Yield the answer, and cancel the task at some moment."""
    if payload == "before an await":
        own_task().cancel()
    yield "the answer"
    if payload == "in its last step":
        own_task().cancel()
    if payload == "after it returned":
        asyncio.get_running_loop().call_soon(own_task().cancel)


ANSWERS = {
    "before an await": "internal_error",
    "while it awaits": "internal_error",
    "in its last step": "the answer",
    "after it returned": "the answer",
    "for good": "the answer",
}
STREAMS = {
    "before an await": ["the answer", "internal_error"],
    "in its last step": ["the answer", "stream_end"],
    "after it returned": ["the answer", "stream_end"],
}

STORES = pytest.mark.parametrize("kind", ["memory", "redis"])


@pytest.fixture
def store(kind: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the settings of a store."""
    return {"url": request.getfixturevalue("redis").url} if kind == "redis" else {}


def said(frame: Frame) -> Any:
    match frame["type"]:
        case "error":
            return frame["error"]["code"]
        case "stream_end":
            return "stream_end"
    return frame["payload"]


class ClassStyle(InvocationWebSocketHandler):
    """An agent in class style that answers invokes as it is told."""

    def __init__(
        self, own: Callable[[web.Request, InvocationContext], Awaitable[web.StreamResponse]]
    ) -> None:
        self._own = own

    async def handle_websocket(
        self, ws: web.WebSocketResponse, context: InvocationContext
    ) -> None: ...

    async def handle(self, request: web.Request, context: InvocationContext) -> web.StreamResponse:
        return await self._own(request, context)


@STORES
@pytest.mark.parametrize(("moment", "expected"), ANSWERS.items())
async def test_the_end_of_an_answer_is_told(
    serve: Serve, store: dict[str, Any], moment: str, expected: str
) -> None:
    server = await serve(as_agent(answer), store=store)
    async with server.connect() as client:
        assert said(await client.ask(action="invoke", payload=moment)) == expected
    status, body = await post(server, moment)
    assert (status, body) == (200, expected) or body["error"]["code"] == expected


@STORES
@pytest.mark.parametrize(("moment", "expected"), STREAMS.items())
async def test_the_end_of_a_stream_is_told(
    serve: Serve, store: dict[str, Any], moment: str, expected: list[str]
) -> None:
    server = await serve(as_agent(stream), store=store)
    async with server.connect() as client:
        await client.send(action="invoke", payload=moment)
        assert [said(await client.receive()) for _ in expected] == expected
    status, body = await post(server, moment)
    assert (status, body) == (200, ["the answer"]) or body["error"]["code"] == expected[-1]


@STORES
async def test_who_cancels_the_task_of_the_one_before_harms_nobody(
    serve: Serve, store: dict[str, Any]
) -> None:
    before: list[asyncio.Task[Any]] = []

    async def barge_in(payload: Any, context: InvocationContext) -> Any:
        if before:
            before.pop().cancel()
        before.append(own_task())
        return payload

    server = await serve(as_agent(barge_in), store=store)
    async with server.connect() as client:
        for number in range(50):
            await client.send(action="invoke", payload=number)
        told = [said(await client.receive()) for _ in range(50)]
    assert sorted(told) == list(range(50))


@STORES
async def test_a_poll_or_cancel_that_cancels_itself_is_answered(
    serve: Serve, store: dict[str, Any]
) -> None:
    agent = as_agent(answer)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> Any:
        return await answer(context.invocation_id.replace("-", " "), context)

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> Any:
        return await answer(context.invocation_id.replace("-", " "), context)

    server = await serve(agent, store=store)
    async with server.connect() as client, aiohttp.ClientSession() as session:
        for moment, expected in ANSWERS.items():
            name = moment.replace(" ", "-")
            for action in ("get_invocation", "cancel_invocation"):
                assert said(await client.ask(action=action, invocation_id=name)) == expected
            async with session.get(f"{server.http}/invocations/{name}") as response:
                body = await response.json()
            assert body == expected or body["error"]["code"] == expected


@pytest.mark.parametrize(("moment", "expected"), ANSWERS.items())
async def test_a_method_that_cancels_itself_is_answered_for(
    serve: Serve, moment: str, expected: str
) -> None:
    async def own(request: web.Request, context: InvocationContext) -> web.StreamResponse:
        return web.json_response(await answer(await request.json(), context))

    status, body = await post(await serve(ClassStyle(own)), moment)
    assert (status, body) == (200, expected) or body["error"]["code"] == expected


@pytest.mark.parametrize(("moment", "expected"), ANSWERS.items())
async def test_a_raw_handler_that_cancels_itself_has_its_socket_closed(
    serve: Serve, moment: str, expected: str
) -> None:
    agent = Agent()

    @agent.ws_handler
    async def own(ws: web.WebSocketResponse, context: InvocationContext) -> None:
        await answer(await ws.receive_str(), context)

    server = await serve(agent)
    async with server.connect("/invocations_ws") as client:
        await client.connection.send(moment)
        assert await client.closed() == (1011 if expected == "internal_error" else 1000)


async def test_what_is_cancelled_from_outside_is_cancelled_inside() -> None:
    left = asyncio.Event()
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # its cleaning up is waited for
            left.set()

    task = asyncio.create_task(run_apart(work()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.is_set()


async def test_what_leaves_the_loop_stays_in_the_task() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await run_apart(leave())


async def test_who_cancels_himself_is_told_so() -> None:
    async def work() -> None:
        own_task().cancel()
        await asyncio.sleep(0)

    with pytest.raises(SelfCancelled):
        await run_apart(work())


def as_agent(handler: Any) -> Agent:
    agent = Agent()
    agent.invoke_handler(handler)
    return agent


async def post(server: Running, payload: str) -> tuple[int, Any]:
    """Invoke over HTTP, for one JSON answer."""
    headers = {"Accept": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.http}/invocations", json=payload, headers=headers) as response,
    ):
        return response.status, await response.json()


async def test_one_that_is_cancelled_before_it_begins_has_its_end_told(serve: Serve) -> None:
    async def cancel_others(payload: Any, context: InvocationContext) -> str:
        for task in asyncio.all_tasks() - {own_task()}:
            if getattr(task.get_coro(), "__qualname__", "") == "Invocation._run":
                task.cancel()
        return "the answer"

    server = await serve(as_agent(cancel_others))
    async with FramedPeer.connect(server) as peer:
        invokes = [{"action": "invoke", "invocation_id": name} for name in ("first", "second")]
        # In one segment, so that both wait for their first step at the same time.
        peer.writer.write(b"".join(masked(TEXT, json.dumps(it).encode()) for it in invokes))
        frames = [json.loads((await peer.receive())[1]) for _ in range(2)]
    told = {frame["invocation_id"]: said(frame) for frame in frames}
    assert told == {"first": "the answer", "second": "internal_error"}


CANCEL_EVERYTHING = """
    @agent.invoke_handler
    async def invoke(payload, context):
        try:
            log.info("entered with %s", payload)
            await asyncio.sleep(payload.get("seconds", 0))
        finally:
            if payload.get("tidy"):
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
        return "the answer"
"""


async def test_who_cancels_every_task_takes_no_daemon_with_it(
    start: Start, redis: RedisServer
) -> None:
    options = {"store__url": redis.url, "server__shutdown_grace": 0}
    daemon = await (await start(CANCEL_EVERYTHING, **options)).listening()

    async def invoke(**payload: Any) -> Any:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{daemon.port}/invocations"
            async with session.post(url, json=payload) as response:
                return await response.json()

    for _ in range(3):
        with contextlib.suppress(aiohttp.ClientError):  # its own connection may be cut
            await invoke(tidy=True)
        async with asyncio.timeout(PATIENCE):
            assert await invoke() == "the answer"
    last = asyncio.create_task(invoke(tidy=True, seconds=600))
    while "600" not in (await daemon.line(logger="test"))["message"]:
        pass
    daemon.send(signal.SIGTERM)
    with contextlib.suppress(aiohttp.ClientError):
        await last
    assert await daemon.exit_code() == 0
    assert "Traceback" not in await daemon.complaints()


async def test_upkeep_goes_on_until_it_is_ended() -> None:
    begun = 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        again.set()
        await asyncio.Event().wait()

    upkeep = Upkeep(work)
    for _ in range(3):
        await again.wait()
        again.clear()
        for task in asyncio.all_tasks() - {own_task()}:
            task.cancel()
    await again.wait()
    upkeep.end()
    await upkeep.ended()
    assert begun == 4


async def test_upkeep_that_fails_is_begun_anew_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = 0
    goes_on = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise RuntimeError("unforeseen")
        goes_on.set()
        await asyncio.Event().wait()

    upkeep = Upkeep(work, pause=0.001)
    async with asyncio.timeout(PATIENCE):
        await goes_on.wait()
    upkeep.end()
    await upkeep.ended()
    told = [record for record in caplog.records if record.name == "agentws.store"]
    assert [str(record.exc_info and record.exc_info[1]) for record in told] == ["unforeseen"] * 2


@pytest.mark.parametrize("error", [GeneratorExit(), BaseExceptionGroup("g", [SystemExit(1)])])
async def test_a_method_that_raises_what_ends_a_program_is_answered_for(
    serve: Serve, error: BaseException
) -> None:
    async def own(request: web.Request, context: InvocationContext) -> web.StreamResponse:
        raise error

    status, body = await post(await serve(ClassStyle(own)), "")
    assert (status, body["error"]["code"]) == (500, "internal_error")


async def test_an_http_error_may_be_raised_again(serve: Serve) -> None:
    not_mine = web.HTTPNotFound(text='"not mine"', content_type="application/json")

    async def own(request: web.Request, context: InvocationContext) -> web.StreamResponse:
        raise not_mine

    server = await serve(ClassStyle(own))
    assert [await post(server, "") for _ in range(3)] == [(404, "not mine")] * 3
