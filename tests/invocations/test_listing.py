"""Lists of one's own invocations, page by page, of all replicas (§5)."""

import asyncio
from typing import Any

import aiohttp
import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Client, Frame, Running, Serve
from tests.support.replicas import ServeAgent

agent = Agent()


@agent.invoke_handler
async def invoke(payload: Any, context: InvocationContext) -> Any:
    match payload:
        case "wait":
            await asyncio.Event().wait()
        case "ask":
            await context.ask("Which?")
        case "fail":
            raise ValueError
    return payload


async def run(client: Client, invocation_id: str, payload: Any = 1, **fields: Any) -> None:
    """Invoke, and wait for the end, or until it waits itself."""
    await client.send(
        action="invoke", invocation_id=invocation_id, payload=payload, query_id="q", **fields
    )
    await client.until(type="accepted", invocation_id=invocation_id)
    if payload != "wait":
        await client.receive()


async def listed(client: Client, **fields: Any) -> Frame:
    frame = await client.ask(action="list_invocations", **fields)
    assert frame["type"] == "invocations", frame
    return frame


def ids(page: Frame) -> list[str]:
    return [record["invocation_id"] for record in page["invocations"]]


async def test_the_newest_come_first_wherever_they_run(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        for number in range(6):
            await run(client if number % 2 else other, f"i{number}", session_id="s")
        await run(client, "running", "wait", session_id="s")
        for peer in (client, other):
            page = await listed(peer, query_id="mine")
            assert page["query_id"] == "mine"
            assert "next" not in page
            assert ids(page) == ["running", *(f"i{number}" for number in range(5, -1, -1))]
            record = page["invocations"][1]
            assert (record["status"], record["session_id"]) == ("completed", "s")
            assert "result" not in record


async def test_a_list_is_told_page_by_page(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        for number in range(7):
            await run(client, f"i{number}")
        found: list[str] = []
        page = await listed(other, limit=3)
        while True:
            found += ids(page)
            await run(client, f"new{len(found)}")  # what is new disturbs nothing
            if "next" not in page:
                break
            page = await listed(other, limit=3, after=page["next"])
        assert found == [f"i{number}" for number in range(6, -1, -1)]


async def test_it_is_filtered(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await run(client, "done", session_id="a")
        await run(client, "failed", "fail", session_id="b")
        await run(client, "asking", "ask", session_id="a")
        await run(client, "running", "wait", session_id="a")
        assert ids(await listed(other, session_id="a")) == ["running", "asking", "done"]
        assert ids(await listed(other, session_id="unknown")) == []
        for status, expected in (
            ("running", ["running"]),
            ("input_required", ["asking"]),
            ("completed", ["done"]),
            ("failed", ["failed"]),
            ("lost", []),
        ):
            assert ids(await listed(other, status=status)) == expected
        assert ids(await listed(other, status="running", session_id="b")) == []


async def test_everybody_sees_his_own(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(agent)
    ann, bob = ({"x-agent-user-id": name} for name in ("ann", "bob"))
    async with (
        pair.owner.connect(headers=ann) as of_ann,
        pair.other.connect(headers=bob) as of_bob,
        pair.other.connect() as of_nobody,
    ):
        await run(of_ann, "a", session_id="s")
        await run(of_bob, "b", session_id="s")
        await run(of_nobody, "n", session_id="s")
        for client, own in ((of_ann, "a"), (of_bob, "b"), (of_nobody, "n")):
            assert ids(await listed(client)) == ids(await listed(client, session_id="s")) == [own]


async def test_what_is_no_longer_retained_is_not_listed(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(agent, invocations={"retention": 0.2})
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await run(client, "i")
        assert ids(await listed(other)) == ["i"]
        await asyncio.sleep(0.3)
        await run(client, "j")
        assert ids(await listed(other)) == ["j"]


async def test_at_most_so_many_are_retained_and_listed(serve: Serve) -> None:
    server = await serve(agent, invocations={"max_retained": 3})
    async with server.connect() as client:
        await run(client, "running", "wait", session_id="s")
        for number in range(10):
            await run(client, f"i{number}", session_id="s")
        expected = ["i9", "i8", "i7", "running"]
        assert ids(await listed(client)) == ids(await listed(client, session_id="s")) == expected


async def page_of(server: Running, query: str) -> tuple[int, Frame]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.http}/invocations{query}") as response,
    ):
        return response.status, await response.json()


async def test_over_http_it_is_the_same(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(agent)
    async with pair.owner.connect() as client:
        for number in range(3):
            await run(client, f"i{number}", session_id="s")
        status, page = await page_of(pair.other, "?session_id=s&status=completed&limit=2&after=")
        assert (status, ids(page)) == (200, ["i2", "i1"])
        status, page = await page_of(pair.other, f"?limit=2&after={page['next']}")
        assert (status, ids(page)) == (200, ["i0"])
        assert "next" not in page


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"status": "done"}, "status"),
        ({"session_id": "a b"}, "session_id"),
        ({"after": "x"}, "after"),
        ({"after": "WzFd"}, "after"),
    ],
)
async def test_a_bad_field_is_named(serve: Serve, fields: Frame, name: str) -> None:
    server = await serve(agent)
    async with server.connect() as client:
        frame = await client.ask(action="list_invocations", query_id="q", **fields)
        assert (frame["error"]["code"], frame["query_id"]) == ("invalid_request", "q")
        assert name in frame["error"]["message"]
    query = "&".join(f"{key}={value}" for key, value in fields.items())
    status, body = await page_of(server, f"?{query.replace(' ', '+')}")
    assert (status, body["error"]["code"]) == (400, "invalid_request")
    assert name in body["error"]["message"]
