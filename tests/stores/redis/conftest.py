"""Two servers on one Redis, and a socket of each."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Client
from tests.support.redis_server import RedisServer
from tests.support.replicas import Pair, ServePair


@pytest.fixture
async def pair(request: pytest.FixtureRequest, serve_pair: ServePair) -> Pair:
    """Two servers of what is on the stage; their Redis is the test's own where it asks for one."""
    name = "own_redis" if "own_redis" in request.fixturenames else "redis"
    redis: RedisServer = request.getfixturevalue(name)
    return await serve_pair(redis)


@pytest.fixture
async def client(pair: Pair) -> AsyncIterator[Client]:
    """A socket of the server that will run what the test invokes."""
    async with pair.owner.connect() as client:
        yield client


@pytest.fixture
async def other(pair: Pair) -> AsyncIterator[Client]:
    """A socket of the other server."""
    async with pair.other.connect() as client:
        yield client
