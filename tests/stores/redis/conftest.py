"""Two servers on one Redis, and a socket of each."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Client
from tests.support.replicas import LEASE, Pair, ServePair


@pytest.fixture
async def pair(request: pytest.FixtureRequest, serve_pair: ServePair) -> Pair:
    """Two servers of what is on the stage.

    Where the test asks for a Redis of its own, they are on that, with short leases.
    """
    if "own_redis" not in request.fixturenames:
        return await serve_pair(request.getfixturevalue("redis"))
    return await serve_pair(request.getfixturevalue("own_redis"), lease=LEASE)


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
