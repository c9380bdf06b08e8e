"""A Redis that is a cluster: the owner of our slot is found and followed (§10)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from agentws.stores.redis.failures import TIMEOUT
from tests.conftest import Address, LogLines, Serve
from tests.support.certificates import certificate
from tests.support.load import LEASE, Counter, under_load
from tests.support.proxy import fronted
from tests.support.redis_cluster import (
    RedisCluster,
    is_in_step,
    owns_slot,
    running_cluster,
)
from tests.support.redis_server import RedisServer, running_redis
from tests.support.replicas import Pair, Stage, begin, chunks
from tests.support.waiting import eventually

SECONDS_AT_MOST = 6.0
"""How long the store may be away where the cluster takes two or three seconds to elect."""


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[RedisCluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
async def cluster(shared_cluster: RedisCluster) -> RedisCluster:
    """An empty cluster whose nodes are all there."""
    await shared_cluster.recover()
    return shared_cluster


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def lease() -> float:
    return LEASE


@pytest.fixture
async def pair(cluster: RedisCluster, serve: Serve, counter: Counter, lease: float) -> Pair:
    """Two servers, whose URL names the node that owns the slot at first."""
    store = {"url": cluster.owner.url, "lease": lease}
    first, second = [await serve(counter.agent, store=store) for _ in range(2)]
    return Pair(first, second)


Choose = Callable[[RedisCluster], RedisServer]
NODES: dict[str, Choose] = {
    "the owner": lambda cluster: cluster.owner,
    "its replica": lambda cluster: cluster.stand_in,
    "another primary": lambda cluster: cluster.other,
}


async def test_the_url_may_name_any_node(
    cluster: RedisCluster, serve: Serve, stage: Stage, log_lines: LogLines
) -> None:
    for name, choose in NODES.items():
        await cluster.in_step()
        store = {"url": choose(cluster).url, "lease": LEASE, "prefix": "agentws"}
        first, second = [await serve(stage.agent, store=store) for _ in range(2)]
        line = (await log_lines.next("agentws.store")).getMessage()
        owner = f"127.0.0.1:{cluster.owner.port}"
        assert line == f"Redis is a cluster of 6 nodes: {owner} owns the slot of {{agentws}}:", name
        async with first.connect() as client, second.connect() as other:
            await begin(client, stage, 1)
            await other.send(action="attach_invocation", invocation_id="i")
            assert await chunks(other, 1) == [1]
            listed = await other.ask(action="list_invocations")
            assert [it["invocation_id"] for it in listed["invocations"]][:1] == ["i"]
            await other.send(action="cancel_invocation", invocation_id="i")
            frame = await other.until(action="cancel_invocation")
            assert frame["payload"]["status"] == "cancelled"
        cluster.owner.empty()


async def test_a_fail_over_costs_no_chunk(
    cluster: RedisCluster, pair: Pair, counter: Counter
) -> None:
    async with under_load(pair, counter) as load:
        await cluster.fail_over()
    assert load.codes <= {"store_unavailable"}
    assert load.outage < 2


async def test_an_owner_that_is_killed_is_replaced_and_costs_no_chunk(
    cluster: RedisCluster, pair: Pair, counter: Counter
) -> None:
    async with under_load(pair, counter) as load:
        stand_in = cluster.stand_in
        cluster.owner.stop()
        await eventually(lambda: owns_slot(stand_in))
    assert load.codes == {"store_unavailable"}
    assert load.outage < SECONDS_AT_MOST


# One server may find out by a time-out more than the other, which must not judge it before that.
@pytest.mark.parametrize("lease", [3 * TIMEOUT])
async def test_an_owner_that_hangs_is_replaced_and_costs_no_chunk(
    cluster: RedisCluster, pair: Pair, counter: Counter
) -> None:
    owner, stand_in = cluster.owner, cluster.stand_in
    try:
        async with under_load(pair, counter) as load:
            owner.pause()
            await eventually(lambda: owns_slot(stand_in))
    finally:
        owner.resume()
    assert load.codes == {"store_unavailable"}
    assert load.outage < SECONDS_AT_MOST


@pytest.mark.parametrize("pause", [0.0, 2 * LEASE], ids=["at once", "over leases"])
async def test_a_slot_that_moves_is_followed_and_costs_no_chunk(
    cluster: RedisCluster, pair: Pair, counter: Counter, pause: float
) -> None:
    async with under_load(pair, counter) as load:
        target = cluster.other
        await cluster.move_slot(target, pause)
    assert owns_slot(target)
    assert load.codes <= {"store_unavailable"}
    assert load.outage < pause + 2


# --- TLS --------------------------------------------------------------------------------------


async def test_with_tls_a_node_is_known_by_its_name(
    serve: Serve, stage: Stage, tmp_path: Path, log_lines: LogLines
) -> None:
    """The certificate names localhost alone, and nodes announce where that is, as Azure's do."""
    nowhere, tls = Address(1), certificate(tmp_path)
    async with fronted(nowhere, ssl=tls) as door, fronted(nowhere, ssl=tls) as way:
        announcing = (
            "--cluster-announce-ip",
            "127.0.0.1",
            "--cluster-announce-port",
            str(way.port),
        )
        with running_redis("--cluster-enabled", "yes", *announcing) as node:
            door.target = way.target = Address(node.port)
            node.client.cluster("ADDSLOTS", *range(REDIS_CLUSTER_HASH_SLOTS))
            await eventually(lambda: is_in_step(node))
            url = f"rediss://localhost:{door.port}?ssl_ca_certs={tmp_path / 'server.pem'}"
            server = await serve(stage.agent, store={"url": url, "lease": LEASE})
            line = (await log_lines.next("agentws.store")).getMessage()
            assert f"cluster of 1 node: localhost:{way.port} owns the slot" in line
            async with server.connect() as client:
                await begin(client, stage, 1)
            assert (door.opened, way.opened > 1) == (1, True)
