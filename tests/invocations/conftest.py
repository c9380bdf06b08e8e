"""A job that the test leads, and its record."""

import asyncio
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import PATIENCE, Client, Frame


class Job:
    """A coroutine handler whose context the test takes, and that ends when the test lets it."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)
        self.end = asyncio.Event()
        self._contexts: asyncio.Queue[InvocationContext] = asyncio.Queue()

    async def invoke(self, payload: Any, context: InvocationContext) -> Any:
        """Hand out the context, and wait for the end."""
        self._contexts.put_nowait(context)
        await self.end.wait()
        return payload

    async def begun(self, client: Client, **fields: Any) -> InvocationContext:
        """Invoke as `i` and return the context of the handler that runs."""
        await client.send(action="invoke", invocation_id="i", **fields)
        async with asyncio.timeout(PATIENCE):
            return await self._contexts.get()


@pytest.fixture
def job() -> Job:
    """A job that has not begun."""
    return Job()


async def record_of(client: Client) -> Frame:
    """Poll, and return the record of `i`."""
    frame = await client.ask(action="get_invocation", invocation_id="i")
    record = frame["payload"]
    assert isinstance(record, dict)
    return record
