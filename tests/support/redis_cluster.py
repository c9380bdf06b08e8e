"""A Redis that is a cluster: three primaries, each with a replica, made by plain commands."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

PRIMARIES = 3

NODE_TIMEOUT = 1000
"""Milliseconds after which the others take a node for dead."""

SLOT = key_slot(b"{agentws}:")
"""The slot of all keys of a service whose prefix is the default."""

OPTIONS = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT)),
    *("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
)


class RedisCluster:
    """Six nodes, of which the first three began as primaries."""

    def __init__(self, nodes: list[RedisServer]) -> None:
        self.nodes = nodes

    @property
    def living(self) -> list[RedisServer]:
        """All nodes whose process runs."""
        return [node for node in self.nodes if node.is_running]

    @property
    def owner(self) -> RedisServer:
        """The primary that owns our slot, as it says itself. Raises `StopIteration`."""
        return next(node for node in self.living if owns_slot(node))

    @property
    def stand_in(self) -> RedisServer:
        """The replica of the owner."""
        name = itself(self.owner)["node_id"]
        return next(node for node in self.living if itself(node)["master_id"] == name)

    @property
    def other(self) -> RedisServer:
        """A primary that does not own our slot."""
        return next(node for node in self.living if is_primary(node) and not owns_slot(node))

    async def join(self) -> None:
        """Make one cluster of the nodes."""
        primaries, replicas = self.nodes[:PRIMARIES], self.nodes[PRIMARIES:]
        for number, node in enumerate(primaries):
            node.client.cluster("ADDSLOTS", *shares()[number])
            node.client.cluster("SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].client.cluster("MEET", "127.0.0.1", node.port)
        await eventually(lambda: all(len(known(node)) == len(self.nodes) for node in self.nodes))
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.client.cluster("REPLICATE", itself(primary)["node_id"])
        await self.in_step()

    async def in_step(self) -> None:
        """Wait until every node is up, and has what its primary has."""
        await eventually(lambda: all(map(is_in_step, self.nodes)))

    async def recover(self) -> None:
        """Start what has been stopped, and forget everything."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        await self.in_step()
        for node in self.nodes:
            if is_primary(node):
                node.empty()

    async def fail_over(self) -> None:
        """Have the owner change places with its replica, and wait until they have."""
        old, new = self.owner, self.stand_in
        new.client.cluster("FAILOVER")
        await eventually(lambda: owns_slot(new) and not is_primary(old))

    async def move_slot(self, target: RedisServer, pause: float = 0.0) -> None:
        """Move our slot and its keys to another primary, step by step, as administrators do.

        After the first step there is a pause of so many seconds.
        """
        source = self.owner
        old, new = itself(source)["node_id"], itself(target)["node_id"]
        target.client.cluster("SETSLOT", SLOT, "IMPORTING", old)
        source.client.cluster("SETSLOT", SLOT, "MIGRATING", new)
        keys: Any
        while keys := source.client.cluster("GETKEYSINSLOT", SLOT, 3):
            source.client.migrate("127.0.0.1", target.port, keys, 0, 5000)
            await asyncio.sleep(pause)  # in which half is here and half is there
            pause = 0.0
        for node in (target, source):
            node.client.cluster("SETSLOT", SLOT, "NODE", new)


def shares() -> list[range]:
    """Return the slots of each primary."""
    size = REDIS_CLUSTER_HASH_SLOTS // PRIMARIES
    ends = [size * number for number in range(PRIMARIES)] + [REDIS_CLUSTER_HASH_SLOTS]
    return [range(*pair) for pair in pairwise(ends)]


def known(node: RedisServer) -> list[dict[str, Any]]:
    """Return all nodes that a node has met."""
    nodes: Any = node.client.cluster("NODES")
    return [its for its in nodes.values() if "handshake" not in its["flags"]]


def itself(node: RedisServer) -> dict[str, Any]:
    """Return what a node says of itself."""
    return next(its for its in known(node) if "myself" in its["flags"])


def is_primary(node: RedisServer) -> bool:
    return "master" in itself(node)["flags"]


def owns_slot(node: RedisServer) -> bool:
    its = itself(node)
    ranges = [[int(end) for end in ends] for ends in its["slots"]]
    return "master" in its["flags"] and any(ends[0] <= SLOT <= ends[-1] for ends in ranges)


def is_in_step(node: RedisServer) -> bool:
    """Tell whether a node takes commands, knows of no failure, and has what its primary has."""
    state: Any = node.client.cluster("INFO")
    replication = node.client.info("replication")
    in_step = replication["role"] == "master" or replication["master_link_status"] == "up"
    no_failure = not any("fail" in its["flags"] for its in known(node))
    return in_step and state["cluster_state"] == "ok" and no_failure


@contextmanager
def cluster_nodes() -> Iterator[list[RedisServer]]:
    """Run nodes that have not met."""
    with ExitStack() as stack:
        folders = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2 * PRIMARIES)]
        nodes = [RedisServer(Path(folder), *OPTIONS) for folder in folders]
        for node in nodes:
            stack.callback(node.client.close)
            stack.callback(node.stop)
            node.start()
        yield nodes


@contextmanager
def running_cluster() -> Iterator[RedisCluster]:
    """Run a cluster whose nodes are in step."""
    with cluster_nodes() as nodes, asyncio.Runner() as runner:
        cluster = RedisCluster(nodes)
        runner.run(cluster.join())
        yield cluster
