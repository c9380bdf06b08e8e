"""What stands in Redis: for how long, how much of it, and what if others put it there (§10)."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agentws.protocol.records import Record
from tests.conftest import Client
from tests.support.redis_server import RedisServer
from tests.support.replicas import ServePair, Stage, begin, chunks, get, run_to_end


async def test_every_key_has_its_time(
    redis: RedisServer, serve_pair: ServePair, stage: Stage
) -> None:
    pair = await serve_pair(redis, invocations={"retention": 0.2})
    async with pair.owner.connect() as client:
        await begin(client, stage, 1)
        await get(pair.other)
        keys = redis.all_keys()
        assert len([key for key in keys if ":lease:" in key]) == 2
        assert len([key for key in keys if ":list:" in key]) == 2  # its owner's, its session's
        assert len([key for key in keys if ":turns:" in key]) == 1
        assert len(keys) == 7
        assert all(redis.client.pttl(key) > 0 for key in keys)
        stage.say("i", Stage.END)
        await client.until(type="stream_end")
        assert all(redis.client.pttl(key) > 0 for key in redis.all_keys())
        await asyncio.sleep(0.3)
        assert (await get(pair.other))[0] == 404
        assert (await get(pair.owner))[0] == 404
        stage.say("i", Stage.END)
        assert (await client.ask(action="invoke", invocation_id="i"))["type"] == "stream_end"


async def test_the_log_is_bounded_in_redis_as_in_memory(
    redis: RedisServer, serve_pair: ServePair, stage: Stage
) -> None:
    pair = await serve_pair(redis, invocations={"replay_bytes": 10_000})
    async with pair.owner.connect() as client:
        for _ in range(50):
            stage.say("i", *["x" * 100] * 20)
        await client.send(action="invoke", invocation_id="i")
        await chunks(client, 1000)
        stage.say("i", Stage.END)
        await client.until(type="stream_end")
    (stream,) = (key for key in redis.all_keys() if ":chunks:" in key)
    held = len(json.dumps(redis.client.xrange(stream)))
    assert 9_000 < held <= 20_000


OURS: dict[Any, Any] = {
    "status": "running",
    "record": msgspec.json.encode(Record("foreign", "s", 0.0)).decode(),
    "replica": "r",
    "first": "1",
    "last": "0",
}

FOREIGN: list[Callable[[RedisServer, str], Any]] = [
    lambda redis, key: redis.client.set(key, "a string"),
    lambda redis, key: redis.client.lpush(key, "a list"),
    lambda redis, key: redis.client.hset(key, mapping={"some": "hash"}),
    lambda redis, key: redis.client.hset(key, mapping={"status": "running", "record": "{"}),
    lambda redis, key: redis.client.hset(key, mapping={"status": "running", "record": "\xff"}),
    lambda redis, key: redis.client.hset(
        key, mapping={"status": "ended", "record": json.dumps({"invocation_id": "other"})}
    ),
    lambda redis, key: redis.client.hset(key, mapping={**OURS, "progress": "{"}),
]


@pytest.mark.parametrize("put", FOREIGN)
async def test_a_foreign_value_is_no_invocation_and_harms_no_other(
    redis: RedisServer,
    stage: Stage,
    client: Client,
    other: Client,
    put: Callable[[RedisServer, str], Any],
) -> None:
    put(redis, "{agentws}:record:foreign")
    await begin(client, stage, 1)
    for action in ("get_invocation", "attach_invocation", "cancel_invocation"):
        frame = await other.ask(action=action, invocation_id="foreign")
        assert frame["error"]["code"] == "not_found"
    frame = await other.ask(action="invoke", invocation_id="foreign")
    assert frame["error"]["code"] == "already_exists"
    await other.send(action="attach_invocation", invocation_id="i")
    assert await chunks(other, 1) == [1]


async def test_what_others_put_into_a_stream_is_a_gap(
    redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await run_to_end(client, stage, 1, 2, 3)
    redis.client.delete("{agentws}:chunks:i")
    redis.client.xadd("{agentws}:chunks:i", {"chunks": "nonsense"}, id="2-0")
    redis.client.xadd("{agentws}:chunks:i", {"chunks": '["three"]'}, id="3-0")
    frame = await other.ask(action="attach_invocation", invocation_id="i")
    assert (frame["error"]["code"], frame["error"]["first_available"]) == ("replay_gap", 3)
    await other.send(action="attach_invocation", invocation_id="i", starting_after=2)
    assert await chunks(other, 1) == ["three"]
    assert (await other.receive())["type"] == "stream_end"


async def test_a_log_that_others_removed_is_a_gap(
    redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await run_to_end(client, stage, 1, 2, 3)
    redis.client.delete("{agentws}:chunks:i")
    frame = await other.ask(action="attach_invocation", invocation_id="i")
    assert (frame["error"]["code"], frame["error"]["first_available"]) == ("replay_gap", 4)


@pytest.mark.parametrize(
    "message", [b"", b"nonsense", b'{"type":"cancel"}', b'{"type":"attend","invocation_id":1}']
)
async def test_nonsense_on_a_channel_is_ignored(
    redis: RedisServer, stage: Stage, client: Client, other: Client, message: bytes
) -> None:
    await begin(client, stage, 1)
    for channel in redis.client.pubsub_channels():
        redis.client.publish(channel, message)
    frame = await other.ask(action="cancel_invocation", invocation_id="i")
    assert frame["payload"]["status"] == "cancelled"
