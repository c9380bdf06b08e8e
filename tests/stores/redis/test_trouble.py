"""A Redis that fails over, comes back with older data, or refuses for a while (§10)."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import PATIENCE, Client, Frame, Running, Serve
from tests.support.primary import Primary
from tests.support.redis_server import RedisServer, running_redis
from tests.support.replicas import (
    LEASE,
    Pair,
    Stage,
    becomes,
    begin,
    chunks,
    get,
    probed,
    readiness,
    replay,
)

IN_TIME = LEASE + 2
"""Seconds within which a loss is told (§10)."""


async def status_becomes(server: Running, status: str, patience: float = PATIENCE) -> Frame:
    """Poll until the record has a status; return it."""
    async with asyncio.timeout(patience):
        while True:
            code, body = await get(server)
            if code == 200 and body["status"] == status:
                return body
            assert code in (200, 503), body
            await asyncio.sleep(0.05)


async def accepted(client: Client, invocation_id: str) -> None:
    """Invoke in the background as soon as the store takes it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            frame = await client.ask(action="invoke", invocation_id=invocation_id, background=True)
            if frame["type"] == "accepted":
                return
            assert frame["error"]["code"] == "store_unavailable"
            await asyncio.sleep(0.05)


# --- a fail-over ------------------------------------------------------------------------------


async def test_a_primary_that_became_read_only_is_left(
    primary: Primary, serve: Serve, stage: Stage
) -> None:
    store = {"url": primary.url, "lease": LEASE}
    owner, other = [await serve(stage.agent, store=store) for _ in range(2)]
    async with owner.connect() as client, other.connect() as follower:
        await begin(client, stage, 1, 2)
        await follower.send(action="attach_invocation", invocation_id="i")
        assert await chunks(follower, 2) == [1, 2]
        await primary.in_step()
        opened = primary.front.opened
        primary.fail_over()
        stage.say("i", 3)
        assert await chunks(client, 1) == [3]
        for server in (owner, other):
            async with server.connect() as another:
                await accepted(another, f"new-{server.port}")
        assert primary.front.opened > opened
        await asyncio.sleep(1.2 * LEASE)  # others would have taken it for lost by then
        assert (await status_becomes(other, "running"))["stream"]["last_sequence_number"] == 3
        stage.say("i", 4, Stage.END)
        assert await chunks(follower, 2) == [3, 4]
        assert (await follower.receive())["type"] == "stream_end"
    assert await replay(other, 4) == [1, 2, 3, 4]


# --- older data -------------------------------------------------------------------------------


def come_back_older(redis: RedisServer) -> None:
    """Have Redis crash and start with what it held when it was last saved."""
    redis.stop()
    redis.start()


async def test_what_is_still_running_is_written_again(
    pair: Pair, own_redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await begin(client, stage, 1, 2)
    await other.send(action="attach_invocation", invocation_id="i")
    assert await chunks(other, 2) == [1, 2]
    own_redis.client.save()
    stage.say("i", 3, 4)
    assert await chunks(other, 2) == [3, 4]  # so they had been written
    come_back_older(own_redis)
    await becomes(pair.owner, "healthy")
    await becomes(pair.other, "healthy")
    stage.say("i", 5)
    assert await chunks(other, 1) == [5]
    assert await replay(pair.other, 5) == [1, 2, 3, 4, 5]
    await asyncio.sleep(1.5 * LEASE)
    stage.say("i", Stage.END)
    assert (await other.receive())["type"] == "stream_end"
    assert (await status_becomes(pair.other, "completed"))["stream"] == {
        "first_available": 1,
        "last_sequence_number": 5,
    }


async def test_a_restart_that_nobody_noticed_leaves_no_gap(
    pair: Pair, own_redis: RedisServer, stage: Stage
) -> None:
    async with pair.owner.connect() as client, pair.other.connect() as follower:
        await begin(client, stage, 1, 2)
        own_redis.client.save()
        stage.say("i", 3)
        await follower.send(action="attach_invocation", invocation_id="i")
        assert await chunks(follower, 3) == [1, 2, 3]
        come_back_older(own_redis)  # so fast that the next command finds it there
        stage.say("i", 4, Stage.END)
        await client.until(type="stream_end")
        assert await chunks(follower, 1) == [4]
        assert (await follower.receive())["type"] == "stream_end"
    assert await replay(pair.other, 4) == [1, 2, 3, 4]


async def test_what_nobody_runs_any_more_is_lost_in_time(
    pair: Pair, own_redis: RedisServer, stage: Stage
) -> None:
    async with pair.owner.connect() as client, pair.other.connect() as follower:
        await begin(client, stage, 1, 2)
        await follower.send(action="attach_invocation", invocation_id="i")
        assert await chunks(follower, 2) == [1, 2]  # so they had been written
        own_redis.client.save()
        stage.say("i", 3, Stage.END)
        await client.until(type="stream_end")
    await status_becomes(pair.other, "completed")
    come_back_older(own_redis)
    await becomes(pair.other, "healthy")
    async with pair.other.connect() as client:
        await client.send(action="attach_invocation", invocation_id="i")
        assert await chunks(client, 2) == [1, 2]
        for server in (pair.owner, pair.other):
            record = await status_becomes(server, "lost", IN_TIME)
            assert record["error"]["code"] == "lost"
        assert (await client.receive())["error"]["code"] == "lost"
        frame = await client.ask(action="cancel_invocation", invocation_id="i")
        assert frame["error"]["code"] == "already_finished"


async def test_what_ended_while_redis_was_away_is_written_whole(
    pair: Pair, own_redis: RedisServer, stage: Stage, client: Client
) -> None:
    await begin(client, stage, 1)
    own_redis.stop()
    stage.say("i", 2, Stage.END)
    await client.until(type="stream_end")
    own_redis.start()
    with own_redis.client.monitor() as monitor:  # type: ignore[no-untyped-call]
        async with asyncio.timeout(PATIENCE):
            while (await get(pair.other))[1].get("status") != "completed":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        written = []
        while "ended" not in written:
            command = monitor.next_command()["command"].split(" ")
            if command[0] == "HSET" and "record" in command:
                written += [command[command.index("status") + 1]]
                record = next(word for word in command if word.startswith('{"'))
                assert ('"status":"running"' in record) == (written[-1] == "running")
    assert written == ["running", "ended"]


async def test_connections_that_are_cut_cost_nothing(
    pair: Pair, own_redis: RedisServer, stage: Stage, client: Client, other: Client
) -> None:
    await begin(client, stage, 0)
    await other.send(action="attach_invocation", invocation_id="i")
    assert await chunks(other, 1) == [0]
    for number in range(1, 6):
        own_redis.client.client_kill_filter(_type="normal", skipme=True)
        stage.say("i", number)
        assert await chunks(client, 1) == [number]
        assert await chunks(other, 1) == [number]
    stage.say("i", Stage.END)
    assert (await other.receive())["type"] == "stream_end"
    assert (await status_becomes(pair.other, "completed"))["status"] == "completed"


# --- refusals that pass -----------------------------------------------------------------------


def full(redis: RedisServer) -> None:
    redis.client.config_set("maxmemory", "1")


def roomy(redis: RedisServer) -> None:
    redis.client.config_set("maxmemory", "0")


def waiting_for_a_primary(redis: RedisServer) -> None:
    redis.client.config_set("replica-serve-stale-data", "no")
    redis.client.replicaof("127.0.0.1", "1")


def read_only(redis: RedisServer) -> None:
    redis.client.replicaof("127.0.0.1", "1")


def primary_again(redis: RedisServer) -> None:
    redis.client.replicaof("NO", "ONE")


def without_replicas(redis: RedisServer) -> None:
    redis.client.config_set("min-replicas-to-write", "1")


def content_with_none(redis: RedisServer) -> None:
    redis.client.config_set("min-replicas-to-write", "0")


Change = Callable[[RedisServer], None]

PASSING = pytest.mark.parametrize(
    ("refuse", "relent", "words"),
    [
        pytest.param(full, roomy, "Redis is full", id="full"),
        pytest.param(
            *(waiting_for_a_primary, primary_again, "Redis refuses for now"),
            id="without its primary",
        ),
        pytest.param(read_only, primary_again, "Redis is a read-only replica", id="read-only"),
        pytest.param(
            *(without_replicas, content_with_none, "Redis refuses for now"),
            id="with too few replicas",
        ),
    ],
)


@PASSING
async def test_a_redis_that_refuses_at_the_start_is_waited_for(
    own_redis: RedisServer, serve: Serve, stage: Stage, refuse: Change, relent: Change, words: str
) -> None:
    refuse(own_redis)
    server = await serve(stage.agent, store={"url": own_redis.url, "lease": LEASE})
    assert await probed(server) == {"status": "unavailable", "checks": {"store": words}}
    relent(own_redis)
    await becomes(server, "healthy")
    async with server.connect() as client:
        await begin(client, stage, 1)


@PASSING
async def test_a_redis_that_refuses_for_a_while_costs_no_chunk(
    pair: Pair,
    own_redis: RedisServer,
    stage: Stage,
    client: Client,
    refuse: Change,
    relent: Change,
    words: str,
) -> None:
    await begin(client, stage, 1)
    refuse(own_redis)
    await becomes(pair.owner, "unavailable")
    assert (await probed(pair.owner))["checks"] == {"store": words}
    stage.say("i", 2)
    assert await chunks(client, 1) == [2]
    relent(own_redis)
    await becomes(pair.owner, "healthy")
    await becomes(pair.other, "healthy")
    stage.say("i", 3, Stage.END)
    await client.until(type="stream_end")
    assert await replay(pair.other, 3) == [1, 2, 3]


@pytest.fixture
def electing_redis() -> Iterator[RedisServer]:
    """Run a node of a cluster that serves no slot yet."""
    with running_redis("--cluster-enabled", "yes") as server:
        yield server


async def test_a_cluster_that_is_down_at_the_start_is_waited_for(
    electing_redis: RedisServer, serve: Serve, stage: Stage
) -> None:
    server = await serve(stage.agent, store={"url": electing_redis.url, "lease": LEASE})
    assert await readiness(server) == "unavailable"
    electing_redis.client.cluster("ADDSLOTS", *range(16384))
    await becomes(server, "healthy")
    async with server.connect() as client:
        await begin(client, stage, 1)
