"""A Redis that is away, or comes back empty: streams go on, and are written again (§10)."""

import asyncio
import time
from typing import Any

import aiohttp

from tests.conftest import PATIENCE, Client, Frame, LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.support.redis_server import RedisServer
from tests.support.replicas import (
    LEASE,
    SOON,
    Pair,
    Stage,
    becomes,
    begin,
    chunks,
    get,
    probed,
    replay,
)


async def answered(client: Client, **fields: Any) -> Frame:
    """Return the answer to an action, which must come soon."""
    before = time.monotonic()
    await client.send(**fields)
    frame = await client.until(action=fields["action"])
    assert time.monotonic() - before < SOON
    return frame


async def test_while_redis_does_not_answer_local_streams_go_on(
    pair: Pair, own_redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await begin(client, stage, 1)
    async with pair.owner.connect() as more:
        own_redis.pause()
        for action in ("invoke", "get_invocation", "attach_invocation", "cancel_invocation"):
            frame = await answered(more, action=action, invocation_id="new")
            assert frame["error"]["code"] == "store_unavailable"
            assert frame["error"]["retryable"] is True
            assert frame["error"]["source"] == "platform"
        for number in range(2, 10):
            stage.say("i", number)
            assert await chunks(client, 1) == [number]
        assert (await get(pair.owner))[1]["status"] == "running"
        await becomes(pair.owner, "unavailable")
        stage.say("i", Stage.END)
        assert (await client.until(type="stream_end"))["invocation_id"] == "i"
        assert (await get(pair.owner))[1]["status"] == "completed"
        own_redis.resume()
        await becomes(pair.owner, "healthy")
        stage.say("new", "again", Stage.END)
        await more.send(action="invoke", invocation_id="new")  # nothing of the first try remains
        assert await chunks(more, 1) == ["again"]
    await becomes(pair.other, "healthy")
    await other.send(action="attach_invocation", invocation_id="i")
    assert await chunks(other, 9) == list(range(1, 10))
    assert (await other.receive())["type"] == "stream_end"


async def test_over_http_a_missing_redis_is_503(pair: Pair, own_redis: RedisServer) -> None:
    own_redis.stop()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{pair.owner.http}/invocations", json={}) as response,
    ):
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert (await response.json())["error"]["code"] == "store_unavailable"
    assert (await get(pair.owner))[0] == 503
    await becomes(pair.owner, "unavailable")


async def test_a_redis_that_comes_back_empty_is_filled_again(
    pair: Pair, own_redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await begin(client, stage, 1, 2)
    await other.send(action="attach_invocation", invocation_id="i")
    assert await chunks(other, 2) == [1, 2]
    own_redis.stop()
    stage.say("i", 3)
    assert await chunks(client, 1) == [3]
    own_redis.start()
    await becomes(pair.owner, "healthy")
    await becomes(pair.other, "healthy")
    stage.say("i", 4)
    assert await chunks(other, 2) == [3, 4]
    assert await chunks(client, 1) == [4]
    assert await replay(pair.other, 4) == [1, 2, 3, 4]
    stage.say("i", Stage.END)
    assert (await other.receive())["type"] == "stream_end"
    assert (await client.until(type="stream_end"))["invocation_id"] == "i"


async def test_an_emptied_redis_is_filled_again(
    pair: Pair, own_redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await begin(client, stage, 1, 2)
    own_redis.empty()
    stage.say("i", 3)
    assert await chunks(client, 1) == [3]
    async with asyncio.timeout(PATIENCE):
        while (await get(pair.other))[0] != 200:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)
    await other.send(action="attach_invocation", invocation_id="i")
    assert await chunks(other, 3) == [1, 2, 3]
    stage.say("i", Stage.END)
    assert (await other.receive())["type"] == "stream_end"


async def test_leases_count_from_the_return_of_redis(
    pair: Pair, own_redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await begin(client, stage, 1)
    await other.send(action="attach_invocation", invocation_id="i")
    assert await chunks(other, 1) == [1]
    own_redis.pause()
    await asyncio.sleep(2.5 * LEASE)
    own_redis.resume()
    await becomes(pair.other, "healthy")
    assert (await get(pair.other))[1]["status"] == "running"
    await becomes(pair.owner, "healthy")
    stage.say("i", 2, Stage.END)
    assert await chunks(other, 1) == [2]
    assert (await other.receive())["type"] == "stream_end"
    assert await chunks(client, 1) == [2]


async def test_a_server_waits_for_redis(own_redis: RedisServer, serve: Serve) -> None:
    own_redis.stop()
    server = await serve(agent_of(echo), store={"url": own_redis.url, "lease": LEASE})
    body = {"status": "unavailable", "checks": {"store": "Redis cannot be reached"}}
    assert await probed(server) == body
    async with server.connect() as client:
        frame = await answered(client, action="invoke", payload=1)
        assert frame["error"]["code"] == "store_unavailable"
        own_redis.start()
        await becomes(server, "healthy")
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1


async def test_a_server_that_redis_forgets_to_speak_to_is_heard_again(
    pair: Pair, own_redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await begin(client, stage, 1)
    for kind in ("pubsub", "normal"):
        own_redis.client.client_kill_filter(_type=kind, skipme=True)
    frame = await other.ask(action="cancel_invocation", invocation_id="i")
    if frame["type"] == "error":
        assert frame["error"]["code"] == "store_unavailable"
        await becomes(pair.other, "healthy")
        frame = await other.ask(action="cancel_invocation", invocation_id="i")
    assert frame["payload"]["status"] == "cancelled"


async def test_a_redis_that_is_full_takes_nothing_new_and_forgets_nothing_old(
    pair: Pair, own_redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await begin(client, stage, 1)
    own_redis.client.config_set("maxmemory", "1")
    for number in range(2, 5):
        stage.say("i", number)
        assert await chunks(client, 1) == [number]
    await becomes(pair.other, "unavailable")
    frame = await answered(other, action="invoke", invocation_id="new")
    assert frame["error"]["code"] == "store_unavailable"
    own_redis.client.config_set("maxmemory", "0")
    await becomes(pair.other, "healthy")
    await other.send(action="attach_invocation", invocation_id="i")
    assert await chunks(other, 4) == [1, 2, 3, 4]
    stage.say("i", Stage.END)
    assert (await other.receive())["type"] == "stream_end"


async def test_a_redis_that_would_evict_is_warned_of_once(
    own_redis: RedisServer, serve: Serve, log_lines: LogLines
) -> None:
    own_redis.client.config_set("maxmemory-policy", "volatile-lru")
    server = await serve(agent_of(echo), store={"url": own_redis.url, "lease": LEASE})
    own_redis.client.client_kill_filter(_type="normal", skipme=True)
    async with server.connect() as client:
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1
    warnings = [line.getMessage() for line in log_lines.records if line.levelname == "WARNING"]
    assert len([line for line in warnings if "maxmemory-policy is volatile-lru" in line]) == 1
