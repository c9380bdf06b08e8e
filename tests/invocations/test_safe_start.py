"""An invoke that may be repeated: run once, and told whole each time (§5)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Client, Frame, Serve
from tests.support.replicas import ServeAgent, get


class Counting:
    """An agent that yields 1, 2, 3, and waits before the last; it counts how often it has run."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)
        self.runs = 0
        self.go_on = asyncio.Event()

    async def invoke(self, payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        self.runs += 1
        yield 1
        yield 2
        await self.go_on.wait()
        yield 3


@pytest.fixture
def counting() -> Counting:
    return Counting()


async def invoke(client: Client, **fields: Any) -> None:
    fields = {"invocation_id": "i", "session_id": "s", "if_exists": "attach", **fields}
    await client.send(action="invoke", **fields)


async def whole(client: Client) -> list[Any]:
    """Return what a client is sent of the stream, which must be all of it."""
    payloads = []
    while (frame := await client.receive())["type"] == "stream_chunk":
        payloads.append(frame["payload"])
        assert frame["sequence_number"] == len(payloads)
    assert frame["type"] == "stream_end", frame
    return payloads


async def test_it_runs_once_and_is_told_whole(
    serve_wherever: ServeAgent, counting: Counting
) -> None:
    pair = await serve_wherever(counting.agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await invoke(client)
        await client.until(type="stream_chunk", payload=2)
        await invoke(other)
        assert (await other.receive())["payload"] == 1
        counting.go_on.set()
        assert (await other.until(type="stream_chunk", payload=3))["sequence_number"] == 3
        await other.until(type="stream_end")
        await invoke(other)  # when it has ended, too
        assert await whole(other) == [1, 2, 3]
    assert counting.runs == 1


async def test_of_many_at_the_same_moment_one_runs(
    serve_wherever: ServeAgent, counting: Counting
) -> None:
    pair = await serve_wherever(counting.agent)
    counting.go_on.set()

    async def one(number: int) -> list[Any]:
        async with (pair.other if number % 2 else pair.owner).connect() as client:
            await invoke(client)
            return await whole(client)

    assert await asyncio.gather(*map(one, range(20))) == [[1, 2, 3]] * 20
    assert counting.runs == 1


async def test_anothers_is_refused(serve_wherever: ServeAgent, counting: Counting) -> None:
    pair = await serve_wherever(counting.agent)
    ann, bob = ({"x-agent-user-id": name} for name in ("ann", "bob"))
    async with pair.owner.connect(headers=ann) as client, pair.other.connect(headers=bob) as other:
        await invoke(client)
        await client.receive()
        await invoke(other, query_id="q")
        frame = await other.receive()
        assert (frame["error"]["code"], frame["query_id"]) == ("already_exists", "q")
        assert (frame["action"], frame["invocation_id"]) == ("invoke", "i")


async def test_in_the_background_it_is_accepted(
    serve_wherever: ServeAgent, counting: Counting
) -> None:
    pair = await serve_wherever(counting.agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        for peer in (client, other, client):
            await invoke(peer, background=True)
            assert await peer.receive() == {
                "type": "accepted",
                "invocation_id": "i",
                "session_id": "s",
            }
        frame = await other.ask(action="get_invocation", invocation_id="i")  # and nothing else
        assert frame["payload"]["status"] == "running"
    assert counting.runs == 1


async def test_a_query_is_answered_before_the_first_frame(
    serve_wherever: ServeAgent, counting: Counting
) -> None:
    pair = await serve_wherever(counting.agent)
    counting.go_on.set()
    async with pair.owner.connect() as client, pair.other.connect() as other:
        for peer in (client, other):
            await invoke(peer, query_id="q")
            frame = await peer.receive()
            assert (frame["type"], frame["query_id"]) == ("accepted", "q")
            frames = [await peer.receive() for _ in range(4)]
            assert [frame["type"] for frame in frames] == ["stream_chunk"] * 3 + ["stream_end"]
            assert not any("query_id" in frame for frame in frames)


async def test_only_the_answer_carries_the_query(serve: Serve, counting: Counting) -> None:
    server = await serve(counting.agent)
    async with server.connect() as client:
        await invoke(client)
        await client.until(type="stream_chunk", payload=2)
        for action in ("get_invocation", "cancel_invocation"):
            frame = await client.ask(action=action, invocation_id="unknown", query_id="q")
            assert (frame["type"], frame["query_id"]) == ("error", "q")
        frame = await client.ask(action="get_invocation", invocation_id="i", query_id="get")
        assert (frame["type"], frame["query_id"]) == ("result", "get")
        frame = await client.ask(action="attach_invocation", invocation_id="unknown", query_id="q")
        assert (frame["error"]["code"], frame["query_id"]) == ("not_found", "q")
        frame = await client.ask(action="invoke", invocation_id="i", query_id="again")
        assert (frame["error"]["code"], frame["query_id"]) == ("already_exists", "again")
        frame = await client.ask(action="invoke", query_id="a b", invocation_id="j")
        assert frame["error"]["code"] == "invalid_request"
        assert "query_id" in frame["error"]["message"]
        assert "query_id" not in frame
        frame = await client.ask(action="invoke", background=7, query_id="q")
        assert (frame["error"]["code"], frame["query_id"]) == ("invalid_request", "q")


async def test_no_limit_counts_for_what_exists(serve: Serve, counting: Counting) -> None:
    server = await serve(counting.agent, invocations={"max_running": 1})
    async with server.connect() as client, server.connect() as other:
        await invoke(client)
        await client.receive()
        await invoke(other)
        assert (await other.receive())["payload"] == 1
        await invoke(other, invocation_id="j")
        frame = await other.until(type="error")
        assert (frame["error"]["code"], frame["invocation_id"]) == ("too_many_invocations", "j")


async def test_while_it_drains_what_exists_is_attached_to(serve: Serve, counting: Counting) -> None:
    server = await serve(counting.agent, server={"shutdown_grace": 5.0})
    async with server.connect() as client, server.connect() as other:
        await invoke(client)
        await client.until(type="stream_chunk", payload=2)
        async with server.draining():
            await other.until(type="going_away")
            await invoke(other)
            assert (await other.receive())["payload"] == 1
            await invoke(other, invocation_id="j")
            assert (await other.until(type="error"))["error"]["code"] == "shutting_down"
            counting.go_on.set()
            await other.until(type="stream_end")


async def test_detaching_leaves_the_invocation_alone(serve: Serve, counting: Counting) -> None:
    server = await serve(counting.agent, invocations={"disconnect_grace": 0.05})
    async with server.connect() as client, server.connect() as other:
        await invoke(client)
        await client.until(type="stream_chunk", payload=2)
        await client.send(action="detach_invocation", invocation_id="i")
        await client.send(action="detach_invocation", invocation_id="unknown")
        assert (await client.ask(action="ping"))["type"] == "pong"  # none of both is answered
        await invoke(other)  # somebody else listens
        counting.go_on.set()
        assert (await other.until(type="stream_end"))["invocation_id"] == "i"
        frame = await client.ask(action="ping")
        assert frame["type"] == "pong"  # it heard nothing of the end
        frame = await client.ask(action="detach_invocation")
        assert (frame["error"]["code"], frame["action"]) == ("invalid_request", "detach_invocation")


async def test_who_detaches_last_deserts(serve: Serve, counting: Counting) -> None:
    server = await serve(counting.agent, invocations={"disconnect_grace": 0.05})
    async with server.connect() as client, server.connect() as other:
        await invoke(client)
        await client.receive()
        await client.send(action="detach_invocation", invocation_id="i")
        while (record := (await get(server))[1])["status"] == "running":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert (record["status"], record["error"]["reason"]) == ("cancelled", "deserted")
        await other.send(action="attach_invocation", invocation_id="i")
        assert (await other.until(type="error"))["error"]["reason"] == "deserted"


# --- over HTTP --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["i", '"i"'])
async def test_an_idempotency_key_runs_once(
    serve_wherever: ServeAgent, counting: Counting, key: str
) -> None:
    pair = await serve_wherever(counting.agent)
    counting.go_on.set()
    headers = {"Idempotency-Key": key, "Accept": "application/json"}
    async with aiohttp.ClientSession() as session:
        for server in (pair.owner, pair.other, pair.owner):
            async with session.post(f"{server.http}/invocations", headers=headers) as response:
                assert response.headers["x-agent-invocation-id"] == "i"
                assert await response.json() == [1, 2, 3]
        headers["Prefer"] = "respond-async"
        async with session.post(f"{pair.other.http}/invocations", headers=headers) as response:
            assert (response.status, response.headers["Location"]) == (202, "/invocations/i")
            assert (await response.json())["status"] == "completed"
    assert counting.runs == 1


async def test_of_many_posts_one_runs(serve_wherever: ServeAgent, counting: Counting) -> None:
    pair = await serve_wherever(counting.agent)
    counting.go_on.set()
    headers = {"Idempotency-Key": "i", "Accept": "application/json"}

    async def post(session: aiohttp.ClientSession, number: int) -> Any:
        server = pair.other if number % 2 else pair.owner
        async with session.post(f"{server.http}/invocations", headers=headers) as response:
            return await response.json()

    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(post(session, number) for number in range(20)))
    assert answers == [[1, 2, 3]] * 20
    assert counting.runs == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Idempotency-Key": '"i'},
        {"Idempotency-Key": '"i"x'},
        {"Idempotency-Key": "a b"},
        {"Idempotency-Key": '""'},
        {"Idempotency-Key": ""},
        {"Idempotency-Key": "i", "x-agent-invocation-id": "j"},
    ],
)
async def test_a_bad_key_is_named(
    serve: Serve, counting: Counting, headers: dict[str, str]
) -> None:
    server = await serve(counting.agent)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.http}/invocations", headers=headers) as response,
    ):
        error: Frame = (await response.json())["error"]
        assert (response.status, error["code"]) == (400, "invalid_request")
        assert "Idempotency-Key" in error["message"]
    assert counting.runs == 0


async def test_without_the_key_an_id_is_refused(serve: Serve, counting: Counting) -> None:
    server = await serve(counting.agent)
    counting.go_on.set()
    headers = {"x-agent-invocation-id": "i"}
    async with aiohttp.ClientSession() as session:
        for status in (200, 409):
            async with session.post(f"{server.http}/invocations", headers=headers) as response:
                assert response.status == status
                await response.read()
        headers["Idempotency-Key"] = "i"  # both, and the same
        async with session.post(f"{server.http}/invocations", headers=headers) as response:
            assert response.status == 200
