"""Two replicas on one Redis, for gateways to stand in front of."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from agentws import Agent, InvocationContext
from tests.conftest import Running, Serve
from tests.support.redis_server import RedisServer


def counting() -> Agent:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        for number in range(1, payload["count"] + 1):
            yield number
            await asyncio.sleep(payload["pause"])

    return agent


class Replicas:
    """Two replicas with one agent; who derives from it puts a gateway in front of them."""

    def __init__(self, folder: Path, serve: Serve, redis: RedisServer) -> None:
        self.folder = folder
        self._serve = serve
        self._store = {"url": redis.url}
        self.replicas: list[Running] = []

    async def open(self, agent: Agent | None = None, **sections: Any) -> None:
        """Start the replicas."""
        for _ in range(2):
            replica = await self._serve(agent or counting(), store=self._store, **sections)
            self.replicas.append(replica)

    @property
    def ports(self) -> list[int]:
        """The ports that the replicas listen at."""
        return [replica.port for replica in self.replicas]
