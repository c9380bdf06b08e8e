"""A Redis with a replica that can take over."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import PATIENCE, Address
from tests.support.proxy import Front, fronted
from tests.support.redis_server import RedisServer, running_redis


class Primary:
    """A primary with its replica, under one address that moves when they change places."""

    def __init__(self, old: RedisServer, new: RedisServer, front: Front) -> None:
        self.old = old
        self.new = new
        self.front = front
        self.url = f"redis://127.0.0.1:{front.port}"

    def fail_over(self) -> None:
        """Promote the replica; the old primary stays up, read-only, its connections open.

        They have changed places, names included.
        """
        self.new.client.replicaof("NO", "ONE")
        self.front.target = Address(self.new.port)
        self.old.client.replicaof("127.0.0.1", str(self.new.port))
        self.old, self.new = self.new, self.old

    async def in_step(self) -> None:
        """Wait until the replica has what the primary has."""
        async with asyncio.timeout(PATIENCE):
            while not self._is_linked():  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.05)
        assert self.old.client.wait(1, 5000) == 1

    def _is_linked(self) -> bool:
        return bool(self.new.client.info("replication").get("master_link_status") == "up")


@pytest.fixture
async def primary() -> AsyncIterator[Primary]:
    with running_redis() as old, running_redis("--replicaof", "127.0.0.1", str(old.port)) as new:
        async with fronted(Address(old.port)) as front:
            primary = Primary(old, new, front)
            await primary.in_step()
            yield primary
